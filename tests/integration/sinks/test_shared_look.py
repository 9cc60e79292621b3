"""Watchers of one process that send to one endpoint look at it together."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tablewatcher.errors import SinkError
from tablewatcher.sinks.shared_look import FRESH_SECONDS, SharedLooks

from .conftest import http_sink

SINKS = 20


@asynccontextmanager
async def counting(seen: list[int]) -> AsyncIterator[int]:
    """The port of an endpoint, whose connections are put into `seen`."""

    async def note(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(len(seen))
        writer.close()

    async with await asyncio.start_server(note, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1]


async def test_one_look_serves_all() -> None:
    looks, seen = SharedLooks(), []
    async with counting(seen) as port:
        sinks = [http_sink(f"http://127.0.0.1:{port}/{nth}", looks=looks) for nth in range(SINKS)]
        await asyncio.gather(*(sink.open() for sink in sinks))
        assert len(seen) == 1
        await sinks[0].check()  # what it saw itself is old
        assert len(seen) == 2
        await asyncio.sleep(2 * FRESH_SECONDS)
        await asyncio.gather(*(sink.check() for sink in sinks))
        assert len(seen) == 3
    await asyncio.sleep(2 * FRESH_SECONDS)
    found = await asyncio.gather(*(sink.check() for sink in sinks), return_exceptions=True)
    assert {type(each) for each in found} == {SinkError}
    assert len({str(each) for each in found}) == 1
    await asyncio.gather(*(sink.close() for sink in sinks))


async def test_other_places_are_looked_at_for_themselves() -> None:
    looks, seen = SharedLooks(), []
    async with counting(seen) as one, counting(seen) as other:
        for port in (one, other):
            sink = http_sink(f"http://127.0.0.1:{port}/", looks=looks)
            await sink.open()
            await sink.close()
    assert len(seen) == 2


async def test_who_stops_takes_the_look_from_nobody() -> None:
    looks, ended = SharedLooks(), asyncio.Event()

    async def look() -> None:
        await ended.wait()

    first = asyncio.create_task(looks.at("here", look, by=1))
    await asyncio.sleep(0)
    second = asyncio.create_task(looks.at("here", look, by=2))
    await asyncio.sleep(0)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    ended.set()
    await second
