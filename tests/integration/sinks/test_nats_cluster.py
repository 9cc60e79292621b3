"""Batches into a stream with three copies while its leader changes and dies."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest
from nats.js.api import StreamConfig

from tablewatcher.sinks.base import Verdict
from tablewatcher.sinks.nats import NatsSink
from tablewatcher.spec.model import Format
from tablewatcher.spec.model import NatsSink as NatsSpec

from .cluster import SIZE, NatsCluster
from .events import SOURCE, TABLE, MemorySecrets, event

KEYS = 20


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[NatsCluster]:
    made = NatsCluster(tmp_path)
    yield made
    made.kill()


async def _send_until(sink: NatsSink, stop: asyncio.Event) -> tuple[int, int]:
    """Event after event, in calls, again and again what is not delivered; how many events, and failed calls."""
    waiting: list = []
    last = failed = 0
    while waiting or not stop.is_set():
        if not stop.is_set():
            more = 1000 - len(waiting)
            waiting += [event(ring_id, key=f"k{ring_id % KEYS}") for ring_id in range(last + 1, last + 1 + more)]
            last += more
        outcomes = await sink.deliver(waiting)
        waiting = [each for each, o in zip(waiting, outcomes, strict=True) if o.verdict is not Verdict.DELIVERED]
        assert all(o.endpoint for o in outcomes if o.verdict is not Verdict.DELIVERED)
        if waiting:
            failed += 1
            await asyncio.sleep(0.05)
    return last, failed


async def test_nothing_is_lost_or_overtaken_while_leaders_change(cluster: NatsCluster) -> None:
    await cluster.start(StreamConfig(name="SHOP", subjects=["shop.>"], num_replicas=SIZE, allow_batched=True))
    sink = NatsSink(
        NatsSpec(cluster.urls, "shop.{table}"),
        format=Format.STRUCTURED,
        source=SOURCE,
        table=TABLE,
        secrets=MemorySecrets(),
    )
    await sink.open()
    assert sink.limits.ordered
    stop = asyncio.Event()
    work = asyncio.ensure_future(_send_until(sink, stop))
    await cluster.step_down("SHOP")
    leader = await cluster.leader("SHOP")
    await asyncio.to_thread(cluster.servers[leader].kill)
    await cluster.leader("SHOP")
    await asyncio.to_thread(cluster.servers[leader].start)
    stop.set()
    last, failed = await work
    await sink.close()
    assert failed, "no call met a change of leader"
    found = await _stored(cluster)
    assert len(found) == last, "an event was lost, or stored twice"
    lines = defaultdict(list)
    for ring_id in found:
        lines[ring_id % KEYS].append(ring_id)
    assert all(line == sorted(line) for line in lines.values())


async def _stored(cluster: NatsCluster) -> list[int]:
    """Ring ids in the order of the stream."""
    ids = [message.headers["Nats-Msg-Id"] for message in await cluster.stored("SHOP")]
    by_id = {event(ring_id).event_id: ring_id for ring_id in range(1, len(ids) + 1)}
    return [by_id[event_id] for event_id in ids]
