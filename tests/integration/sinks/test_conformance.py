"""What every sink must do, whatever is at its other end: one suite, run over each kind."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import pytest

from tablewatcher.errors import Reason, SinkError
from tablewatcher.sinks.base import Outcome, Verdict

from ..running import running_time
from .events import events

if TYPE_CHECKING:
    from .conftest import Endpoint


def _all(outcomes: list[Outcome], verdict: Verdict) -> bool:
    return bool(outcomes) and all(outcome.verdict is verdict for outcome in outcomes)


async def _delivered_within(endpoint: Endpoint, first: int, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not _all(found := await endpoint.send(events(3, first=first)), Verdict.DELIVERED):
        assert time.monotonic() < deadline, found[0]
        await asyncio.sleep(0.05)


async def test_limits_are_usable(endpoint: Endpoint) -> None:
    assert endpoint.sink.limits.max_batch >= 1
    assert endpoint.sink.limits.concurrency >= 1
    assert 0 < endpoint.sink.timeout <= 60


async def test_delivers_all_in_one_outcome_each(endpoint: Endpoint) -> None:
    await endpoint.sink.open()
    batch = events(250)
    outcomes = await endpoint.send(batch)
    assert len(outcomes) == len(batch)
    assert _all(outcomes, Verdict.DELIVERED)
    assert sorted(await endpoint.seen()) == sorted(event.event_id for event in batch)


async def test_takes_as_many_calls_at_once_as_it_says(endpoint: Endpoint) -> None:
    await endpoint.sink.open()
    size, calls = min(endpoint.sink.limits.max_batch, 50), endpoint.sink.limits.concurrency
    batches = [events(size, first=1 + call * size) for call in range(calls)]
    results = await asyncio.gather(*(endpoint.sink.deliver(batch) for batch in batches))
    assert all(_all(list(outcomes), Verdict.DELIVERED) for outcomes in results)
    assert len(set(await endpoint.seen())) == size * calls


async def test_nothing_to_deliver_is_nothing_delivered(endpoint: Endpoint) -> None:
    await endpoint.sink.open()
    assert list(await endpoint.sink.deliver([])) == []


async def test_the_id_is_the_same_on_every_attempt(endpoint: Endpoint) -> None:
    await endpoint.sink.open()
    batch = events(3)
    for _ in range(2):
        assert _all(await endpoint.send(batch), Verdict.DELIVERED)
    assert set(await endpoint.seen()) == {event.event_id for event in batch}


async def test_a_check_disturbs_no_delivery(endpoint: Endpoint) -> None:
    await endpoint.sink.open()
    for round_ in range(5):
        batch = events(20, first=1 + 20 * round_)
        outcomes, *_ = await asyncio.gather(endpoint.sink.deliver(batch), endpoint.sink.check(), endpoint.sink.check())
        assert _all(list(outcomes), Verdict.DELIVERED)
    seen = await endpoint.seen()
    assert len(seen) == len(set(seen)) == 100


@pytest.mark.usefixtures("own_patience")
async def test_a_check_sees_the_endpoint_go_and_come_back(endpoint: Endpoint) -> None:
    await endpoint.sink.open()
    await endpoint.down()
    with pytest.raises(SinkError):
        await endpoint.sink.check()
    await endpoint.up()
    await _delivered_within(endpoint, 1, 30)
    await endpoint.sink.check()


async def test_a_dead_endpoint_is_a_retry_and_never_an_error(endpoint: Endpoint) -> None:
    await endpoint.sink.open()
    assert _all(await endpoint.send(events(2)), Verdict.DELIVERED)
    await endpoint.down()
    for _ in range(3):
        async with running_time() as took:
            outcomes = list(await endpoint.sink.deliver(events(1, first=10)))
        assert took.seconds <= endpoint.sink.timeout + 3
        assert _all(outcomes, Verdict.RETRY)
        assert outcomes[0].endpoint
        assert outcomes[0].reason is Reason.SINK_UNREACHABLE
        assert outcomes[0].message


async def test_the_same_sink_delivers_again_when_the_endpoint_is_back(endpoint: Endpoint) -> None:
    await endpoint.sink.open()
    for round_ in range(2):
        assert _all(await endpoint.send(events(3, first=100 * round_ + 1)), Verdict.DELIVERED)
        await endpoint.down()
        assert _all(await endpoint.send(events(3, first=100 * round_ + 4)), Verdict.RETRY)
        await endpoint.up()
        await _delivered_within(endpoint, 100 * round_ + 4, 30)
    ids = {event.event_id for first in (1, 101) for event in events(6, first=first)}
    assert set(await endpoint.seen()) == ids


async def test_nobody_there_is_a_sink_error_with_advice(endpoint: Endpoint) -> None:
    async with running_time() as took:
        with pytest.raises(SinkError) as caught:
            await endpoint.unreachable.open()
        assert caught.value.reason is Reason.SINK_UNREACHABLE
        assert "check" in caught.value.message
    assert took.seconds < 5
    assert _all(list(await endpoint.unreachable.deliver(events(1))), Verdict.RETRY)
    await endpoint.unreachable.close()


async def test_a_look_sends_and_opens_nothing(endpoint: Endpoint) -> None:
    assert list(await endpoint.sink.look()) == []
    assert _all(list(await endpoint.sink.deliver(events(1))), Verdict.RETRY)
    assert await endpoint.seen() == []
    with pytest.raises(SinkError) as caught:
        await endpoint.unreachable.look()
    assert caught.value.reason is Reason.SINK_UNREACHABLE


async def test_open_may_be_tried_again(endpoint: Endpoint) -> None:
    await endpoint.down()
    with pytest.raises(SinkError):
        await endpoint.sink.open()
    await endpoint.up()
    await endpoint.sink.open()
    await endpoint.sink.open()
    assert _all(await endpoint.send(events(2)), Verdict.DELIVERED)


async def test_close_in_any_state(endpoint: Endpoint) -> None:
    await endpoint.sink.close()
    assert _all(list(await endpoint.sink.deliver(events(1))), Verdict.RETRY)
    await endpoint.sink.open()
    await endpoint.sink.close()
    await endpoint.sink.close()
    assert _all(list(await endpoint.sink.deliver(events(1))), Verdict.RETRY)
    await endpoint.sink.open()
    await endpoint.down()
    await endpoint.sink.deliver(events(1))
    async with running_time() as took:
        await endpoint.sink.close()
    assert took.seconds < 5


async def test_close_during_a_delivery_ends_it(endpoint: Endpoint) -> None:
    await endpoint.sink.open()
    delivery = asyncio.ensure_future(endpoint.sink.deliver(events(endpoint.sink.limits.max_batch)))
    await asyncio.sleep(0)
    await endpoint.sink.close()
    outcomes = await asyncio.wait_for(delivery, endpoint.sink.timeout + 3)
    assert len(outcomes) == endpoint.sink.limits.max_batch
    assert {outcome.verdict for outcome in outcomes} <= {Verdict.RETRY, Verdict.DELIVERED}
