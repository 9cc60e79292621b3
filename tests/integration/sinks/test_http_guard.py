"""Where an HTTP sink may connect to, as whoever runs the listener has it: real sockets, names answered by the test."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable

import pytest
from aiohttp import web

from tablewatcher.errors import Reason, SinkError
from tablewatcher.sinks.address import AddressPolicy, Places
from tablewatcher.sinks.base import Outcome, Verdict
from tablewatcher.sinks.http import guard as http_guard
from tablewatcher.spec.model import SecretKey

from ..running import running_time
from .conftest import Names, http_sink
from .events import MemorySecrets, event
from .servers import HttpServer
from .silent_names import silent_name_server

ONLY_PUBLIC = AddressPolicy(private=False)
# For all addresses together.
CONNECT_SECONDS = http_guard.CONNECT_SECONDS


async def _unauthorized(_: web.Request) -> web.StreamResponse:
    return web.Response(status=401)


async def _deliver(server: HttpServer, host: str, policy: AddressPolicy) -> Outcome:
    sink = http_sink(f"http://{host}:{server.port}/hook", addresses=policy)
    await sink.open()
    try:
        (found,) = await sink.deliver([event(1)])
    finally:
        await sink.close()
    return found


async def _refused(server: HttpServer, host: str, policy: AddressPolicy) -> None:
    with pytest.raises(SinkError) as caught:
        await _deliver(server, host, policy)
    assert caught.value.reason is Reason.ADDRESS_REFUSED
    assert "127.0.0.1 " not in caught.value.message, "what a name leads to is not for the author of a manifest"
    assert server.received == []


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "[::1]"])
async def test_private_addresses_are_refused_where_the_listener_says_so(http_server: HttpServer, host: str) -> None:
    sink = http_sink(f"http://{host}:{http_server.port}/", addresses=ONLY_PUBLIC)
    with pytest.raises(SinkError) as caught:
        await sink.open()
    assert caught.value.reason is Reason.ADDRESS_REFUSED
    assert http_server.received == []


@pytest.mark.parametrize("host", ["169.254.169.254", "[fe80::1]", "[::ffff:169.254.169.254]", "0.0.0.0"])
async def test_metadata_addresses_are_refused_always(host: str) -> None:
    sink = http_sink(f"http://{host}/latest/meta-data")
    async with running_time() as took:
        with pytest.raises(SinkError) as caught:
            await sink.open()
        assert caught.value.reason is Reason.ADDRESS_REFUSED
    assert took.seconds < CONNECT_SECONDS
    assert "but none that is link-local" in caught.value.message, "what nobody can allow is not to be asked for"


async def test_the_guard_holds_at_connect_when_the_name_moves_after_open(
    http_server: HttpServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name that answered with a fit address at open, and with a metadata address when a request is sent."""
    sink = http_sink(f"http://localhost:{http_server.port}/hook")
    await sink.open()
    real = socket.getaddrinfo

    def moved(host: object, port: object, *args: object, **options: object) -> object:
        return real("169.254.169.254" if host == "localhost" else host, port, *args, **options)

    monkeypatch.setattr(socket, "getaddrinfo", moved)
    (found,) = await sink.deliver([event(1)])
    await sink.close()
    assert (found.verdict, found.reason, found.endpoint) == (Verdict.RETRY, Reason.ADDRESS_REFUSED, True)
    assert http_server.received == []


@pytest.mark.parametrize("host", ["hooks", "hooks.shop", "hooks.shop.svc", "hooks.shop.svc.cluster.local"])
async def test_a_service_of_the_own_namespace_is_sent_to(http_server: HttpServer, names: Names, host: str) -> None:
    names["hooks.shop.svc"] = ["127.0.0.1"]
    assert (await _deliver(http_server, host, ONLY_PUBLIC)).verdict is Verdict.DELIVERED
    assert http_server.received[0].headers["host"] == f"{host}:{http_server.port}"


@pytest.mark.parametrize("host", ["hooks.other", "hooks.other.svc", "hooks.other.svc.cluster.local"])
async def test_a_service_of_another_namespace_is_not(http_server: HttpServer, names: Names, host: str) -> None:
    names |= {"hooks.shop.svc": ["127.0.0.1"], host: ["127.0.0.1"]}
    await _refused(http_server, host, ONLY_PUBLIC)


async def test_a_public_name_that_only_looks_like_a_service_is_not_trusted(
    http_server: HttpServer, names: Names
) -> None:
    """`hooks.shop` may be a host of the internet, whose owner has it lead to an address of ours."""
    names["hooks.shop"] = ["127.0.0.1"]
    await _refused(http_server, "hooks.shop", ONLY_PUBLIC)


@pytest.mark.parametrize("deny", [(), ("127.0.0.0/8",), ("*.corp.example",)])
async def test_what_is_allowed_is_sent_to_unless_it_is_denied(
    http_server: HttpServer, names: Names, deny: tuple[str, ...]
) -> None:
    names["hooks.corp.example"] = ["127.0.0.1"]
    for allow in ("127.0.0.0/8", "*.corp.example", "hooks.corp.example"):
        policy = AddressPolicy(False, Places.of([allow]), Places.of(deny))
        if deny:
            await _refused(http_server, "hooks.corp.example", policy)
        else:
            assert (await _deliver(http_server, "hooks.corp.example", policy)).verdict is Verdict.DELIVERED


async def test_of_several_addresses_only_fit_ones_are_tried(http_server: HttpServer, names: Names) -> None:
    names["hooks.example"] = ["169.254.169.254", "127.0.0.1"]
    async with running_time() as took:
        assert (await _deliver(http_server, "hooks.example", AddressPolicy())).verdict is Verdict.DELIVERED
    assert took.seconds < CONNECT_SECONDS


@pytest.mark.parametrize(
    "move",
    [
        lambda names: names.update({"hooks.shop.svc": ["169.254.169.254"]}),
        lambda names: names.update({"hooks.shop.svc": [], "hooks.shop": ["127.0.0.1"]}),
    ],
)
async def test_a_service_that_moves_after_open_is_judged_anew(
    http_server: HttpServer, names: Names, move: Callable[[Names], None]
) -> None:
    names["hooks.shop.svc"] = ["127.0.0.1"]
    sink = http_sink(f"http://hooks.shop:{http_server.port}/hook", addresses=ONLY_PUBLIC)
    await sink.open()
    move(names)
    (found,) = await sink.deliver([event(1)])
    await sink.close()
    assert (found.verdict, found.reason, found.endpoint) == (Verdict.RETRY, Reason.ADDRESS_REFUSED, True)
    assert http_server.received == []


async def test_a_name_that_nobody_can_look_up_is_unreachable() -> None:
    sink = http_sink(f"http://{'a' * 70}.example/hook")
    with pytest.raises(SinkError) as caught:
        await sink.open()
    assert caught.value.reason is Reason.SINK_UNREACHABLE


@pytest.mark.parametrize(
    ("host", "reason"),
    [
        ("127.0.0.2", Reason.ADDRESS_REFUSED),
        ("[::ffff:127.0.0.2]", Reason.ADDRESS_REFUSED),
        # Old spellings of an address that the client takes for none.
        ("127.2", Reason.SINK_UNREACHABLE),
        ("2130706434", Reason.SINK_UNREACHABLE),
    ],
)
async def test_a_secret_that_names_another_address_later_gets_no_further(
    http_server: HttpServer, host: str, reason: Reason
) -> None:
    """No name is looked up for an address, so this is held where the socket is made."""
    secrets = MemorySecrets({"hook": {"url": http_server.url}})
    policy = AddressPolicy(False, Places.of(["127.0.0.1"]))
    sink = http_sink("", secrets=secrets, url_secret=SecretKey("hook", "url"), addresses=policy)
    await sink.open()
    http_server.answer = _unauthorized
    await sink.deliver([event(1)])
    secrets.values["hook"]["url"] = f"http://{host}:{http_server.port}/hook"
    (found,) = await sink.deliver([event(1)])
    await sink.close()
    assert (found.verdict, found.reason, found.endpoint) == (Verdict.RETRY, reason, True)
    assert len(http_server.received) == 1


async def test_a_name_in_another_script_is_denied_by_its_one_spelling(http_server: HttpServer, names: Names) -> None:
    names["xn--bcher-kva.example"] = ["127.0.0.1"]
    for host in ("bücher.example", "BÜCHER.example", "xn--bcher-kva.example"):
        await _refused(http_server, host, AddressPolicy(deny=Places.of(["xn--bcher-kva.example"])))


async def test_the_name_that_is_looked_at_is_the_name_that_is_sent_to(http_server: HttpServer, names: Names) -> None:
    """By the rules of 2003 this would be strasse.example, a host of somebody else."""
    names["xn--strae-oqa.example"] = ["127.0.0.1"]
    assert (await _deliver(http_server, "straße.example", AddressPolicy())).verdict is Verdict.DELIVERED


@pytest.mark.parametrize(
    ("host", "reason"),
    [
        ("a\u200db.example", Reason.SPEC_INVALID),
        ("é" * 70, Reason.SPEC_INVALID),
        ("a" * 64, Reason.SINK_UNREACHABLE),
        ("a..b", Reason.SINK_UNREACHABLE),
        ("xn--a", Reason.SINK_UNREACHABLE),
    ],
)
async def test_a_name_that_cannot_be(host: str, reason: Reason) -> None:
    sink = http_sink(f"http://{host}/", addresses=ONLY_PUBLIC)
    with pytest.raises(SinkError) as caught:
        await sink.open()
    assert caught.value.reason is reason
    await sink.close()


async def test_an_address_that_leads_nowhere_hides_no_other(http_server: HttpServer, names: Names) -> None:
    """As that of IPv6 where there is none: nothing comes back from it, not even that it is not there."""
    names["two.example"] = ["127.0.0.2", "127.0.0.1"]
    with contextlib.ExitStack() as sockets:
        hole = sockets.enter_context(socket.create_server(("127.0.0.2", http_server.port), backlog=0))
        for _ in range(3):  # what is beyond its backlog is not answered
            caller = sockets.enter_context(socket.socket())
            caller.setblocking(False)
            caller.connect_ex(hole.getsockname())
        assert (await _deliver(http_server, "two.example", AddressPolicy())).verdict is Verdict.DELIVERED


async def test_a_name_that_leads_elsewhere_by_now_is_looked_up_after_a_fault(
    http_server: HttpServer, names: Names
) -> None:
    """The library would go on for ten seconds where the name led before."""
    names["hooks.example"] = ["127.0.0.1"]
    sink = http_sink(f"http://hooks.example:{http_server.port}/hook")
    await sink.open()
    names["hooks.example"] = ["127.0.0.2"]
    (found,) = await sink.deliver([event(1)])
    assert (found.verdict, found.endpoint) == (Verdict.RETRY, True)
    names["hooks.example"] = ["127.0.0.1"]
    assert (await sink.deliver([event(1)]))[0].verdict is Verdict.DELIVERED
    await sink.close()


async def test_a_name_server_that_says_nothing_is_not_waited_for(
    http_server: HttpServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    sink = http_sink(f"http://hooks.example:{http_server.port}/hook")
    with silent_name_server(monkeypatch, "hooks.example") as asked, monkeypatch.context() as hasty:
        hasty.setattr(http_guard, "_LOOK_UP_SECONDS", 0.2)
        for _ in range(5):
            async with running_time() as took:
                with pytest.raises(SinkError) as caught:
                    await sink.open()
            assert took.seconds < 5
            assert caught.value.reason is Reason.SINK_UNREACHABLE
        assert len(asked) == 1, "questions pile up in the threads that everybody shares"
    await sink.open()
    assert (await sink.deliver([event(1)]))[0].verdict is Verdict.DELIVERED
    await sink.close()
