"""What is under way in the client library ends when it is cancelled, at whatever moment: a listener must be able to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from tablewatcher.sinks.nats import NatsSink

from .conftest import add_stream, nats_sink
from .servers import NatsServer

TRIES = 600


@pytest.fixture(params=[True, False], ids=["stream", "core"])
async def opened(nats_server: NatsServer, request: pytest.FixtureRequest) -> AsyncIterator[NatsSink]:
    await add_stream(nats_server, subjects=["shop.>"])
    sink = nats_sink(nats_server.url, jet_stream=request.param)
    await sink.open()
    yield sink
    await sink.close()


async def test_a_check_that_is_cancelled_together_with_its_answer_ends(opened: NatsSink) -> None:
    ended = answered = turns = 0
    while ended < TRIES or not answered:
        check = asyncio.create_task(opened.check())
        for _ in range(turns):
            await asyncio.sleep(0)
        if check.done():
            answered += 1
            turns = 0  # from the start: the answer comes after another number of turns each time
            continue
        check.cancel()
        await asyncio.wait({check})
        assert check.cancelled(), f"cancelled after {turns} turns of the event loop, the check went on"
        ended += 1
        turns += 1
