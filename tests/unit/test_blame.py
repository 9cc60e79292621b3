"""Whose fault it is: nothing is given up unless the endpoint is seen to accept others."""

from __future__ import annotations

from dataclasses import replace

from tablewatcher.errors import Reason
from tablewatcher.listener.decide.delivery import Delivery, Parking
from tablewatcher.listener.relay.aside import that_fits
from tablewatcher.sinks.base import DELIVERED, Outcome, Verdict
from tablewatcher.spec.model import OnExhausted, Ordering

from .deliveries import FAULT, REFUSED, Endpoint, Page, aside, delivery, event, ids, lanes, page, shared


def test_a_poison_event_is_put_aside_with_its_followers() -> None:
    machine = delivery(attempts=3)
    endpoint = Endpoint(machine, a=REFUSED)
    machine.offer(page(*"abaab"))
    endpoint.feed(6, 6)
    assert aside(machine) == [1, 3, 4]
    assert machine.aside[0].attempts == 3
    assert machine.aside[0].outcome is REFUSED
    assert [parking.outcome for parking in machine.aside[1:]] == [None, None]
    machine.offer(page(*"ab", start=20))
    endpoint.run(5)
    assert aside(machine) == [1, 3, 4, 20]
    assert endpoint.accepted[-1] == 21
    machine.put_aside(list(machine.aside))
    assert machine.waiting == 0


def test_a_poison_event_that_breaks_the_endpoint_is_found_too() -> None:
    """500 to one event alone: each time the circuit opens, the next probe is another event, and shows that it works."""
    machine = delivery(attempts=3)
    endpoint = Endpoint(machine, a=FAULT)
    machine.offer(page(*"abcdefgh"))
    endpoint.run(30)
    assert sorted(endpoint.accepted) == [2, 3, 4, 5, 6, 7, 8]
    assert aside(machine) == [1]


def test_an_endpoint_that_refuses_everything_parks_nothing() -> None:
    """A wrong URL answers 404 to whatever it gets: after a few the circuit opens, one probe at a time."""
    machine = delivery(attempts=2, age=1e9)
    endpoint = Endpoint(machine, **dict.fromkeys("abcdefgh", REFUSED))
    machine.offer(page(*"abcdefghabcdefgh"))
    endpoint.run(100)
    assert machine.aside == []
    assert machine.circuit.failures > 10
    assert machine.circuit.last is REFUSED
    endpoint.bad = {}
    endpoint.run(100)
    assert sorted(endpoint.accepted) == list(range(1, 17))


def test_rows_that_are_refused_together_hold_up_the_others_for_a_moment() -> None:
    """As one statement makes them: another event far behind them shows that the endpoint is well."""
    for outcome in (REFUSED, FAULT):
        machine = delivery()
        bad = {f"bad{nth}": outcome for nth in range(40)}
        endpoint = Endpoint(machine, **bad)
        machine.offer(page(*bad, *(f"good{nth}" for nth in range(40)), *bad))
        while not endpoint.accepted and len(endpoint.attempts) < 1000:
            endpoint.run(1)
        assert endpoint.accepted
        assert endpoint.now < 60, "a wait for each of them, twice as long as the one before"
        endpoint.run(1000)
        assert sorted(endpoint.accepted) == list(range(41, 81))


def test_an_endpoint_that_is_down_parks_nothing() -> None:
    machine = delivery(attempts=1, age=1e9)
    endpoint = Endpoint(machine, **dict.fromkeys("abcdefgh", FAULT))
    machine.offer(page(*"abcdefgh"))
    endpoint.run(100)
    assert machine.aside == []
    assert len(endpoint.attempts) == 100


def test_a_bad_event_by_itself_is_tried_for_ever() -> None:
    machine = delivery(attempts=2)
    endpoint = Endpoint(machine, a=REFUSED)
    machine.offer(page("a"))
    endpoint.run(50)
    assert len(endpoint.attempts) == 50
    assert machine.aside == []
    endpoint.feed(2, 2)
    assert aside(machine) == [1]


def before_a_gap(machine: Delivery[Page], *keys: str) -> None:
    """One event a key, a gap, and an event of key `z` behind that."""
    events = [event(nth + 1, key) for nth, key in enumerate(keys)]
    gap = event(len(keys) + 1, "_", op="g")
    machine.offer(Page((*events, gap, event(len(keys) + 2, "z"))))


def test_a_bad_event_before_a_gap_is_judged_by_the_gap() -> None:
    """Nothing else could prove it guilty: what could, waits for it."""
    for outcome in (REFUSED, FAULT):
        machine = delivery(attempts=3)
        endpoint = Endpoint(machine, a=outcome)
        before_a_gap(machine, "a")
        endpoint.run(20)
        assert endpoint.attempts == [[1], [1], [1], [2], [3]], "the gap directly behind the last attempt"
        assert aside(machine) == [1]
        assert machine.aside[0].attempts == 3


def test_several_bad_events_before_a_gap_are_tried_in_one_go() -> None:
    machine = delivery(attempts=2)
    endpoint = Endpoint(machine, a=REFUSED, b=REFUSED)
    before_a_gap(machine, "a", "b", "a")
    endpoint.run(30)
    assert {tuple(attempt) for attempt in endpoint.attempts[-4:-2]} == {(1,), (2,)}
    assert endpoint.attempts[-2:] == [[4], [5]]
    assert sorted(aside(machine)) == [1, 2, 3]


def test_more_bad_events_before_a_gap_than_one_go_may_have_calls_are_judged_too() -> None:
    """A go of many follows as many more attempts with waits between them: nothing is held up for ever."""
    machine, bad = delivery(attempts=2), [f"k{nth}" for nth in range(100)]
    endpoint = Endpoint(machine, **dict.fromkeys([*bad, "_"], REFUSED))
    machine.offer(Page((*page(*bad).events, event(101, "_", op="g"), event(102, "_", op="g"), event(103, "good"))))
    endpoint.run(4000)
    assert endpoint.accepted == [103]
    assert sorted(aside(machine)) == list(range(1, 103))
    assert machine.waiting == 102
    gaps = [nth for nth, sent in enumerate(endpoint.attempts) if sent == [101]]
    first, second = gaps[:2]
    assert second - first > 100 + 3, "a go of 100 after each attempt, at an endpoint that may be down"


def test_a_bad_gap_is_judged_by_what_comes_after_it() -> None:
    """It would hold everything for ever."""
    for bad in ({"_": REFUSED}, {"_": REFUSED, "a": REFUSED}):
        machine = delivery(attempts=3)
        endpoint = Endpoint(machine, **bad)
        before_a_gap(machine, "a")
        endpoint.run(60)
        assert endpoint.accepted[-1] == 3
        assert sorted(aside(machine)) == ([2] if "a" not in bad else [1, 2])
        assert endpoint.attempts[-1] == [3]


def test_a_bad_gap_that_is_accepted_in_the_end_judges_what_it_has_passed() -> None:
    """Tried on, that would arrive behind it."""
    machine = delivery(attempts=2)
    endpoint = Endpoint(machine, a=REFUSED, _=REFUSED, z=REFUSED)
    before_a_gap(machine, "a")
    while endpoint.attempts[-2:] != [[3], [1]] or not machine.is_proving:
        endpoint.run(1)
    endpoint.bad = {"a": REFUSED}
    endpoint.run(1)
    assert endpoint.accepted == [2]
    assert aside(machine) == [1]


def test_what_was_refused_behind_a_bad_gap_is_tried_on_where_there_is_nothing_else() -> None:
    """It may be accepted some day, before anything else is written."""
    machine = delivery(attempts=2)
    endpoint = Endpoint(machine, a=REFUSED, _=REFUSED, z=REFUSED)
    before_a_gap(machine, "a")
    endpoint.run(60)
    assert machine.aside == []
    endpoint.bad = {"a": REFUSED, "_": REFUSED}
    endpoint.run(10)
    assert endpoint.accepted == [3]
    assert sorted(aside(machine)) == [1, 2]


def test_whoever_stands_behind_a_bad_gap_follows_it_at_once() -> None:
    """Brought back before anybody looked at it, the second gap would arrive behind what has passed it."""
    machine = delivery(attempts=2)
    endpoint = Endpoint(machine, _=REFUSED)
    machine.offer(Page((event(1, "_", op="g"), event(2, "_", op="t"), event(3, "a"), event(4, "_", op="g"))))
    while not endpoint.accepted:
        endpoint.run(1)
    assert endpoint.accepted == [3]
    assert aside(machine) == [1, 2]


def test_a_gap_judges_nobody_while_it_is_refused_too() -> None:
    machine = delivery(attempts=2, age=1e9)
    endpoint = Endpoint(machine, **dict.fromkeys(["a", "_", "z"], FAULT))
    before_a_gap(machine, "a")
    endpoint.run(60)
    while machine.is_proving:
        endpoint.run(1)
    assert machine.aside == []
    endpoint.bad = {}
    endpoint.run(60)
    assert endpoint.accepted == [1, 2, 3]


def test_no_gap_is_tried_while_the_endpoint_asks_for_a_wait() -> None:
    machine = delivery(attempts=2)
    endpoint = Endpoint(machine, a=REFUSED, _=REFUSED, z=REFUSED)
    before_a_gap(machine, "a")
    endpoint.run(20)
    while machine.is_proving:
        endpoint.run(1)
    endpoint.bad = {"a": replace(FAULT, retry_after=60.0)}
    endpoint.run(10)
    assert endpoint.accepted == []
    assert aside(machine) == []


def test_halt_lets_no_gap_by() -> None:
    machine = delivery(attempts=2, on_exhausted=OnExhausted.HALT)
    endpoint = Endpoint(machine, a=REFUSED)
    before_a_gap(machine, "a")
    endpoint.run(30)
    assert endpoint.accepted == []


def test_an_old_event_needs_one_proof_only() -> None:
    machine = delivery(attempts=1000, age=101.0)
    endpoint = Endpoint(machine, a=REFUSED)
    machine.offer(page("a"))
    endpoint.run(20)
    assert machine.aside == []
    endpoint.feed(2, 2)
    assert aside(machine) == [1]


def test_a_refused_login_is_about_the_event_where_others_are_accepted() -> None:
    refused = replace(FAULT, reason=Reason.SINK_AUTH_FAILED, answered=True)
    machine = delivery(attempts=3)
    endpoint = Endpoint(machine, a=refused)
    machine.offer(page("a"))
    endpoint.run(20)
    assert machine.aside == [], "the login may be wrong"
    endpoint.feed(2, 6)
    assert aside(machine) == [1]


def test_what_an_endpoint_says_of_itself_is_never_counted() -> None:
    busy = replace(FAULT, retry_after=1.0)
    login = replace(FAULT, reason=Reason.SINK_AUTH_FAILED)
    for outcome in (busy, login):
        machine = delivery(attempts=2)
        endpoint = Endpoint(machine, a=outcome)
        machine.offer(page("a"))
        endpoint.feed(2, 10)
        assert machine.aside == []


def test_a_right_that_is_missing_for_some_holds_up_no_others() -> None:
    """They are tried more and more rarely, as long as others are accepted, and told of."""
    machine = delivery(attempts=2)
    denied = replace(FAULT, reason=Reason.SINK_AUTH_FAILED)
    endpoint = Endpoint(machine, a=denied)
    machine.offer(page("a"))
    for second in range(300):
        machine.offer(page(f"good{second}", start=2 + second))
        endpoint.run(1)  # with another, time would pass until the next try of the first
        endpoint.now += 1.0
    assert machine.aside == []
    assert machine.refused is denied
    assert len(endpoint.accepted) > 250
    assert 5 < endpoint.attempts.count([1]) < 30


def test_what_is_told_of_one_that_is_down_is_no_refusal() -> None:
    machine = delivery()
    denied = replace(FAULT, reason=Reason.SINK_AUTH_FAILED)
    endpoint = Endpoint(machine, a=denied, b=denied)
    machine.offer(page(*"ab"))
    endpoint.run(20)
    assert machine.refused is None


def test_a_bad_event_in_a_batch_is_sought_and_the_others_go() -> None:
    """The batch is refused as a whole: each goes by itself, and only the bad one is blamed."""
    machine = delivery(attempts=2)
    endpoint = Endpoint(machine, c=REFUSED)
    machine.offer(page(*"abcde"))
    endpoint.run(30, shared(5))
    assert endpoint.attempts[0] == [1, 2, 3, 4, 5]
    assert all(len(attempt) == 1 for attempt in endpoint.attempts[1:])
    assert sorted(endpoint.accepted) == [1, 2, 4, 5]
    endpoint.feed(6, 3)
    assert aside(machine) == [3]


def test_what_was_not_sent_behind_a_refused_event_is_sent_in_company() -> None:
    machine = delivery()
    held = Outcome(Verdict.RETRY, Reason.SINK_UNREACHABLE, "not sent")
    machine.offer(page(*"aaab"))
    taken = machine.take(0.0, shared())
    machine.settle(taken, [REFUSED, held, held, DELIVERED], 0.0)
    assert ids(machine.take(9.0, shared())) == [1]
    machine.settle([taken[0]], [DELIVERED], 9.0)
    assert ids(machine.take(9.0, shared())) == [2, 3]


def test_a_batch_that_breaks_the_endpoint_is_taken_apart() -> None:
    machine = delivery(attempts=2)
    endpoint = Endpoint(machine, c=FAULT)
    machine.offer(page(*"abcdefgh"))
    endpoint.run(60, shared(4))
    endpoint.feed(9, 4)
    assert aside(machine) == [3]
    assert sorted(endpoint.accepted) == [1, 2, 4, 5, 6, 7, 8, 9, 10, 11, 12]


def test_halt_stops_at_the_event_until_it_is_accepted() -> None:
    machine = delivery(attempts=2, on_exhausted=OnExhausted.HALT)
    endpoint = Endpoint(machine, a=REFUSED)
    machine.offer(page("a"))
    endpoint.feed(2, 3)
    assert machine.halted is not None
    assert machine.halted.event.ring_id == 1
    accepted = list(endpoint.accepted)
    machine.offer(page(*"bcd", start=50))
    endpoint.run(20)
    assert endpoint.accepted == accepted, "nothing passes it"
    assert endpoint.attempts[-1] == [1]
    assert machine.aside == []
    endpoint.bad = {}
    endpoint.run(20)
    assert machine.halted is None
    assert machine.waiting == 0


def test_unordered_only_the_event_itself_is_put_aside() -> None:
    machine = delivery(attempts=2, ordering=Ordering.UNORDERED)
    endpoint = Endpoint(machine, a=REFUSED)
    machine.offer(page("a"))
    endpoint.feed(2, 3)
    assert aside(machine) == [1]
    endpoint.bad = {}
    machine.offer(page("a", start=9))
    endpoint.run(1)
    assert endpoint.accepted[-1] == 9


def test_a_key_change_holds_both_keys() -> None:
    """Behind an event put aside, a change of the key is put aside, and what follows under the new key with it."""
    machine = delivery(attempts=2)
    endpoint = Endpoint(machine, a=REFUSED)
    machine.offer(Page((event(1, "a"), event(2, "b", "a"), event(3, "b"), event(4, "c"))))
    endpoint.feed(5, 3)
    assert aside(machine) == [1, 2, 3]
    assert 4 in endpoint.accepted


def test_what_comes_back_and_is_refused_goes_back_at_once() -> None:
    """It has been found guilty before. In a quiet stream it would wait for a proof for ever."""
    machine = delivery(attempts=1000)
    endpoint = Endpoint(machine, a=REFUSED)
    machine.parked(["a"])
    machine.release(page(*"aa").events, ["a"], convicted=True)
    machine.offer(page("a", start=3))
    endpoint.run(5)
    assert endpoint.attempts == [[1]]
    assert aside(machine) == [1, 2, 3]
    machine.put_aside(list(machine.aside))
    assert machine.is_quiet
    endpoint.bad = {}
    machine.release(page(*"aaa").events, ["a"], convicted=True)
    endpoint.run(5)
    assert endpoint.accepted == [1, 2, 3]


def test_a_replay_into_a_wrong_url_parks_nothing() -> None:
    machine = delivery(attempts=1)
    endpoint = Endpoint(machine, **dict.fromkeys("abcdefgh", REFUSED))
    machine.release(page(*"abcdefgh").events)
    endpoint.run(50)
    assert aside(machine) == []


def test_keys_put_aside_before_a_restart_stay_so() -> None:
    machine = delivery()
    machine.parked(["a"])
    machine.offer(page(*"abab"))
    assert ids(machine.take(0.0, lanes())) == [2]
    assert aside(machine) == [1, 3]
    machine.put_aside(list(machine.aside))
    machine.release([event(0, "a"), *page("a").events], ["a"])
    assert ids(machine.take(0.0, shared())) == [0, 1]


def test_what_is_put_aside_has_bounded_room() -> None:
    """Beyond it events stay where they are, in the ring; what came back and fails again has its place already."""
    events = [event(nth, "a", body=b"x" * 10) for nth in range(5)]
    rows = [Parking(each) for each in events]
    assert that_fits(rows, 50, ()) == rows
    assert that_fits(rows, 49, ()) == rows[:4]
    assert that_fits(rows, 9, ()) == []
    assert that_fits(rows, 10, events[:3]) == rows[:4]
    assert that_fits(rows, -5, events) == rows
