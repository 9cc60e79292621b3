"""An end without repeats: what was overtaken is delivered yet, what nobody has overtaken is not."""

from __future__ import annotations

import random

import pytest

from tablewatcher.event import Event
from tablewatcher.sinks.base import DELIVERED, Limits

from .deliveries import REFUSED, Page, delivery, event, ids, lanes, shared


def test_overtaken_events_stay_and_the_rest_is_given_up() -> None:
    machine = delivery(jitter=0.0)
    first = Page((event(1, "a"), event(2, "a"), event(3, "b")))
    second = Page((event(4, "c"), event(5, "a"), event(6, "d")))
    machine.offer(first)
    machine.offer(second)
    taken = machine.take(0.0, lanes())
    assert ids(taken) == [1, 3, 4, 6]
    machine.settle(taken, [DELIVERED, DELIVERED, DELIVERED, REFUSED], 0.0)
    assert machine.keep_overtaken() == 1
    assert ids(machine.take(9.0, lanes())) == [2]
    machine.settle([first.events[1]], [DELIVERED], 9.0)
    assert machine.waiting == 0
    assert machine.take(99.0, lanes()) == []
    assert machine.finished() == (second, 5)


def test_a_barrier_and_what_it_holds_is_given_up() -> None:
    machine = delivery(jitter=0.0)
    page = Page((event(1, "a"), event(2, "b"), event(3, "", op="g"), event(4, "a")))
    machine.offer(page)
    taken = machine.take(0.0, lanes())
    first = taken[0]
    machine.settle(taken, [REFUSED, DELIVERED], 0.0)
    assert machine.keep_overtaken() == 1
    assert machine.take(9.0, lanes()) == [first]
    machine.settle([first], [DELIVERED], 9.0)
    assert machine.finished() == (page, 3)


@pytest.mark.parametrize("limits", [lanes(3), shared(3)], ids=["lanes", "shared"])
@pytest.mark.parametrize("seed", range(50))
def test_what_is_delivered_at_the_end_is_a_beginning(seed: int, limits: Limits) -> None:
    chance = random.Random(seed)
    machine = delivery()
    keys = ["a", "b", "c", "hot", "hot", "hot"]
    events = [event(nth, chance.choice(keys), old_key=chance.choice([None, None, "b"])) for nth in range(1, 60)]
    for start in range(0, len(events), 20):
        machine.offer(Page(tuple(events[start : start + 20])))
    delivered: list[Event] = []
    flying: list[list[Event]] = []
    for _ in range(chance.randrange(2, 9)):
        flying.append(machine.take(0.0, limits))
        if chance.random() < 0.7:
            landed = flying.pop(chance.randrange(len(flying)))
            machine.settle(landed, [DELIVERED] * len(landed), 0.0)
            delivered += landed
    for landed in flying:
        machine.settle(landed, [DELIVERED] * len(landed), 0.0)
        delivered += landed
    machine.keep_overtaken()
    while machine.waiting:
        landed = machine.take(0.0, limits)
        machine.settle(landed, [DELIVERED] * len(landed), 0.0)
        delivered += landed
    assert sorted(ids(delivered)) == list(range(1, len(delivered) + 1))
