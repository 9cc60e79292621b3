"""Fast ingest into a real stream: in order, up to the first that is not stored, and never less than plain publishes."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import nats
import pytest
from nats.js.api import DiscardPolicy, StreamConfig

from tablewatcher.errors import Reason
from tablewatcher.event import Event
from tablewatcher.sinks.base import Outcome, Verdict
from tablewatcher.sinks.nats import NatsSink

from ..running import running_time
from .conftest import add_stream, nats_sink, stored
from .events import event
from .servers import NatsServer

MANY = 1000


@asynccontextmanager
async def _open(server: NatsServer, **config: object) -> AsyncIterator[NatsSink]:
    """A sink over a new stream that allows batches."""
    await add_stream(server, allow_batched=True, **config)
    sink = nats_sink(server.url)
    await sink.open()
    assert sink.limits.ordered
    try:
        yield sink
    finally:
        await sink.close()


async def _change(server: NatsServer, **config: object) -> None:
    client = await nats.connect(server.url)
    try:
        await client.jetstream().update_stream(StreamConfig(**{"name": "SHOP", "subjects": ["shop.>"], **config}))
    finally:
        await client.close()


async def _ids(server: NatsServer, stream: str = "SHOP") -> list[str]:
    """Event ids in the order of the stream."""
    client = await nats.connect(server.url)
    try:
        messages = (await client.jetstream().stream_info(stream)).state.messages
        subscription = await client.jetstream().subscribe(">", stream=stream, ordered_consumer=True)
        return [(await subscription.next_msg(5)).headers["Nats-Msg-Id"] for _ in range(messages)]
    finally:
        await client.close()


def _of_keys(count: int, keys: int, first: int = 1) -> list[Event]:
    return [event(ring_id, key=f"k{ring_id % keys}") for ring_id in range(first, first + count)]


def _verdicts(outcomes: list[Outcome]) -> set[Verdict]:
    return {outcome.verdict for outcome in outcomes}


async def test_what_the_stream_allows_decides_and_may_change(nats_server: NatsServer) -> None:
    await add_stream(nats_server)
    sink = nats_sink(nats_server.url)
    await sink.open()
    assert not sink.limits.ordered
    await _change(nats_server, allow_batched=True)
    await sink.check()
    assert sink.limits.ordered
    assert _verdicts(await sink.deliver(_of_keys(MANY, 10))) == {Verdict.DELIVERED}
    # Turned off between two looks: the call is delivered all the same, and in order.
    await _change(nats_server, allow_batched=False)
    assert _verdicts(await sink.deliver(_of_keys(50, 10, first=MANY + 1))) == {Verdict.DELIVERED}
    assert not sink.limits.ordered
    await sink.close()
    found = await _ids(nats_server)
    assert sorted(found) == sorted(each.event_id for each in _of_keys(MANY + 50, 10))
    _assert_in_order(found, _of_keys(MANY + 50, 10))


def _assert_in_order(found: list[str], sent: list[Event]) -> None:
    """First arrivals of each key are in the order of its events, and none is missing."""
    by_id = {each.event_id: each for each in sent}
    lines: dict[str, list[int]] = defaultdict(list)
    for event_id in dict.fromkeys(found):
        lines[by_id[event_id].key].append(by_id[event_id].ring_id)
    assert sum(map(len, lines.values())) == len(sent)
    assert all(line == sorted(line) for line in lines.values())


@pytest.mark.parametrize("count", [2, 3, 200, 501, 4096])
async def test_a_call_is_stored_in_the_order_given(nats_server: NatsServer, count: int) -> None:
    async with _open(nats_server) as sink:
        sent = _of_keys(count, 2)
        assert _verdicts(await sink.deliver(sent)) == {Verdict.DELIVERED}
        assert await _ids(nats_server) == [each.event_id for each in sent]


async def test_what_is_sent_again_is_stored_once(nats_server: NatsServer) -> None:
    async with _open(nats_server) as sink:
        sent = _of_keys(MANY, 7)
        for batch in (sent[:600], sent[:600], sent[300:], sent):
            assert _verdicts(await sink.deliver(batch)) == {Verdict.DELIVERED}
        assert await _ids(nats_server) == [each.event_id for each in sent]


@pytest.mark.parametrize("place", [0, 1, 500, MANY - 2, MANY - 1])
@pytest.mark.parametrize("behind", [False, True])
async def test_an_event_the_stream_refuses_is_refused_alone(nats_server: NatsServer, place: int, behind: bool) -> None:
    bound = {"max_msg_size": 2000}
    async with _open(nats_server, **({} if behind else bound)) as sink:
        if behind:
            await _change(nats_server, allow_batched=True, **bound)
        sent = _of_keys(MANY, 100)
        sent[place] = event(sent[place].ring_id, key=sent[place].key, note="x" * 3000)
        outcomes = await sink.deliver(sent)
        held = {later for later in range(place + 1, MANY) if sent[later].key == sent[place].key}
        assert outcomes[place].verdict is Verdict.REJECTED
        assert {place for place, each in enumerate(outcomes) if each.verdict is Verdict.RETRY} == held
        assert not any(outcomes[later].endpoint for later in held)
        assert await _ids(nats_server) == [
            each.event_id for number, each in enumerate(sent) if number != place and number not in held
        ]


async def test_a_full_stream_takes_a_prefix_and_heals(nats_server: NatsServer) -> None:
    async with _open(nats_server, max_msgs=300, discard=DiscardPolicy.NEW) as sink:
        sent = _of_keys(MANY, 10)
        outcomes = await sink.deliver(sent)
        assert _verdicts(outcomes[:300]) == {Verdict.DELIVERED}
        assert _verdicts(outcomes[300:]) == {Verdict.RETRY}
        assert all(each.endpoint and "maximum messages" in each.message for each in outcomes[300:])
        await _change(nats_server, allow_batched=True)
        assert _verdicts(await sink.deliver(sent[300:])) == {Verdict.DELIVERED}
        assert await _ids(nats_server) == [each.event_id for each in sent]


async def test_a_stream_deleted_meanwhile_is_a_retry_that_says_so(nats_server: NatsServer) -> None:
    async with _open(nats_server) as sink:
        client = await nats.connect(nats_server.url)
        await client.jetstream().delete_stream("SHOP")
        await client.close()
        async with running_time() as took:
            outcomes = await sink.deliver(_of_keys(MANY, 10))
        assert took.seconds < 5
        assert {(each.verdict, each.reason, each.endpoint) for each in outcomes} == {
            (Verdict.RETRY, Reason.NO_STREAM_FOR_SUBJECT, True)
        }


async def test_watchers_of_one_stream_do_not_stop_each_other(nats_server: NatsServer) -> None:
    async with _open(nats_server) as first:
        others = [nats_sink(nats_server.url) for _ in range(4)]
        for each in others:
            await each.open()
        calls = [_of_keys(MANY, 10, first=1 + MANY * place) for place in range(5)]
        results = await asyncio.gather(
            *(sink.deliver(call) for sink, call in zip([first, *others], calls, strict=True))
        )
        assert all(_verdicts(outcomes) == {Verdict.DELIVERED} for outcomes in results)
        for each in others:
            await each.close()
        found = await _ids(nats_server)
        for call in calls:
            ours = {each.event_id for each in call}
            assert [event_id for event_id in found if event_id in ours] == [each.event_id for each in call]


async def test_actions_in_streams_of_their_own_are_published_one_by_one(nats_server: NatsServer) -> None:
    await add_stream(nats_server, name="INSERTS", subjects=["shop.public.orders.insert"], allow_batched=True)
    rest = [f"shop.public.orders.{action}" for action in ("update", "delete", "truncate", "gap")]
    await add_stream(nats_server, name="REST", subjects=rest, allow_batched=True)
    sink = nats_sink(nats_server.url)
    await sink.open()
    assert not sink.limits.ordered
    assert _verdicts(await sink.deliver([event(1), event(2, op="u")])) == {Verdict.DELIVERED}
    await sink.close()
    assert len(await stored(nats_server, "INSERTS")) == len(await stored(nats_server, "REST")) == 1


async def _deliver_all(sink: NatsSink, sent: list[Event], first_done: asyncio.Event) -> int:
    """As the relay does: what is delivered is gone, the rest is sent again in its order. How many calls failed."""
    failed, size = 0, sink.limits.max_batch
    deadline = time.monotonic() + 90
    while sent:
        assert time.monotonic() < deadline
        outcomes = await sink.deliver(sent[:size])
        undelivered = [each for each, o in zip(sent, outcomes, strict=False) if o.verdict is not Verdict.DELIVERED]
        assert all(o.endpoint for o in outcomes if o.verdict is not Verdict.DELIVERED)
        sent[: len(outcomes)] = undelivered
        first_done.set()
        if undelivered:
            failed += 1
            await asyncio.sleep(0.02)
    return failed


@pytest.mark.parametrize("fault", ["kill", "pause"])
async def test_a_server_that_dies_in_mid_batch_loses_nothing_and_keeps_the_order(
    nats_server: NatsServer, fault: str
) -> None:
    async with _open(nats_server) as sink:
        sent = _of_keys(40_000, 50)
        first_done = asyncio.Event()
        work = asyncio.ensure_future(_deliver_all(sink, list(sent), first_done))
        # To stand still takes seconds each time, for the sink waits that long; to die takes none.
        for _ in range(2 if fault == "kill" else 1):
            first_done.clear()
            await first_done.wait()
            if fault == "kill":
                nats_server.kill()
                nats_server.start()
            else:
                nats_server.pause()
                await asyncio.sleep(sink.timeout + 1)
                nats_server.resume()
        assert await work > 0, "the server died too late for this test to mean anything"
        found = await _ids(nats_server)
        assert len(found) == len(sent), "an event was stored twice"
        _assert_in_order(found, sent)
