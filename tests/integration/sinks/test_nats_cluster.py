"""A stream with three copies while its leader changes and dies, and servers retire."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from nats.js.api import StreamConfig

from tablewatcher.sinks.base import Verdict
from tablewatcher.sinks.nats import NatsSink
from tablewatcher.sinks.nats.order import HELD
from tablewatcher.spec.model import Format
from tablewatcher.spec.model import NatsSink as NatsSpec

from .cluster import SIZE, NatsCluster
from .events import SOURCE, TABLE, MemorySecrets, event
from .servers import until

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
        held = [o for o in outcomes if o.verdict is not Verdict.DELIVERED and o is not HELD]
        assert all(o.endpoint for o in held), held[0]
        if waiting:
            failed += 1
            await asyncio.sleep(0.05)
    return last, failed


@asynccontextmanager
async def _opened(cluster: NatsCluster, *, fast: bool) -> AsyncIterator[NatsSink]:
    await cluster.start(StreamConfig(name="SHOP", subjects=["shop.>"], num_replicas=SIZE, allow_batched=fast))
    sink = NatsSink(
        NatsSpec(cluster.urls, "shop.{table}"),
        format=Format.STRUCTURED,
        source=SOURCE,
        table=TABLE,
        secrets=MemorySecrets(),
    )
    await sink.open()
    assert sink.limits.ordered is fast
    try:
        yield sink
    finally:
        await sink.close()


async def _assert_stored(cluster: NatsCluster, last: int) -> None:
    """Events 1 to `last` once each, those of a key in order."""
    found = await _stored(cluster)
    assert len(found) == last, "an event was lost, or stored twice"
    lines = defaultdict(list)
    for ring_id in found:
        lines[ring_id % KEYS].append(ring_id)
    assert all(line == sorted(line) for line in lines.values())


@pytest.mark.parametrize("fast", [True, False])
async def test_nothing_is_lost_or_overtaken_while_leaders_change(cluster: NatsCluster, fast: bool) -> None:
    async with _opened(cluster, fast=fast) as sink:
        stop = asyncio.Event()
        work = asyncio.ensure_future(_send_until(sink, stop))
        await cluster.step_down("SHOP")
        leader = await cluster.leader("SHOP")
        await asyncio.to_thread(cluster.servers[leader].kill)
        await cluster.leader("SHOP")
        await asyncio.to_thread(cluster.servers[leader].start)
        stop.set()
        last, failed = await work
    assert failed, "no call met a change of leader"
    await _assert_stored(cluster, last)


def _server_of(cluster: NatsCluster, sink: NatsSink) -> str | None:
    """The name of the server that `sink` is connected to."""
    if sink._connection is None or (url := sink._connection.client.connected_url) is None:
        return None
    return next(name for name, server in cluster.servers.items() if server.port == url.port)


@pytest.mark.parametrize("fast", [True, False])
async def test_servers_that_retire_one_after_another_cost_nothing(cluster: NatsCluster, fast: bool) -> None:
    """Lame-duck mode, as in a rolling upgrade: first the server we are connected to, then the leader of the stream."""
    async with _opened(cluster, fast=fast) as sink:
        stop = asyncio.Event()
        work = asyncio.ensure_future(_send_until(sink, stop))
        first = _server_of(cluster, sink)
        assert first is not None
        await asyncio.to_thread(cluster.servers[first].retire)
        await until(lambda: _server_of(cluster, sink) not in (None, first))
        await asyncio.to_thread(cluster.servers[first].start)
        leader = await cluster.leader("SHOP")
        await asyncio.to_thread(cluster.servers[leader].retire)
        await cluster.leader("SHOP")
        await asyncio.to_thread(cluster.servers[leader].start)
        stop.set()
        last, failed = await work
    assert failed, "the connection was never lost: this test means nothing"
    await _assert_stored(cluster, last)


async def _stored(cluster: NatsCluster) -> list[int]:
    """Ring ids in the order of the stream."""
    ids = [message.headers["Nats-Msg-Id"] for message in await cluster.stored("SHOP")]
    by_id = {event(ring_id).event_id: ring_id for ring_id in range(1, len(ids) + 1)}
    return [by_id[event_id] for event_id in ids]
