"""The delivery of one watcher as a state machine: any order of outcomes, and nothing is lost or sent out of order."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tablewatcher.event import Event
from tablewatcher.listener.decide.delivery import BARRIERS, Delivery
from tablewatcher.sinks.base import DELIVERED, Limits, Outcome
from tablewatcher.sinks.http import status as http_status

from .deliveries import FAULT, REFUSED, Page, delivery, event, ids, lanes, page, shared

KEYS = st.sampled_from("abc")
SHAPES = st.lists(st.tuples(KEYS, st.none() | KEYS, st.sampled_from("uuuuuugt")), min_size=1, max_size=6)
OUTCOMES = st.lists(st.sampled_from([DELIVERED, DELIVERED, FAULT, REFUSED, REFUSED]), min_size=5, max_size=5)


class Deliveries(RuleBasedStateMachine):
    """`rows` are the events put aside, as a table keeps them; `back` those of them that were released again.

    freed: events that were to be put aside and came back with those of their keys, before they were written down.
    """

    def __init__(self) -> None:
        super().__init__()
        self.delivery: Delivery[Page] = delivery(attempts=2)
        self.is_shared = False
        self.now = 0.0
        self.offered: list[Event] = []
        self.flying: list[list[Event]] = []
        self.done: list[Event] = []
        self.rows: list[Event] = []
        self.earlier: list[Event] = []
        self.back: list[Event] = []
        self.freed: set[Event] = set()
        self.convicted = False
        self.written: set[Event] = set()
        self.position = 0

    @initialize(is_shared=st.booleans(), attempts=st.sampled_from([2, 2, 1000]), earlier=st.lists(KEYS, max_size=6))
    def begin(self, is_shared: bool, attempts: int, earlier: list[str]) -> None:
        """earlier: keys of events that another lease has put aside."""
        self.is_shared, self.delivery = is_shared, delivery(attempts=attempts)
        self.rows = [event(nth - len(earlier), key) for nth, key in enumerate(earlier)]
        self.earlier = list(self.rows)
        self.delivery.parked(earlier)

    @rule(shapes=SHAPES)
    def offer(self, shapes: list[tuple[str, str | None, str]]) -> None:
        start = len(self.offered) + 1
        found = [
            event(start + nth, "_", op=op) if op in BARRIERS else event(start + nth, key, old, op)
            for nth, (key, old, op) in enumerate(shapes)
        ]
        self.offered += found
        self.delivery.offer(Page(tuple(found)))

    @rule(limit=st.integers(1, 5))
    def take(self, limit: int) -> None:
        circuit, proving = self.delivery.circuit, self.delivery.is_proving
        taken = self.delivery.take(self.now, self.limits(limit))
        assert len(taken) <= limit
        if not taken:
            wake = self.delivery.wake_at()
            assert wake is None or wake > self.now, "the sender would look again at once, and again"
            return
        if circuit.failures or proving:
            assert not self.flying, "one probe at a time"
            assert len(taken) == 1
            assert self.now >= circuit.closed_until or proving
        for sent in taken:
            if sent.op in BARRIERS and sent not in self.back and sent not in self.freed:
                # What comes back from being put aside has left the order of barriers: it may go beside one.
                out_of_order = self.freed.union(self.back)
                assert [found for found in taken if found not in out_of_order] == [sent]
                assert not [found for call in self.flying for found in call if found not in out_of_order]
                before = set(self.offered[: sent.ring_id - 1]) - self.freed
                # In the stead of others, all of which have failed by themselves as often as they may.
                assert proving or set(self.settled()) >= before, "a barrier passed what is before it"
        self.flying.append(taken)

    @precondition(lambda self: self.flying)
    @rule(nth=st.integers(0, 20), outcomes=OUTCOMES)
    def settle(self, nth: int, outcomes: list[Outcome]) -> None:
        sent = self.flying.pop(nth % len(self.flying))
        told = self.as_a_sink_may(sent, outcomes[: len(sent)])
        self.delivery.settle(sent, told, self.now)
        self.done += [found for found, outcome in zip(sent, told, strict=True) if outcome is DELIVERED]
        self.note_resent()

    @precondition(lambda self: not self.flying and self.delivery.waiting)
    @rule(outcomes=OUTCOMES)
    def serve(self, outcomes: list[Outcome]) -> None:
        """The next call, whenever it may be made, and what comes of it."""
        self.now = max(self.now, self.delivery.wake_at() or 0.0)
        self.take(len(outcomes))
        if self.flying:
            self.settle(0, outcomes)

    @rule(seconds=st.sampled_from([0.1, 1.0, 61.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def looks_well(self) -> None:
        self.delivery.looks_well()

    @rule(number=st.integers(1, 5))
    def write(self, number: int) -> None:
        """Events to be put aside are written down; one that came back keeps its place."""
        written = list(self.delivery.aside[:number])
        self.written.update(parking.event for parking in written)
        self.rows += [parking.event for parking in written if parking.event not in self.rows]
        self.back = [found for found in self.back if found not in [parking.event for parking in written]]
        self.delivery.put_aside(written)

    @precondition(lambda self: self.rows and not self.back)
    @rule(number=st.sampled_from([1, 2, 3, 20]), convicted=st.booleans(), full=st.booleans())
    def release(self, number: int, convicted: bool = False, full: bool = False) -> None:
        """full: there is no room for what is not written down by then."""
        self.write(0 if full else 1000)
        released, left = self.rows[:number], self.rows[number:]
        unparked = {key for found in released for key in found.lane_keys}
        unparked -= {key for found in left for key in found.lane_keys}
        self.back, self.convicted = list(released), convicted
        before = {parking.event for parking in self.delivery.aside}
        self.delivery.release(released, unparked, convicted=convicted)
        self.freed |= before.difference(parking.event for parking in self.delivery.aside)

    @precondition(lambda self: self.back and self.convicted)
    @rule()
    def withdraw(self) -> None:
        """What came back is aside again, but for what is under way: that follows when it fails."""
        self.delivery.withdraw(self.back)
        self.note_withdrawn()
        under_way = {found for call in self.flying for found in call}
        aside = {parking.event for parking in self.delivery.aside}
        assert set(self.back) <= under_way | aside

    @rule()
    def commit(self) -> None:
        finished = self.delivery.finished()
        if finished is not None:
            found, undelivered = finished
            through = found.events[-1].ring_id if undelivered is None else undelivered - 1
            assert through >= self.position, "a position never goes back"
            self.position = through
        waiting = set(self.offered) - set(self.done) - set(self.rows)
        assert all(late.ring_id > self.position for late in waiting), "a position passed an undelivered event"

    @invariant()
    def a_key_is_in_one_call_only(self) -> None:
        keys = [{key for sent in call for key in sent.lane_keys} for call in self.flying]
        assert sum(map(len, keys)) == len(set().union(*keys))
        if not self.is_shared:
            assert all(
                sum(len(sent.lane_keys) for sent in call) == len(held)
                for call, held in zip(self.flying, keys, strict=True)
            )

    @invariant()
    def in_order_per_key(self) -> None:
        for key in "abc_":
            seen = [sent.ring_id for sent in self.sent() if key in sent.lane_keys]
            assert seen == sorted(seen)

    @invariant()
    def nobody_overtakes_what_is_put_aside(self) -> None:
        sent = self.sent()
        for found in self.settled():
            if found not in self.done and found not in self.back:
                for key in found.lane_keys:
                    assert all(other.ring_id < found.ring_id for other in sent if key in other.lane_keys)

    @invariant()
    def a_barrier_holds_what_is_after_it(self) -> None:
        sent = [found for found in self.sent() if found not in self.rows and found not in self.freed]
        for at, barrier in enumerate(sent):
            # One that was put aside has been passed by what came after it.
            if barrier.op in BARRIERS and barrier not in self.written:
                assert not [early for early in sent[:at] if early.ring_id > barrier.ring_id and early not in self.rows]

    @invariant()
    def it_counts(self) -> None:
        rest = set(self.offered) - set(self.done) - set(self.rows)
        assert self.delivery.waiting == len(rest) + len(self.back)
        assert self.delivery.in_flight == sum(map(len, self.flying))

    def limits(self, limit: int) -> Limits:
        return shared(limit) if self.is_shared else lanes(limit)

    def sent(self) -> list[Event]:
        return [*self.done, *(sent for call in self.flying for sent in call)]

    def settled(self) -> list[Event]:
        return [*self.done, *self.rows, *(parking.event for parking in self.delivery.aside)]

    def as_a_sink_may(self, sent: list[Event], outcomes: list[Outcome]) -> list[Outcome]:
        """After one that is not delivered, no later one of the same key is."""
        failed: dict[str, Outcome] = {}
        told = []
        for found, given in zip(sent, outcomes, strict=True):
            held = [failed[key] for key in found.lane_keys if key in failed]
            outcome = held[0] if held and given is DELIVERED else given
            if outcome is not DELIVERED:
                failed |= dict.fromkeys(found.lane_keys, outcome)
            told.append(outcome)
        return told

    def note_withdrawn(self) -> None:
        """They have kept their rows."""
        self.back = [found for found in self.back if found not in self.delivery.again.withdrawn]
        self.delivery.again.withdrawn.clear()

    def note_resent(self) -> None:
        self.note_withdrawn()
        for found in self.delivery.again.delivered:
            self.rows.remove(found)
            self.back.remove(found)
        self.delivery.again.delivered.clear()

    def teardown(self) -> None:
        """Whatever happened, an endpoint that accepts everything from now on gets all the rest."""
        for _ in range(4 * len(self.offered) + 4 * len(self.earlier) + 10):
            for sent in self.flying:
                self.delivery.settle(sent, [DELIVERED] * len(sent), self.now)
                self.done += sent
            self.note_resent()
            self.flying = []
            self.write(1000)
            if self.rows and not self.back:
                self.release(1000)
            wake = self.delivery.wake_at()
            self.now = max(self.now, wake or 0.0)
            taken = self.delivery.take(self.now, self.limits(3))
            self.flying = [taken] if taken else []
        assert sorted(ids(self.done)) == ids(self.earlier) + ids(self.offered)
        self.in_order_per_key()
        if self.offered and self.position < len(self.offered):
            finished = self.delivery.finished()
            assert finished is not None
            assert finished == (finished[0], None)
            assert finished[0].events[-1] is self.offered[-1]


Deliveries.TestCase.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
TestDeliveries = Deliveries.TestCase


def test_a_refused_probe_does_not_keep_the_sender_spinning() -> None:
    """The circuit is open and the only event waits for its own time: nothing happens before that."""
    machine = delivery()
    machine.offer(page("a"))
    for outcome in (FAULT, FAULT, REFUSED):
        wake = machine.wake_at() or 0.0
        (sent,) = machine.take(wake, lanes())
        machine.settle([sent], [outcome], wake)
    due = machine.wake_at()
    assert due is not None
    assert machine.take(due - 0.001, lanes()) == []
    assert machine.take(due, lanes()) == [sent]


@pytest.mark.parametrize("value", ["0", "Thu, 01 Jan 2026 00:00:00 GMT"])
def test_to_be_asked_for_no_wait_leaves_the_growing_one(value: str) -> None:
    machine, now = delivery(jitter=0.99), 0.0
    machine.offer(page(*"abc"))
    waits = []
    for _ in range(6):
        sent = machine.take(now, lanes())
        machine.settle(sent, [http_status.outcome(503, value, 1_800_000_000.0)] * len(sent), now)
        waits.append((machine.wake_at() or now) - now)
        now += waits[-1]
    assert waits == sorted(waits)
    assert waits[0] > 0
    assert waits[-1] > 10


@pytest.mark.parametrize("asked", [None, 600.0])
def test_an_endpoint_that_looks_well_again_is_tried_at_once_unless_it_has_named_a_time(asked: float | None) -> None:
    """However long the wait had grown while it was away; one probe is all it gets before it has accepted something."""
    machine, now = delivery(jitter=0.99), 0.0
    machine.offer(page(*"abc"))
    for _ in range(6):
        now = machine.wake_at() or now
        sent = machine.take(now, lanes())
        machine.settle(sent, [replace(FAULT, retry_after=asked)] * len(sent), now)
    assert (machine.wake_at() or now) - now > 20
    machine.looks_well()
    probe = machine.take(now, lanes())
    assert len(probe) == (0 if asked else 1)
    if probe:
        machine.settle(probe, [FAULT], now)
        assert machine.take(now, lanes()) == []
        assert (machine.wake_at() or now) - now > 20


def test_faults_of_one_moment_count_once() -> None:
    machine = delivery()
    machine.offer(page(*"12345"))
    taken = machine.take(0.0, lanes())
    machine.settle(taken, [FAULT] * 5, 0.0)
    assert machine.circuit.failures == 1
    assert machine.take(0.4, lanes()) == []
    assert len(machine.take(0.5, lanes())) == 1
    # One probe at a time, however long it is under way; once it is delivered, all the others.
    assert machine.take(60.0, lanes()) == []


def test_a_probe_that_is_delivered_lets_the_others_go() -> None:
    machine = delivery()
    machine.offer(page(*"12345"))
    machine.settle(machine.take(0.0, lanes()), [FAULT] * 5, 0.0)
    machine.settle(machine.take(60.0, lanes()), [DELIVERED], 60.0)
    assert len(machine.take(60.0, lanes())) == 4


def test_a_barrier_holds_pages_that_come_after_it() -> None:
    machine = delivery()
    machine.offer(Page((event(1, "a", op="g"),)))
    machine.offer(Page((event(2, "b"),)))
    (barrier,) = machine.take(0.0, lanes())
    assert machine.take(0.0, lanes()) == []
    machine.settle([barrier], [DELIVERED], 0.0)
    assert ids(machine.take(0.0, lanes())) == [2]
