"""The address policy, spelling by spelling."""

from __future__ import annotations

import pytest

from tablewatcher.sinks.address import AddressPolicy, Places, service_name

NEVER = [
    "169.254.169.254",
    "169.254.0.1",
    "fe80::1",
    "fe80::1%eth0",
    "fd00:ec2::254",
    "fd20:ce::254",
    "100.100.100.200",
    "168.63.129.16",
    "0.0.0.0",
    "0.1.2.3",
    "::",
    "224.0.0.1",
    "239.255.255.255",
    "ff02::1",
    "255.255.255.255",
    "::ffff:169.254.169.254",
    "::ffff:a9fe:a9fe",
    "64:ff9b::169.254.169.254",
    "64:ff9b:1::169.254.169.254",
    "2002:a9fe:a9fe::1",
    "::169.254.169.254",
]
PRIVATE = [
    "127.0.0.1",
    "127.8.8.8",
    "::1",
    "10.0.0.1",
    "172.16.0.1",
    "172.31.255.255",
    "192.168.1.1",
    "100.64.0.1",
    "198.18.0.1",
    "fc00::1",
    "fd12:3456::1",
    "fec0::1",
    "240.0.0.1",
    "::ffff:10.0.0.1",
    "::ffff:127.0.0.1",
    "64:ff9b::10.0.0.1",
    "64:ff9b:1::8.8.8.8",
    "2002:0a00:0001::1",
]
PUBLIC = ["8.8.8.8", "1.1.1.1", "172.32.0.1", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::8.8.8.8"]


@pytest.mark.parametrize("address", NEVER)
@pytest.mark.parametrize("allow_private", [True, False])
def test_refused_whoever_asks(address: str, allow_private: bool) -> None:
    assert AddressPolicy(allow_private).refusal(address)


@pytest.mark.parametrize("address", PRIVATE)
def test_private_only_where_the_listener_allows_it(address: str) -> None:
    assert AddressPolicy(private=False).refusal(address)
    assert AddressPolicy().refusal(address) is None


@pytest.mark.parametrize("address", PUBLIC)
def test_public_is_allowed(address: str) -> None:
    assert AddressPolicy(private=False).refusal(address) is None


@pytest.mark.parametrize("text", ["", "example.com", "2130706433", "127.1", "0x7f.0.0.1"])
def test_what_is_no_address_is_refused(text: str) -> None:
    assert AddressPolicy().refusal(text)


def test_what_is_denied_is_refused_whatever_is_allowed() -> None:
    policy = AddressPolicy(True, Places.of(["10.0.0.0/8", "hook.example.com"]), Places.of(["10.0.0.0/24", "*.bad.org"]))
    assert policy.refusal("10.0.0.7", host="hook.example.com", own=True)
    assert policy.refusal("::ffff:10.0.0.7")
    assert policy.refusal("2002:0a00:0007::1")
    assert policy.refusal("8.8.8.8", host="A.Bad.org.")
    assert policy.refusal("8.8.8.8", host="bad.org") is None
    assert policy.refusal("10.0.1.7") is None


def test_private_addresses_where_only_some_are_allowed() -> None:
    policy = AddressPolicy(False, Places.of(["10.1.0.0/16", "fd12::/16", "192.168.7.7", "*.corp.example.com", "gate"]))
    for address in ("10.1.2.3", "fd12::1", "192.168.7.7", "::ffff:10.1.2.3", "64:ff9b::10.1.2.3", "8.8.8.8"):
        assert policy.refusal(address) is None
    for address in ("10.2.0.1", "192.168.7.8", "127.0.0.1", "::1", "::ffff:10.2.0.1"):
        assert policy.refusal(address)
    for host in ("a.corp.example.com", "A.B.Corp.Example.com.", "GATE"):
        assert policy.refusal("10.2.0.1", host=host) is None
    for host in ("corp.example.com", "evilcorp.example.com", "a.corp.example.com.evil.org", "gateway", ""):
        assert policy.refusal("10.2.0.1", host=host)


@pytest.mark.parametrize("address", NEVER)
def test_no_allowance_reaches_what_is_never_sent_to(address: str) -> None:
    everything = Places.of(["0.0.0.0/0", "::/0", "hook.example.com"])
    assert AddressPolicy(True, everything).refusal(address, host="hook.example.com", own=True)


def test_a_service_of_the_own_namespace_may_be_private() -> None:
    policy = AddressPolicy(private=False)
    assert policy.refusal("10.96.0.10", own=True) is None
    assert policy.refusal("10.96.0.10")
    assert policy.refusal("169.254.169.254", own=True)


@pytest.mark.parametrize(
    "host", ["hooks", "Hooks.shop", "hooks.shop.svc", "hooks.shop.svc.cluster.local", "hooks.shop.svc."]
)
def test_the_names_of_a_service(host: str) -> None:
    assert service_name(host, "shop") == "hooks.shop.svc"


@pytest.mark.parametrize(
    "host",
    [
        "hooks.other",
        "hooks.other.svc",
        "hooks.shop.svc.example.com",
        "hooks.shop.example.com",
        "a.hooks.shop.svc",
        "hooks.shop.svc.cluster.local.evil.org",
        "",
        ".shop.svc",
        "10.0.0.1",
        "::1",
    ],
)
def test_what_is_no_name_of_a_service(host: str) -> None:
    assert service_name(host, "shop") is None


@pytest.mark.parametrize(
    "text", ["", "10.0.0.1/8", "10.0.0.0/33", "127.1", "2130706433", "*", "a.*.org", "http://x", "a b", "*.*"]
)
def test_what_is_no_place(text: str) -> None:
    with pytest.raises(ValueError, match=r"neither a network .* nor a host name"):
        Places.of([text])


def test_addresses_names_and_networks_in_any_spelling() -> None:
    found = Places.of([" 10.0.0.5 ", "[fd00::1]", "FD00::/8", "Hooks.Example.COM."])
    assert [str(network) for network in found.networks] == ["10.0.0.5/32", "fd00::1/128", "fd00::/8"]
    assert found.names == ("hooks.example.com",)
