"""What is settled is forgotten, however often it comes back: a listener runs for months."""

from __future__ import annotations

import gc

from tablewatcher.event import Event
from tablewatcher.sinks.base import DELIVERED

from .deliveries import REFUSED, delivery, ids, lanes, page

ROUNDS = 20


def remembered() -> int:
    """How many events there are in this process."""
    gc.collect()
    return sum(type(each) is Event for each in gc.get_objects())


def test_what_comes_back_and_is_refused_again() -> None:
    """As where somebody, or a cron job, has what is aside sent again before the endpoint is repaired."""
    machine, before = delivery(attempts=2), remembered()
    machine.parked("a")
    for nth in range(ROUNDS):
        machine.release(page("a").events, "a", convicted=True)
        machine.settle(machine.take(nth * 1000.0, lanes()), [REFUSED], nth * 1000.0)
        machine.put_aside(list(machine.aside))
    assert remembered() - before < ROUNDS / 2


def test_what_waited_for_room_and_is_free() -> None:
    """What was aside of its key has been dropped before there was room for it, too."""
    machine, before = delivery(), remembered()
    for nth in range(ROUNDS):
        machine.parked("a")
        machine.offer(page("a", start=nth + 1))
        assert machine.take(0.0, lanes()) == []
        machine.release((), "a")
        taken = machine.take(0.0, lanes())
        assert ids(taken) == [nth + 1]
        machine.settle(taken, [DELIVERED], 0.0)
        machine.finished()
    assert remembered() - before < ROUNDS / 2
