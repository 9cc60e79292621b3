"""Connections that are kept, and what follows when the endpoint ends one."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from tablewatcher.errors import SinkError
from tablewatcher.sinks.base import Verdict
from tablewatcher.sinks.http import channel as http_channel

from ..running import running_time
from .conftest import http_sink
from .events import event
from .servers import HttpServer, until

NO_CONTENT = b"HTTP/1.1 204 No Content\r\n\r\n"


class Wire:
    """An endpoint that reads whole requests and answers with bytes; None: it hangs up without a word.

    answer: from (number of the connection, number of the request on it), both from 1. requests: those that came.
    """

    def __init__(self, answer: Callable[[int, int], bytes | None]) -> None:
        self.requests: list[tuple[int, int]] = []
        self._answer = answer
        self._connections = 0

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number, place = 0, 0
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                if not place:
                    self._connections += 1  # the sink's own look at the endpoint sends nothing, and is not counted
                    number = self._connections
                place += 1
                (length,) = [
                    line.split(b":")[1] for line in head.lower().split(b"\r\n") if line[:14] == b"content-length"
                ]
                await reader.readexactly(int(length))
                self.requests.append((number, place))
                answer = self._answer(number, place)
                if answer is None:
                    break
                writer.write(answer)
                if not answer.endswith(b"\r\n\r\n"):
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def _serving(wire: Wire) -> AsyncIterator[str]:
    server = await asyncio.start_server(wire.handle, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/hook"
    finally:
        server.close()
        await server.wait_closed()


async def test_a_kept_connection_that_the_endpoint_has_ended_is_no_fault() -> None:
    wire = Wire(lambda _, place: NO_CONTENT if place == 1 else None)
    async with _serving(wire) as url:
        sink = http_sink(url, seconds=30)
        await sink.open()
        for n in range(3):
            assert (await sink.deliver([event(n)]))[0].verdict is Verdict.DELIVERED
        await sink.close()
    # The second time on the first connection it hung up; the request came again on a connection of its own.
    assert wire.requests[:3] == [(1, 1), (1, 2), (2, 1)]


async def test_an_endpoint_that_hangs_up_on_a_new_connection_is_at_fault_and_not_asked_twice() -> None:
    wire = Wire(lambda *_: None)
    async with _serving(wire) as url:
        sink = http_sink(url, seconds=30)
        await sink.open()
        (found,) = await sink.deliver([event(1)])
        await sink.close()
    assert (found.verdict, found.endpoint) == (Verdict.RETRY, True)
    assert wire.requests == [(1, 1)]


async def test_it_is_tried_again_once_only() -> None:
    wire = Wire(lambda number, _: NO_CONTENT if number == 1 and len(wire.requests) == 1 else None)
    async with _serving(wire) as url:
        sink = http_sink(url, seconds=30)
        await sink.open()
        assert (await sink.deliver([event(1)]))[0].verdict is Verdict.DELIVERED
        (found,) = await sink.deliver([event(2)])
        await sink.close()
    assert (found.verdict, found.endpoint) == (Verdict.RETRY, True)
    assert wire.requests == [(1, 1), (1, 2), (2, 1)]


@pytest.mark.parametrize("part", [b"HTTP/1.1 200 OK\r\nContent-Le", b"HTTP/1.1 2"])
async def test_part_of_an_answer_is_not_nothing(part: bytes) -> None:
    wire = Wire(lambda _, place: NO_CONTENT if place == 1 else part)
    async with _serving(wire) as url:
        sink = http_sink(url, seconds=30)
        await sink.open()
        await sink.deliver([event(1)])
        (found,) = await sink.deliver([event(2)])
        await sink.close()
    assert (found.verdict, found.endpoint) == (Verdict.RETRY, True)
    assert wire.requests == [(1, 1), (1, 2)]


@pytest.mark.parametrize(
    ("answer", "verdict"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf", Verdict.DELIVERED),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n40\r\nhalf", Verdict.DELIVERED),
        (b"HTTP/1.1 400 Bad Request\r\nContent-Length: 100\r\n\r\nhalf", Verdict.REJECTED),
        (b"HTTP/1.1 503 Busy\r\nRetry-After: 9\r\nContent-Length: 100\r\n\r\nhalf", Verdict.RETRY),
    ],
)
async def test_the_status_counts_when_the_body_breaks_off(answer: bytes, verdict: Verdict) -> None:
    async with _serving(Wire(lambda *_: answer)) as url:
        sink = http_sink(url, seconds=30)
        await sink.open()
        (found,) = await sink.deliver([event(1)])
        await sink.close()
    assert found.verdict is verdict
    assert found.retry_after == (9.0 if verdict is Verdict.RETRY else None)


async def _until_cut(writer: asyncio.StreamWriter, chunk: bytes, pause: float) -> int:
    """Writes `chunk` again and again until the sink has had enough; how many bytes it got."""
    sent = 0
    try:
        while True:
            writer.write(chunk)
            await writer.drain()
            sent += len(chunk)
            await asyncio.sleep(pause)
    except ConnectionError:
        return sent
    finally:
        writer.close()


@pytest.mark.parametrize(
    ("begin", "chunk", "pause", "verdict"),
    [
        (b"HTTP/1.1 200 OK\r\nX-Slow: ", b"x", 0.05, Verdict.RETRY),
        (b"HTTP/1.1 200 OK\r\nX-Long: ", b"x" * 10_000, 0.0, Verdict.DELIVERED),
        (b"HTTP/1.1 200 OK\r\n", b"X-Many: x\r\n" * 1_000, 0.0, Verdict.DELIVERED),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n", 0.01, Verdict.RETRY),
    ],
    ids=["slow head", "long head", "many headers", "never more than continue"],
)
async def test_an_answer_whose_head_does_not_end_is_cut_off(
    begin: bytes, chunk: bytes, pause: float, verdict: Verdict
) -> None:
    sent: list[int] = []
    ended = asyncio.Event()

    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not await reader.read(1):
            writer.close()
            return
        writer.write(begin)
        sent.append(await _until_cut(writer, chunk, pause))
        ended.set()

    server = await asyncio.start_server(drip, "127.0.0.1", 0)
    async with server:
        sink = http_sink(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/", seconds=1)
        await sink.open()
        async with running_time() as took:
            (found,) = await sink.deliver([event(1)])
        assert took.seconds < 1.5
        assert (found.verdict, found.endpoint) == (verdict, verdict is Verdict.RETRY)
        await asyncio.wait_for(ended.wait(), 30)
        await sink.close()
    assert sent[0] < 20_000_000


async def test_a_reset_after_the_answer_is_no_fault() -> None:
    async def reset(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if await reader.read(100_000):
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            await writer.drain()
        linger = struct.pack("ii", 1, 0)
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        writer.close()

    server = await asyncio.start_server(reset, "127.0.0.1", 0)
    async with server:
        sink = http_sink(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/", seconds=30)
        await sink.open()
        for n in range(20):
            assert (await sink.deliver([event(n)]))[0].verdict is Verdict.DELIVERED
        await sink.close()


async def test_connections_are_used_again(http_server: HttpServer) -> None:
    peers = set()

    async def remember(request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        peers.add(request.transport.get_extra_info("peername"))
        return web.json_response({"ok": True})

    http_server.answer = remember
    sink = http_sink(http_server.url)
    await sink.open()
    for n in range(20):
        assert (await sink.deliver([event(n)]))[0].verdict is Verdict.DELIVERED
    await sink.close()
    assert len(peers) == 1


async def test_a_look_at_an_endpoint_that_answers_costs_it_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_channel, "FRESH_SECONDS", 0.5)
    connections = 0

    async def count(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        await wire.handle(reader, writer)

    wire = Wire(lambda *_: NO_CONTENT)
    server = await asyncio.start_server(count, "127.0.0.1", 0)
    async with server:
        sink = http_sink(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/")
        await sink.open()
        await sink.check()
        await until(lambda: connections == 2)
        await sink.deliver([event(1)])
        looking = asyncio.create_task(sink.check())
        sent = 1
        while not looking.done():
            sent += 1
            await sink.deliver([event(sent)])
        await looking
        await sink.close()
    assert connections == 3
    assert len(wire.requests) == sent


async def test_one_that_goes_right_after_an_answer_is_told_by_the_next_look(
    http_server: HttpServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Shortly before the answer was old the look was left out, and only the one after that told."""
    monkeypatch.setattr(http_channel, "FRESH_SECONDS", 1.0)
    sink = http_sink(http_server.url)
    await sink.open()
    assert (await sink.deliver([event(1)]))[0].verdict is Verdict.DELIVERED
    await http_server.stop()
    with pytest.raises(SinkError):
        await sink.check()
    await sink.close()
