"""Which network addresses a watcher may send to. Pure: addresses and names in, a refusal or nothing out.

A manifest can name any URL: without this the listener would fetch for its author what only the listener can
reach. The check is made on the address a socket is about to connect to, whatever name or spelling led there.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

# Metadata services outside the link-local ranges: AWS and GCP over IPv6, Azure, Alibaba, Oracle.
_METADATA = frozenset(
    ip_address(text) for text in ("fd00:ec2::254", "fd20:ce::254", "168.63.129.16", "100.100.100.200", "192.0.0.192")
)
_THIS_NETWORK = ip_network("0.0.0.0/8")
_BROADCAST = ip_address("255.255.255.255")
_NAT64 = IPv6Network("64:ff9b::/96")
_NAT64_LOCAL = IPv6Network("64:ff9b:1::/48")
_COMPATIBLE = IPv6Network("::/96")
_SHARED = ip_network("100.64.0.0/10")

_NAME = re.compile(r"(\*\.)?[a-z0-9_]([-a-z0-9_]*[a-z0-9_])?(\.[a-z0-9_]([-a-z0-9_]*[a-z0-9_])?)*\Z")
_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?\Z")
_NUMBERS = re.compile(r"[0-9.]+\Z")

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network


@dataclass(frozen=True, slots=True)
class Places:
    """Networks, and host names as a URL spells them; `*.example.com` stands for every name below example.com."""

    networks: tuple[Network, ...] = ()
    names: tuple[str, ...] = ()

    @classmethod
    def of(cls, texts: Iterable[str]) -> Places:
        """From addresses (`10.0.0.5`), networks (`10.0.0.0/8`) and names. ValueError for what is none of these."""
        networks: list[Network] = []
        names: list[str] = []
        for text in texts:
            wanted = text.strip().strip("[]").lower().rstrip(".")
            try:
                networks.append(ip_network(wanted))
            except ValueError:
                if not _NAME.match(wanted) or _NUMBERS.match(wanted):
                    raise ValueError(
                        f"{text!r} is neither a network such as 10.0.0.0/8 (no bits set beyond its prefix)"
                        " nor a host name such as hooks.example.com or *.example.com"
                    ) from None
                names.append(wanted)
        return cls(tuple(networks), tuple(names))

    def has(self, address: Address) -> bool:
        """Whether `address` is in one of the networks."""
        return any(address in network for network in self.networks)

    def has_name(self, host: str) -> bool:
        """Whether host `host` is one of the names."""
        found = host.lower().rstrip(".")
        return any(found.endswith(name[1:]) if name.startswith("*.") else found == name for name in self.names)


@dataclass(frozen=True, slots=True)
class AddressPolicy:
    """What whoever runs the listener lets HTTP sinks connect to.

    private: loopback and private addresses too; else of these only what `allow` names, and Services of the watcher's
    own namespace. `deny` wins over all of it. Link-local and metadata addresses are refused whatever is allowed.
    """

    private: bool = True
    allow: Places = Places()
    deny: Places = Places()

    def refusal(self, text: str, *, host: str = "", own: bool = False) -> str | None:
        """Why address `text` may not be connected to, or None where it may.

        host: the name that led to it. own: it is an address of a Service of the watcher's own namespace. An IPv4
        address inside an IPv6 one is judged as what it is.
        """
        try:
            address = ip_address(text.partition("%")[0])
        except ValueError:
            return "is not an IP address"
        inner = _inner(address)
        if any(_never(each) for each in inner):
            return "is a link-local, metadata, multicast or unspecified address, which is never sent to"
        if self.deny.has_name(host) or any(self.deny.has(each) for each in (address, *inner)):
            return "is denied to this listener's watchers"
        if self.private or own or self.allow.has_name(host) or self.allow.has(address):
            return None
        if all(self.allow.has(each) or not _private(each) for each in inner):
            return None
        return "is a private or loopback address, which this listener does not send to"


def service_name(host: str, namespace: str) -> str | None:
    """`<service>.<namespace>.svc` where `host` is one of the names of a Service of `namespace`; else None.

    Only a name that ends in `.svc` is certainly one: `hooks.dev` may be a Service of namespace `dev` or a host of the
    internet, so ask for the name that is returned here before believing it.
    """
    service, _, rest = host.lower().rstrip(".").partition(".")
    forms = ("", namespace, f"{namespace}.svc", f"{namespace}.svc.cluster.local")
    return f"{service}.{namespace}.svc" if rest in forms and _LABEL.match(service) else None


def _inner(address: Address) -> tuple[Address, ...]:
    """The addresses that packets sent to `address` may end at."""
    if isinstance(address, IPv4Address):
        return (address,)
    if address.ipv4_mapped is not None:
        return (address.ipv4_mapped,)
    if address.sixtofour is not None:
        return (address.sixtofour,)
    if address.teredo is not None:
        return address.teredo
    last = IPv4Address(int(address) & 0xFFFFFFFF)
    if address in _NAT64:
        return (last,)
    if address in _NAT64_LOCAL:
        return (address, last)
    if address in _COMPATIBLE and int(address) > 1:
        return (last,)
    return (address,)


def _never(address: Address) -> bool:
    return (
        address.is_link_local
        or address.is_unspecified
        or address.is_multicast
        or address == _BROADCAST
        or address in _METADATA
        or address in _THIS_NETWORK
    )


def _private(address: Address) -> bool:
    return (
        not address.is_global
        or address in _SHARED
        or address in _NAT64_LOCAL
        or getattr(address, "is_site_local", False)
    )
