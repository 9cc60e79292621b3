"""Subjects that move from one stream to another under traffic, and answers that are no acknowledgement."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from contextlib import suppress

import nats
import pytest
from nats.aio.msg import Msg
from nats.js import JetStreamContext
from nats.js.api import StreamConfig

from tablewatcher.errors import Reason, SinkError
from tablewatcher.event import Event
from tablewatcher.sinks.base import Outcome, Verdict
from tablewatcher.sinks.nats import NatsSink
from tablewatcher.sinks.nats.order import HELD

from .conftest import add_stream, nats_sink
from .events import event, events
from .servers import NatsServer

KEYS = 20
CALL = 1000


class _Traffic:
    """Events 1, 2, ... in calls until `stop`; `told`: ids that were told to be delivered, and the reasons of faults."""

    def __init__(self, sink: NatsSink) -> None:
        self.sink = sink
        self.told: set[str] = set()
        self.reasons: set[Reason] = set()
        self.last = 0
        self._waiting: list[Event] = []

    async def run(self, stop: asyncio.Event) -> None:
        while self._waiting or not stop.is_set():
            if not stop.is_set():
                more = range(self.last + 1, self.last + 1 + CALL - len(self._waiting))
                self._waiting += [event(ring_id, key=f"k{ring_id % KEYS}") for ring_id in more]
                self.last = self._waiting[-1].ring_id
            self._take(await self.sink.deliver(self._waiting))
            with suppress(SinkError):  # as the listener does every now and then
                await self.sink.check()
            await asyncio.sleep(0.01)

    def _take(self, outcomes: list[Outcome]) -> None:
        left = []
        for each, outcome in zip(self._waiting, outcomes, strict=True):
            if outcome.verdict is Verdict.DELIVERED:
                self.told.add(each.event_id)
                continue
            left.append(each)
            if outcome is not HELD:
                assert outcome.endpoint, outcome
                self.reasons.add(outcome.reason)
        self._waiting = left


async def _ids(jetstream: JetStreamContext, stream: str) -> list[str]:
    count = (await jetstream.stream_info(stream)).state.messages
    subscription = await jetstream.subscribe(">", stream=stream, ordered_consumer=True)
    try:
        return [(await subscription.next_msg(5)).headers["Nats-Msg-Id"] for _ in range(count)]
    finally:
        await subscription.unsubscribe()


@pytest.mark.parametrize("fast", [False, True])
async def test_what_is_told_as_delivered_is_in_one_of_the_streams(nats_server: NatsServer, fast: bool) -> None:
    """The subjects go from SHOP to NEXT, with a while between in which no stream has them."""
    await add_stream(nats_server, allow_batched=fast)
    sink = nats_sink(nats_server.url)
    await sink.open()
    traffic, stop = _Traffic(sink), asyncio.Event()
    work = asyncio.ensure_future(traffic.run(stop))
    client = await nats.connect(nats_server.url)
    jetstream = client.jetstream(timeout=10)
    await asyncio.sleep(0.3)
    await jetstream.update_stream(StreamConfig(name="SHOP", subjects=["old.>"], allow_batched=fast))
    await asyncio.sleep(0.3)
    await add_stream(nats_server, name="NEXT", allow_batched=fast)
    await asyncio.sleep(0.3)
    stop.set()
    await asyncio.wait_for(work, 60)
    await sink.close()
    before, after = await _ids(jetstream, "SHOP"), await _ids(jetstream, "NEXT")
    await client.close()
    assert before
    assert after
    assert traffic.told == {event(ring_id).event_id for ring_id in range(1, traffic.last + 1)} == {*before, *after}
    assert Reason.NO_STREAM_FOR_SUBJECT in traffic.reasons
    by_id = {event(ring_id).event_id: ring_id for ring_id in range(1, traffic.last + 1)}
    lines = defaultdict(list)
    for event_id in dict.fromkeys([*before, *after]):
        lines[by_id[event_id] % KEYS].append(by_id[event_id])
    assert all(line == sorted(line) for line in lines.values())


@pytest.mark.parametrize("fast", [False, True])
async def test_a_stream_under_another_name_takes_all_that_follows(nats_server: NatsServer, fast: bool) -> None:
    """What the old one had is gone with it; what is told as delivered afterwards is in the new one."""
    await add_stream(nats_server, allow_batched=fast)
    sink = nats_sink(nats_server.url)
    await sink.open()
    assert {each.verdict for each in await sink.deliver(events(300))} == {Verdict.DELIVERED}
    client = await nats.connect(nats_server.url)
    await client.jetstream().delete_stream("SHOP")
    await add_stream(nats_server, name="NEXT", allow_batched=fast)
    sent = events(300, first=301)
    tries = 0
    while {each.verdict for each in await sink.deliver(sent)} != {Verdict.DELIVERED}:
        tries += 1
        assert tries < 3, "the next look did not find the stream"
        await sink.check()
    assert sorted(await _ids(client.jetstream(), "NEXT")) == sorted(each.event_id for each in sent)
    await client.close()
    await sink.close()


@pytest.mark.parametrize("fast", [False, True])
async def test_a_stream_that_the_manifest_names_is_waited_for(nats_server: NatsServer, fast: bool) -> None:
    await add_stream(nats_server, allow_batched=fast)
    sink = nats_sink(nats_server.url, stream="SHOP")
    await sink.open()
    client = await nats.connect(nats_server.url)
    jetstream = client.jetstream()
    await jetstream.update_stream(StreamConfig(name="SHOP", subjects=["old.>"], allow_batched=fast))
    await add_stream(nats_server, name="NEXT", allow_batched=fast)
    for _ in range(2):
        outcomes = await sink.deliver(events(300))
        assert {(each.verdict, each.reason) for each in outcomes} == {(Verdict.RETRY, Reason.NO_STREAM_FOR_SUBJECT)}
        with pytest.raises(SinkError) as caught:
            await sink.check()
        assert caught.value.reason is Reason.NO_STREAM_FOR_SUBJECT
    assert await _ids(jetstream, "NEXT") == []
    await jetstream.delete_stream("NEXT")
    await jetstream.update_stream(StreamConfig(name="SHOP", subjects=["shop.>"], allow_batched=fast))
    assert {each.verdict for each in await sink.deliver(events(300))} == {Verdict.DELIVERED}
    assert len(await _ids(jetstream, "SHOP")) == 300
    await client.close()
    await sink.close()


@pytest.mark.parametrize("fast", [False, True])
@pytest.mark.parametrize("answer", [b"", b"+OK", b"{}", b"[]", b'{"stream":"","seq":1}', b'{"stream":1,"seq":1}'])
async def test_somebody_who_answers_in_place_of_a_stream_delivers_nothing(
    nats_server: NatsServer, answer: bytes, fast: bool
) -> None:
    await add_stream(nats_server, allow_batched=fast)
    sink = nats_sink(nats_server.url)
    await sink.open()
    client = await nats.connect(nats_server.url)
    await client.jetstream().delete_stream("SHOP")

    async def reply(message: Msg) -> None:
        await message.respond(answer)

    await client.subscribe("shop.>", cb=reply)
    await client.flush()
    outcomes = await sink.deliver(events(300))
    assert {(each.verdict, each.endpoint) for each in outcomes} == {(Verdict.RETRY, True)}
    await client.close()
    await sink.close()
