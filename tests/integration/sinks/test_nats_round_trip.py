"""What an answer of the server to our PING proves, and that one which comes late ends nothing."""

from __future__ import annotations

import asyncio

import pytest

from tablewatcher.errors import SinkError
from tablewatcher.sinks.base import Verdict
from tablewatcher.sinks.nats.client import PipelinedClient

from .conftest import nats_sink
from .events import events
from .servers import NatsServer


async def _copied(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, seen: bytearray) -> None:
    try:
        while part := await reader.read(65536):
            seen.extend(part)
            writer.write(part)
            await writer.drain()
    except OSError:
        pass
    finally:
        writer.close()


async def test_a_round_trip_follows_all_that_was_handed_over(nats_server: NatsServer) -> None:
    """The library sends its PING before a subscription that waits to be sent: an event could pass by in between."""
    sent = bytearray()

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        theirs, ours = await asyncio.open_connection("127.0.0.1", nats_server.port)
        await asyncio.gather(_copied(reader, ours, sent), _copied(theirs, writer, bytearray()))

    front = await asyncio.start_server(relay, "127.0.0.1", 0)
    port = front.sockets[0].getsockname()[1]
    client = PipelinedClient(None, "127.0.0.1")
    await client.connect(f"nats://127.0.0.1:{port}")
    del sent[:]
    await client.subscribe("shop.>")
    await client.flush()
    await client.close()
    front.close()
    assert [line.split()[0] for line in bytes(sent).splitlines()[:2]] == [b"SUB", b"PING"]


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
