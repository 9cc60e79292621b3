"""An end without repeats: what was overtaken is delivered yet, what nobody has overtaken is not."""

from __future__ import annotations

import random
from dataclasses import dataclass

import pytest

from tablewatcher.errors import Reason
from tablewatcher.event import Event
from tablewatcher.listener.delivery import Delivery
from tablewatcher.sinks.base import DELIVERED, Outcome, Verdict
from tablewatcher.spec.model import Backoff

REFUSED = Outcome(Verdict.RETRY, Reason.SINK_UNREACHABLE, "no")


@dataclass(frozen=True, slots=True)
class Page:
    events: tuple[Event, ...]


def event(ring_id: int, key: str, op: str = "u", old_key: str | None = None) -> Event:
    return Event(ring_id, f"{ring_id:032}", op, key, old_key, "", 0.0, "", None, b"")


def test_overtaken_events_stay_and_the_rest_is_given_up() -> None:
    delivery: Delivery[Page] = Delivery(Backoff(), lambda: 0.0)
    first = Page((event(1, "a"), event(2, "a"), event(3, "b")))
    second = Page((event(4, "c"), event(5, "a"), event(6, "d")))
    delivery.offer(first)
    delivery.offer(second)
    taken = delivery.take(0.0, 10)
    assert [found.ring_id for found in taken] == [1, 3, 4, 6]
    for found in taken[:3]:
        delivery.settle(found, DELIVERED, 0.0)
    delivery.settle(taken[3], REFUSED, 0.0)
    assert delivery.keep_overtaken() == 1
    assert [found.ring_id for found in delivery.take(9.0, 10)] == [2]
    delivery.settle(first.events[1], DELIVERED, 9.0)
    assert delivery.waiting == 0
    assert delivery.take(99.0, 10) == []
    assert delivery.finished() == (second, 5)


def test_a_barrier_and_what_it_holds_is_given_up() -> None:
    delivery: Delivery[Page] = Delivery(Backoff(), lambda: 0.0)
    page = Page((event(1, "a"), event(2, "b"), event(3, "", "g"), event(4, "a")))
    delivery.offer(page)
    first, second = delivery.take(0.0, 10)
    delivery.settle(second, DELIVERED, 0.0)
    delivery.settle(first, REFUSED, 0.0)
    assert delivery.keep_overtaken() == 1
    assert delivery.take(9.0, 10) == [first]
    delivery.settle(first, DELIVERED, 9.0)
    assert delivery.finished() == (page, 3)


@pytest.mark.parametrize("seed", range(50))
def test_what_is_delivered_at_the_end_is_a_beginning(seed: int) -> None:
    chance = random.Random(seed)
    delivery: Delivery[Page] = Delivery(Backoff(), chance.random)
    keys = ["a", "b", "c", "hot", "hot", "hot"]
    events = [event(nth, chance.choice(keys), old_key=chance.choice([None, None, "b"])) for nth in range(1, 60)]
    for start in range(0, len(events), 20):
        delivery.offer(Page(tuple(events[start : start + 20])))
    delivered: list[Event] = []
    for _ in range(chance.randrange(6)):
        for found in delivery.take(0.0, chance.randrange(1, 4)):
            delivery.settle(found, DELIVERED, 0.0)
            delivered.append(found)
    delivery.keep_overtaken()
    while delivery.waiting:
        for found in delivery.take(0.0, 3):
            delivery.settle(found, DELIVERED, 0.0)
            delivered.append(found)
    assert sorted(found.ring_id for found in delivered) == list(range(1, len(delivered) + 1))
