"""Several servers, and names with several addresses, some of which take a connection and say nothing."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from tablewatcher.embedded import free_port
from tablewatcher.errors import Reason, SinkError
from tablewatcher.sinks.base import Verdict
from tablewatcher.sinks.nats import NatsSink, dial
from tablewatcher.sinks.nats.connection import CONNECT_SECONDS

from ..running import running_time
from .conftest import add_stream, nats_sink
from .events import events
from .servers import NatsServer, until
from .silent_names import silent_name_server

# A sign-in at a server of this machine, after the half second that a silent one is given, and much for a busy day: to
# wait for a silent one takes longer.
SOON = CONNECT_SECONDS - 0.1
LOGIN = 'accounts { A: { users: [{user: a, password: "s3cret"}] } }'


class Silent:
    """Takes connections and says nothing. `taken` there were, and `open` there still are."""

    def __init__(self) -> None:
        self.taken = self.open = 0

    async def take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.taken += 1
        self.open += 1
        with suppress(ConnectionError):
            await reader.read()
        self.open -= 1
        writer.close()


@asynccontextmanager
async def _silent(address: str = "127.0.0.1", port: int = 0) -> AsyncIterator[tuple[Silent, str]]:
    made = Silent()
    server = await asyncio.start_server(made.take, address, port)
    async with server:
        yield made, f"nats://{address}:{server.sockets[0].getsockname()[1]}"


def _sink(*servers: str) -> NatsSink:
    made = nats_sink(servers[0])
    made._login.servers = servers
    return made


async def _opened_soon(make: Callable[[], NatsSink], times: int) -> None:
    """The order of the servers is another every time."""
    for number in range(times):
        sink = make()
        async with running_time() as took:
            await sink.open()
        assert took.seconds < SOON
        assert {each.verdict for each in await sink.deliver(events(3, first=1 + 3 * number))} == {Verdict.DELIVERED}
        await sink.close()


async def test_silent_servers_do_not_hold_up_the_one_that_answers(nats_server: NatsServer) -> None:
    await add_stream(nats_server)
    before = asyncio.all_tasks()
    async with _silent() as (first, one), _silent() as (second, other):
        await _opened_soon(lambda: _sink(one, nats_server.url), 8)
        await _opened_soon(lambda: _sink(one, other, f"nats://127.0.0.1:{free_port()}", nats_server.url), 8)
        assert first.taken, "the silent server was never the first: this test means nothing"
        await until(lambda: not first.open and not second.open)
    await until(lambda: asyncio.all_tasks() == before)


async def test_a_silent_address_of_a_name_does_not_hold_up_the_others(
    nats_server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with a headless Service, one of whose pods stands still."""
    await add_stream(nats_server)
    real = socket.getaddrinfo

    def look_up(host: object, port: object, *args: object, **options: object) -> object:
        addresses = ["127.0.0.2", "127.0.0.1"] if host == "nats.example" else [host]
        return [info for address in addresses for info in real(address, port, *args, **options)]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    async with _silent("127.0.0.2", nats_server.port) as (silent, _):
        await _opened_soon(lambda: _sink(f"nats://nats.example:{nats_server.port}"), 3)
        assert silent.taken == 3
        await until(lambda: not silent.open)


async def test_a_name_server_that_says_nothing_is_asked_once(
    nats_server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever waits for it, and however often they try."""
    await add_stream(nats_server)
    sinks = [_sink(f"nats://nats.example:{nats_server.port}") for _ in range(3)]
    with silent_name_server(monkeypatch, "nats.example") as asked, monkeypatch.context() as hasty:
        hasty.setattr(dial, "CONNECT_SECONDS", 0.2)
        for sink in (*sinks, *sinks):
            with pytest.raises(SinkError) as caught:
                await sink.open()
            assert caught.value.reason is Reason.SINK_UNREACHABLE
        assert len(asked) == 1, "questions pile up in the threads that everybody shares"
    await sinks[0].open()
    assert (await sinks[0].deliver(events(1)))[0].verdict is Verdict.DELIVERED
    await sinks[0].close()


async def test_a_lost_connection_comes_back_beside_silent_servers(nats_server: NatsServer) -> None:
    await add_stream(nats_server)
    async with _silent() as (silent, one):
        sink = _sink(nats_server.url, one)
        await sink.open()
        for number in range(3):
            nats_server.kill()
            await sink.deliver(events(1))
            nats_server.start()
            begin = time.monotonic()
            while (await sink.deliver(events(1, first=2 + number)))[0].verdict is not Verdict.DELIVERED:
                assert time.monotonic() - begin < 30
                await asyncio.sleep(0.01)
        await sink.close()
        await until(lambda: not silent.open)


@pytest.mark.usefixtures("own_patience")
async def test_only_silent_servers_are_unreachable_and_left_alone() -> None:
    before = asyncio.all_tasks()
    async with _silent() as (first, one), _silent() as (second, other):
        sink = _sink(one, other)
        async with running_time() as took:
            with pytest.raises(SinkError) as caught:
                await sink.open()
        assert took.seconds < CONNECT_SECONDS + 1.5
        assert caught.value.reason is Reason.SINK_UNREACHABLE
        assert all(server.removeprefix("nats://") in caught.value.message for server in (one, other))
        assert (first.taken, second.taken) == (1, 1)
        # Given up from outside, too, at any moment of it.
        for seconds in (0.0, 0.01, 0.3, 0.6):
            opening = asyncio.ensure_future(_sink(one, other).open())
            await asyncio.sleep(seconds)
            opening.cancel()
            await asyncio.gather(opening, return_exceptions=True)
        await until(lambda: not first.open and not second.open)
        await sink.close()
    await until(lambda: asyncio.all_tasks() == before)  # a question to the resolver cannot be taken back


async def test_whoever_is_told_twice_to_give_up_leaves_no_connection() -> None:
    """As where the time for one name and that for all of them run out together."""
    async with _silent() as (silent, one):
        for turns in range(12):
            opening = asyncio.ensure_future(_sink(one).open())
            await until(lambda: silent.open == 1)
            opening.cancel()
            for _ in range(turns):
                await asyncio.sleep(0)
            opening.cancel()
            await asyncio.gather(opening, return_exceptions=True)
            await until(lambda: not silent.open)


@pytest.fixture
def refusing(tmp_path: Path) -> Iterator[NatsServer]:
    made = NatsServer(tmp_path, LOGIN)
    made.start()
    yield made
    made.kill()


@pytest.mark.usefixtures("own_patience")
async def test_a_refused_login_is_said_whatever_else_is_silent(refusing: NatsServer) -> None:
    async with _silent() as (_, one):
        for servers in ((one, refusing.url), (refusing.url, f"nats://127.0.0.1:{free_port()}")):
            with pytest.raises(SinkError) as caught:
                await _sink(*servers).open()
            assert caught.value.reason is Reason.SINK_AUTH_FAILED
