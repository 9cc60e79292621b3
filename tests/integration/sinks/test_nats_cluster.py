"""A stream with three copies while its leader changes and dies, and servers retire."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from nats.js.api import StreamConfig

from tablewatcher.errors import Reason, SinkError
from tablewatcher.sinks.base import Verdict
from tablewatcher.sinks.nats import NatsSink
from tablewatcher.spec.model import CreateStream, Format
from tablewatcher.spec.model import NatsSink as NatsSpec

from .cluster import SIZE, NatsCluster
from .events import SOURCE, TABLE, MemorySecrets, event
from .servers import until
from .traffic import Traffic, traffic

# Half of what traffic has time for, and longer than a change of leaders takes.
WINDOW = 30.0


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[NatsCluster]:
    made = NatsCluster(tmp_path)
    yield made
    made.kill()


def _sink(cluster: NatsCluster, **fields: object) -> NatsSink:
    return NatsSink(
        NatsSpec(cluster.urls, "shop.{table}", **fields),
        format=Format.STRUCTURED,
        source=SOURCE,
        table=TABLE,
        secrets=MemorySecrets(),
    )


@asynccontextmanager
async def _opened(cluster: NatsCluster, *, fast: bool) -> AsyncIterator[NatsSink]:
    stream = StreamConfig(name="SHOP", subjects=["shop.>"], num_replicas=SIZE, allow_batched=fast)
    # For as long as this an event may be refused that a leader has noted and nobody has stored (decision 0028).
    stream.duplicate_window = WINDOW
    await cluster.start(stream)
    sink = _sink(cluster)
    await sink.open()
    assert not sink.limits.ordered, "somebody before us may have sent the same"
    sink._repeats._opened -= 600  # as if it had been open for longer than that is remembered
    assert sink.limits.ordered is fast
    try:
        yield sink
    finally:
        await sink.close()


async def _assert_stored(cluster: NatsCluster, sent: Traffic) -> None:
    """Every event once, those of a key in order."""
    deadline = time.monotonic() + 15
    while True:
        ids = [message.headers["Nats-Msg-Id"] for message in await cluster.stored("SHOP")]
        # A server that has just begun to lead may still be at work on its log; what is lost never comes.
        if not sent.missing(ids) or time.monotonic() > deadline:
            break
    assert sent.missing(ids) == [], "events were lost"
    assert len(ids) == sent.last, "an event was stored twice"
    assert sent.is_in_order(ids)


@pytest.mark.parametrize("fast", [True, False])
async def test_nothing_is_lost_or_overtaken_while_leaders_change(cluster: NatsCluster, fast: bool) -> None:
    async with _opened(cluster, fast=fast) as sink, traffic(sink) as sent:
        await cluster.step_down("SHOP")
        leader = await cluster.leader("SHOP")
        await asyncio.to_thread(cluster.servers[leader].kill)
        await cluster.leader("SHOP")
        await asyncio.to_thread(cluster.servers[leader].start)
    assert sent.failed, "no call met a change of leader"
    await _assert_stored(cluster, sent)


def _server_of(cluster: NatsCluster, sink: NatsSink) -> str | None:
    """The name of the server that `sink` is connected to."""
    if sink._connection is None or (url := sink._connection.client.connected_url) is None:
        return None
    return next(name for name, server in cluster.servers.items() if server.port == url.port)


@pytest.mark.parametrize("fast", [True, False])
async def test_servers_that_retire_one_after_another_cost_nothing(cluster: NatsCluster, fast: bool) -> None:
    """Lame-duck mode, as in a rolling upgrade: first the server we are connected to, then the leader of the stream."""
    async with _opened(cluster, fast=fast) as sink, traffic(sink) as sent:
        first = _server_of(cluster, sink)
        assert first is not None
        await asyncio.to_thread(cluster.servers[first].retire)
        await until(lambda: _server_of(cluster, sink) not in (None, first))
        await asyncio.to_thread(cluster.servers[first].start)
        leader = await cluster.leader("SHOP")
        await asyncio.to_thread(cluster.servers[leader].retire)
        await cluster.leader("SHOP")
        await asyncio.to_thread(cluster.servers[leader].start)
    assert sent.failed, "the connection was never lost: this test means nothing"
    await _assert_stored(cluster, sent)


async def _said(sink: NatsSink) -> SinkError | None:
    """What a look at the sink finds wrong."""
    try:
        await sink.check()
    except SinkError as error:
        return error
    return None


@pytest.mark.usefixtures("own_patience")
async def test_a_cluster_without_most_of_its_servers_is_unreachable_and_heals(
    cluster: NatsCluster, eventually: Callable[..., Awaitable[Any]]
) -> None:
    async with _opened(cluster, fast=True) as sink:
        # The leader is left: in a batch it tells repeats of what it has not yet shared with anybody as stored.
        leader = await cluster.leader("SHOP")
        others = [server for name, server in cluster.servers.items() if name != leader]
        for server in others:
            server.kill()

        async def unavailable() -> bool:
            """Says so once it has seen that nobody leads; until then it does not answer."""
            outcomes = await sink.deliver([event(-ring_id) for ring_id in range(300)])
            assert {o.verdict for o in outcomes} == {Verdict.RETRY}
            said = await _said(sink)
            assert said is None or said.reason is Reason.SINK_UNREACHABLE, said
            return said is not None and "most servers" in said.message

        await eventually(unavailable, 60)
        sink_for_new = _sink(cluster, stream="NEW", create=CreateStream(replicas=SIZE))
        with pytest.raises(SinkError) as caught:
            await sink_for_new.open()
        assert caught.value.reason is Reason.SINK_UNREACHABLE
        for server in others:
            server.start()

        async def delivered() -> bool:
            with suppress(SinkError):
                await sink.check()
                return (await sink.deliver([event(-1)]))[0].verdict is Verdict.DELIVERED
            return False

        await eventually(delivered, 60)
