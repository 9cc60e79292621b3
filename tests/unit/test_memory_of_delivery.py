"""What is settled is forgotten, however often it comes back: a listener runs for months."""

from __future__ import annotations

import gc

from hypothesis import given
from hypothesis import strategies as st

from tablewatcher.event import Event
from tablewatcher.listener.decide.pages import Pages
from tablewatcher.sinks.base import DELIVERED

from .deliveries import REFUSED, Page, delivery, event, ids, lanes, page

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


def test_what_is_delivered_behind_one_that_waits() -> None:
    """As while an endpoint refuses one event of a backlog, for hours: all after it goes out and is forgotten."""
    machine, before, size = delivery(), remembered(), 100_000
    machine.offer(Page((event(1, "refused"),)))
    machine.settle(machine.take(0.0, lanes()), [REFUSED], 0.0)
    for nth in range(1000):
        numbers = range(2 + 10 * nth, 12 + 10 * nth)
        machine.offer(Page(tuple(event(each, f"k{each}", body=bytes(size)) for each in numbers)))
        taken = machine.take(0.0, lanes())
        machine.settle(taken, [DELIVERED] * len(taken), 0.0)
    assert machine.waiting == 1
    assert (remembered() - before) * size < 40 << 20
    assert machine.finished() is None
    machine.settle(machine.take(1000.0, lanes()), [DELIVERED], 1000.0)
    done = machine.finished()
    assert done is not None
    assert (done[0].events[-1].ring_id, done[1]) == (10_001, None)


@given(st.lists(st.integers(0, 4), min_size=1, max_size=8), st.data())
def test_what_is_forgotten_changes_nothing(sizes: list[int], data: st.DataObject) -> None:
    """What is finished, waits, and would be given up, in whatever order pages come and events are settled."""
    forgetful: Pages[Page] = Pages(most=0)
    mindful: Pages[Page] = Pages(most=1 << 40)
    known: list[Event] = []
    for size in sizes:
        events = tuple(event(len(known) + nth, "k") for nth in range(size))
        known += events
        settled = data.draw(st.sets(st.sampled_from(known))) if known else set()
        for pages in (forgetful, mindful):
            pages.offer(Page(events))
            pages.outstanding.difference_update(settled)
        if data.draw(st.booleans()):
            assert _told(forgetful.finished()) == _told(mindful.finished())
        assert forgetful.oldest is mindful.oldest
        assert list(forgetful.tail()) == list(mindful.tail())
    for pages in (forgetful, mindful):
        pages.outstanding.clear()
    assert _told(forgetful.finished()) == _told(mindful.finished())


def _told(finished: tuple[Page, int | None] | None) -> tuple[int | None, int | None] | None:
    """The last id of the page, if it has events, and up to where."""
    if finished is None:
        return None
    page, undelivered = finished
    return (page.events[-1].ring_id if page.events else None, undelivered)


def test_the_last_one_delivered_is_kept_before_a_page_without_events() -> None:
    """Else all before it, that waits, would count as after it."""
    pages: Pages[Page] = Pages(most=0)
    first, last, *later = (event(nth, "k") for nth in range(8))
    for each in (first, last):
        pages.offer(Page((each,)))
    pages.outstanding.discard(last)
    pages.offer(Page(()))
    pages.offer(Page(tuple(later)))
    assert list(pages.tail()) == later[::-1]
