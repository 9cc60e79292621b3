"""Endpoints that speak HTTP as few do: early, late, twice, or an older version of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import pytest

from tablewatcher.sinks.base import Verdict

from .conftest import http_sink
from .events import event

NO_CONTENT = b"HTTP/1.1 204 No Content\r\n\r\n"
TIMED_OUT = b"HTTP/1.1 408 Request Time-out\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def _request(reader: asyncio.StreamReader) -> bytes:
    """The next request's body; IncompleteReadError where there is none."""
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    (length,) = [line.split(b":")[1] for line in head.split(b"\r\n") if line.startswith(b"content-length")]
    return await reader.readexactly(int(length))


@asynccontextmanager
async def _endpoint(talk: Talk) -> AsyncIterator[str]:
    """The URL of an endpoint each of whose connections is held by `talk`, until the context ends."""
    held: list[asyncio.Task[None]] = []

    async def hold(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with suppress(asyncio.IncompleteReadError, ConnectionError):
                await talk(reader, writer)
        finally:
            writer.close()

    def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        held.append(asyncio.ensure_future(hold(reader, writer)))

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/hook"
        for each in held:
            each.cancel()
        await asyncio.gather(*held, return_exceptions=True)


async def _all_arrive(talk: Talk, got: list[bytes], *, rest: float = 0.0) -> None:
    """Four events, with `rest` seconds after each, are told as delivered and arrive once. got: what `talk` has read."""
    async with _endpoint(talk) as url:
        sink = http_sink(url, seconds=30)
        await sink.open()
        for n in range(4):
            (found,) = await sink.deliver([event(n)])
            assert found.verdict is Verdict.DELIVERED, found
            await asyncio.sleep(rest)
        await sink.close()
    assert [event(n).body for n in range(4)] == got


@pytest.mark.parametrize(
    "before",
    [
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"HTTP/1.1 102 Processing\r\n\r\n",
        b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload\r\n\r\n",
        b"HTTP/1.1 103 Early Hints\r\n\r\n" * 5,
    ],
)
async def test_what_comes_before_an_answer_is_none(before: bytes) -> None:
    statuses = iter([b"503 Busy", b"200 OK", b"200 OK"])

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await _request(reader):
            writer.write(before)
            await asyncio.sleep(0.02)
            writer.write(b"HTTP/1.1 " + next(statuses) + b"\r\nContent-Length: 2\r\n\r\nok")

    async with _endpoint(talk) as url:
        sink = http_sink(url, seconds=30)
        await sink.open()
        found = [(await sink.deliver([event(n)]))[0].verdict for n in range(3)]
        await sink.close()
    assert found == [Verdict.RETRY, Verdict.DELIVERED, Verdict.DELIVERED]


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.0 200 OK\r\n\r\nok",
        b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nok",
        b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n",
    ],
)
async def test_an_endpoint_that_takes_one_request_a_connection(answer: bytes) -> None:
    connections = 0

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        await _request(reader)
        connections += 1
        writer.write(answer)

    async with _endpoint(talk) as url:
        sink = http_sink(url, seconds=30)
        await sink.open()
        for n in range(5):
            assert (await sink.deliver([event(n)]))[0].verdict is Verdict.DELIVERED
        await sink.close()
    assert connections == 5


@pytest.mark.parametrize("closes", [True, False])
async def test_a_connection_that_is_timed_out_with_an_answer_is_no_fault(closes: bool) -> None:
    """As some proxies do where a connection was idle for too long: what they say is no answer to the next request."""
    got: list[bytes] = []

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        got.append(await _request(reader))
        writer.write(NO_CONTENT)
        await asyncio.sleep(0.05)
        writer.write(TIMED_OUT)
        if not closes:
            await asyncio.sleep(5)

    await _all_arrive(talk, got, rest=0.1)


async def test_a_connection_that_is_timed_out_as_the_request_arrives_is_no_fault() -> None:
    got: list[bytes] = []

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        got.append(await _request(reader))
        writer.write(NO_CONTENT)
        await reader.read(1)
        writer.write(TIMED_OUT)

    await _all_arrive(talk, got)


async def test_an_answer_too_many_delivers_nothing() -> None:
    """The second request must not be taken for delivered because of what came before it was sent."""
    got: list[bytes] = []
    go_on, said = asyncio.Event(), asyncio.Event()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        got.append(await _request(reader))
        writer.write(NO_CONTENT)
        await go_on.wait()
        writer.write(NO_CONTENT)
        said.set()
        await asyncio.sleep(60)  # reads nothing more

    async with _endpoint(talk) as url:
        sink = http_sink(url)
        await sink.open()
        for n in range(3):
            (found,) = await sink.deliver([event(n)])
            assert (found.verdict is Verdict.DELIVERED) == (event(n).body in got)
            go_on.set()
            await asyncio.wait_for(said.wait(), 30)
            go_on.clear()
            said.clear()
            await asyncio.sleep(0.05)  # the event loop reads what has come before it looks at its clock
        await sink.close()


LONG = b"X-Policy: " + b"x" * 9000 + b"\r\n"


@pytest.mark.parametrize(
    "rest",
    [
        b"OK\r\n" + LONG + b"Content-Length: 0\r\n\r\n",
        b"OK\r\n" + b"X: y\r\n" * 300 + b"Content-Length: 0\r\n\r\n",
        b"OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok",
        b"OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        b"OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\nzz\r\n",
        b"OK\r\nX-Space : here\r\nContent-Length: 0\r\n\r\n",
    ],
    ids=["long header", "many headers", "length twice", "length and chunks", "bad chunk", "space"],
)
@pytest.mark.parametrize("before", [b"", b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"])
@pytest.mark.parametrize(
    ("status", "verdict"), [(b"200 ", Verdict.DELIVERED), (b"400 ", Verdict.REJECTED), (b"503 ", Verdict.RETRY)]
)
async def test_a_status_counts_whatever_follows_it(before: bytes, status: bytes, rest: bytes, verdict: Verdict) -> None:
    got: list[bytes] = []

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while body := await _request(reader):
            got.append(body)
            writer.write(before + b"HTTP/1.1 " + status + rest)

    async with _endpoint(talk) as url:
        sink = http_sink(url, seconds=30)
        await sink.open()
        found = [(await sink.deliver([event(n)]))[0] for n in range(2)]
        await sink.close()
    assert [each.verdict for each in found] == [verdict] * 2
    assert all(status.decode().strip() in each.message for each in found if each.verdict is not Verdict.DELIVERED)
    assert got == [event(0).body, event(1).body]


async def test_a_body_where_there_must_be_none_is_passed_over() -> None:
    got: list[bytes] = []

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while body := await _request(reader):
            got.append(body)
            writer.write(b"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\nhello")

    await _all_arrive(talk, got)


async def test_who_goes_on_talking_unasked_is_not_listened_to() -> None:
    """What came while nothing was asked was kept, hundreds of megabytes of it, and kept all other sinks waiting."""
    ended = asyncio.Event()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await _request(reader)
        writer.write(NO_CONTENT)
        await asyncio.sleep(0.1)
        try:
            while True:
                writer.write(NO_CONTENT * 1000)
                await writer.drain()
        finally:
            ended.set()

    async with _endpoint(talk) as url:
        sink = http_sink(url)
        await sink.open()
        assert (await sink.deliver([event(1)]))[0].verdict is Verdict.DELIVERED
        async with asyncio.timeout(10):  # it would be listened to for fifteen
            await ended.wait()
        await sink.close()


@pytest.mark.filterwarnings("ignore:Sending a large body:ResourceWarning")  # more than fits into a socket
@pytest.mark.parametrize("ends", ["at once", "after a while", "never"])
@pytest.mark.parametrize(
    ("status", "verdict"),
    [(b"413 Too Large", Verdict.REJECTED), (b"429 Wait", Verdict.RETRY), (b"202 Accepted", Verdict.DELIVERED)],
)
async def test_an_answer_before_the_body_is_read_counts(status: bytes, verdict: Verdict, ends: str) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 " + status + b"\r\nRetry-After: 7\r\nContent-Length: 0\r\n\r\n")
        await writer.drain()
        if ends != "at once":
            await asyncio.sleep(0.3 if ends == "after a while" else 10)

    async with _endpoint(talk) as url:
        sink = http_sink(url, seconds=30)
        await sink.open()
        (found,) = await sink.deliver([event(1, note="x" * 8_000_000)])
        await sink.close()
    assert found.verdict is verdict
