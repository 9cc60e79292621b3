"""What goes into one call: as the sink's limits have it."""

from __future__ import annotations

from tablewatcher.listener.decide.delivery import Delivery
from tablewatcher.sinks.base import DELIVERED, Limits
from tablewatcher.spec.model import Ordering

from .deliveries import FAULT, REFUSED, Page, aside, delivery, event, ids, lanes, page, shared


def test_a_shared_call_takes_a_key_with_its_followers() -> None:
    machine = delivery()
    machine.offer(page(*"aabaa"))
    assert ids(machine.take(0.0, shared(4))) == [1, 2, 3, 4]
    machine.offer(page(*"ac", start=6))
    assert ids(machine.take(0.0, shared(4))) == [7], "a is under way in the other call"


def test_followers_go_with_an_event_that_comes_back() -> None:
    machine = delivery()
    machine.offer(page(*"ab"))
    first = machine.take(0.0, shared())
    machine.offer(page(*"aaab", start=3))
    assert machine.take(0.0, shared()) == []
    machine.settle(first, [REFUSED, DELIVERED], 0.0)
    assert ids(machine.take(0.0, shared())) == [6]
    assert ids(machine.take(9.0, shared())) == [1], "refused in company, it goes by itself"
    machine.settle([first[0]], [DELIVERED], 9.0)
    assert ids(machine.take(9.0, shared())) == [3, 4, 5]


def test_what_failed_together_comes_back_in_order() -> None:
    machine = delivery()
    machine.offer(page(*"aaba"))
    taken = machine.take(0.0, shared())
    machine.settle(taken, [DELIVERED, FAULT, DELIVERED, FAULT], 0.0)
    assert ids(machine.take(9.0, shared())) == [2]
    machine.settle([taken[1]], [DELIVERED], 9.0)
    assert ids(machine.take(9.0, shared())) == [4]


def test_a_key_with_more_aside_stays_so_while_a_piece_of_it_comes_back() -> None:
    machine = delivery()
    machine.parked(["a"])
    machine.release(page("a").events)
    (back,) = machine.take(0.0, shared())
    machine.offer(page("a", start=3))
    assert machine.take(0.0, shared()) == []
    machine.settle([back], [DELIVERED], 0.0)
    assert machine.again.delivered == [back]
    machine.offer(page("a", start=4))
    assert machine.take(0.0, shared()) == []
    assert [parking.event.ring_id for parking in machine.aside] == [3, 4]
    machine.offer(page("a", start=6))
    machine.release(page("a").events)
    assert ids(machine.take(0.0, shared())) == [1], "it must not ride along in the same call"


def test_bytes_bound_a_call() -> None:
    machine: Delivery[Page] = delivery()
    machine.offer(Page(tuple(event(nth, str(nth), body=b"x" * size) for nth, size in enumerate([9, 4, 5, 2], 1))))
    bounded = Limits(max_batch=10, concurrency=1, ordered=True, max_bytes=8)
    assert ids(machine.take(0.0, bounded)) == [1], "one event may be larger"
    assert ids(machine.take(0.0, bounded)) == [2]
    assert ids(machine.take(0.0, bounded)) == [3, 4]


def lingering(batch: int = 3) -> Limits:
    return Limits(max_batch=batch, concurrency=4, ordered=True, max_bytes=100, linger=0.05)


def test_a_call_waits_to_be_filled() -> None:
    machine = delivery()
    machine.offer(page(*"ab"))
    assert machine.take(1.0, lingering()) == []
    assert machine.wake_at() == 1.05
    machine.offer(page("c", start=3))
    assert ids(machine.take(1.01, lingering())) == [1, 2, 3]
    machine.offer(page("d", start=4))
    assert machine.take(2.0, lingering()) == []
    assert ids(machine.take(2.05, lingering())) == [4]
    assert machine.wake_at() is None


def test_nothing_waits_behind_a_full_backlog_or_a_fault() -> None:
    machine = delivery()
    machine.offer(page("a"))
    taken = machine.take(0.0, lingering(), full=True)
    assert ids(taken) == [1]
    machine.settle(taken, [FAULT], 0.0)
    machine.offer(page("b", start=2))
    assert len(machine.take(9.0, lingering())) == 1


def test_enough_bytes_fill_a_call() -> None:
    machine: Delivery[Page] = delivery()
    machine.offer(Page((event(1, "a", body=b"x" * 100),)))
    assert ids(machine.take(0.0, lingering())) == [1]


def test_unordered_nobody_waits_for_anybody() -> None:
    machine = delivery(ordering=Ordering.UNORDERED)
    machine.offer(Page((*page(*"aaa").events, event(4, "_", op="t"), event(5, "a"))))
    taken = machine.take(0.0, lanes(3))
    assert ids(taken) == [1, 2, 3]
    machine.settle(taken, [REFUSED, DELIVERED, DELIVERED], 0.0)
    rest = machine.take(0.0, lanes(3))
    assert ids(rest) == [4, 5]
    machine.settle(rest, [DELIVERED] * 2, 0.0)
    assert ids(machine.take(9.0, lanes(3))) == [1]


def test_what_waits_for_room_is_held_by_all_that_it_is_bound_to() -> None:
    """1 waits for what is aside of key `a`, and 2 for 1, though nothing of its own keys is aside any more."""
    machine = delivery()
    machine.parked("abc")
    machine.offer(Page((event(1, "b", "a"), event(2, "c", "b"), event(3, "c"))))
    assert machine.take(0.0, lanes()) == []
    assert aside(machine) == [1, 2, 3]
    back = [event(-2, "b"), event(-1, "c")]
    machine.release(back, "bc", convicted=True)
    taken = machine.take(0.0, lanes())
    assert ids(taken) == [-2, -1]
    machine.settle(taken, [DELIVERED] * 2, 0.0)
    assert machine.take(0.0, lanes()) == []
    machine.release([event(-3, "a")], "abc", convicted=True)
    assert [ids(machine.take(0.0, lanes())) for _ in range(2)] == [[-3], []]


def test_what_waits_for_room_stays_behind_what_is_taken_back() -> None:
    machine = delivery()
    machine.parked("a")
    machine.offer(page("a"))
    assert machine.take(0.0, lanes()) == []
    back = [event(-2, "a"), event(-1, "a")]
    machine.release(back, "a", convicted=True)
    machine.withdraw(back)
    assert machine.take(0.0, lanes()) == []
    assert aside(machine) == [1]


def test_what_comes_back_and_follows_another_aside_later_is_settled() -> None:
    """It stands behind one that is refused and one that is accepted only after that: who waits for it must not hang."""
    machine = delivery()
    machine.parked("ab")
    back = [event(-3, "a"), event(-2, "b"), event(-1, "b", "a")]
    machine.release(back, "ab", convicted=True)
    refused, accepted = machine.take(0.0, lanes(1)), machine.take(0.0, lanes(1))
    assert ids([*refused, *accepted]) == [-3, -2]
    machine.settle(refused, [REFUSED], 0.0)
    machine.settle(accepted, [DELIVERED], 0.0)
    assert aside(machine) == [-3, -1]
    machine.put_aside(list(machine.aside))
    assert machine.unsettled(back) == 0
