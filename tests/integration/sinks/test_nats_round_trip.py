"""What an answer of the server to our PING proves, and that one which comes late ends nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from json import JSONDecodeError
from typing import Any

import pytest

from tablewatcher.errors import SinkError
from tablewatcher.sinks.base import Verdict
from tablewatcher.sinks.nats.client import PipelinedClient

from ...relay import Relay
from .conftest import nats_sink
from .events import events
from .servers import NatsServer


class Front(Relay):
    """Stands before a server: keeps what clients have sent, and may put in a word of its own."""

    def __init__(self, to: int) -> None:
        super().__init__(to)
        self.sent = bytearray()
        self.clients: list[asyncio.StreamWriter] = []

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self.port}"

    async def welcome(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
        self.clients.append(writer)
        return b""

    async def passing(self, data: bytes, *, answer: bool) -> None:
        if not answer:
            self.sent.extend(data)


@pytest.fixture
async def front(nats_server: NatsServer) -> AsyncIterator[Front]:
    async with Front(nats_server.port) as made:
        yield made


async def test_a_round_trip_follows_all_that_was_handed_over(front: Front) -> None:
    """The library sends its PING before a subscription that waits to be sent: an event could pass by in between."""
    client = PipelinedClient(None, "127.0.0.1")
    await client.connect(front.url)
    del front.sent[:]
    await client.subscribe("shop.>")
    await client.flush()
    await client.close()
    assert [line.split()[0] for line in bytes(front.sent).splitlines()[:2]] == [b"SUB", b"PING"]


@pytest.mark.parametrize(
    ("word", "fault"),
    [(b"INFO {\r\n", JSONDecodeError), (b"-ERR \r\n", AttributeError), (b"HELLO\r\n", None)],
    ids=["info", "error", "nothing"],
)
async def test_a_word_that_nobody_understands_ends_the_connection_at_once(
    front: Front,
    word: bytes,
    fault: type[Exception] | None,
    caplog: pytest.LogCaptureFixture,
    eventually: Callable[..., Awaitable[Any]],
) -> None:
    """Some of them ended the library's reader, and nobody noticed before an acknowledgement had failed to come."""
    sink = nats_sink(front.url, jet_stream=False)

    async def delivered() -> bool:
        return {each.verdict for each in await sink.deliver(events(1))} == {Verdict.DELIVERED}

    await sink.open()
    front.clients[0].write(word)
    await eventually(lambda: len(front.clients) == 2)  # made anew, though nobody has asked for anything
    await eventually(delivered, 30)
    await sink.close()
    ours = [record for record in caplog.records if record.name.startswith("tablewatcher")]
    assert [record.exc_info and record.exc_info[0] for record in ours] == ([] if fault is None else [fault])


@pytest.mark.usefixtures("own_patience")
async def test_an_answer_that_comes_too_late_leaves_the_connection_as_it_is(nats_server: NatsServer) -> None:
    """It ended the library's reader: nobody noticed the server's end any more, and all counted as read by it."""
    sink = nats_sink(nats_server.url, jet_stream=False)
    await sink.open()
    nats_server.pause()
    with pytest.raises(SinkError):
        await sink.check()
    nats_server.resume()
    await sink.check()  # whose answer comes after the late one
    assert {each.verdict for each in await sink.deliver(events(1))} == {Verdict.DELIVERED}
    nats_server.kill()
    assert {each.verdict for each in await sink.deliver(events(3))} == {Verdict.RETRY}
    await sink.close()
