"""The delivery of one watcher as a state machine: any order of outcomes, and nothing is lost or sent out of order."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tablewatcher.errors import Reason
from tablewatcher.event import Event
from tablewatcher.listener.delivery import Delivery
from tablewatcher.sinks.base import DELIVERED, Outcome, Verdict
from tablewatcher.spec.model import Backoff

FAULT = Outcome(Verdict.RETRY, Reason.SINK_UNREACHABLE, "down", endpoint=True)
REFUSED = Outcome(Verdict.REJECTED, Reason.SINK_UNREACHABLE, "400")


@dataclass(frozen=True)
class Page:
    events: tuple[Event, ...]


def event(ring_id: int, key: str, old_key: str | None = None, op: str = "u") -> Event:
    return Event(ring_id, f"{ring_id:032x}", op, key, old_key, "", 0.0, "", None, b"{}")


def delivery() -> Delivery[Page]:
    return Delivery(Backoff(initial_milliseconds=1000, max_seconds=60), lambda: 0.5)


KEYS = st.sampled_from("abc")
SHAPES = st.lists(st.tuples(KEYS, st.none() | KEYS, st.sampled_from("uuuuuug")), min_size=1, max_size=6)


class Deliveries(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.delivery = delivery()
        self.now = 0.0
        self.offered: list[Event] = []
        self.flying: list[Event] = []
        self.done: list[Event] = []
        self.position = 0

    @rule(shapes=SHAPES)
    def offer(self, shapes: list[tuple[str, str | None, str]]) -> None:
        start = len(self.offered) + 1
        page = Page(tuple(event(start + nth, key, old, op) for nth, (key, old, op) in enumerate(shapes)))
        self.offered += page.events
        self.delivery.offer(page)

    @rule(limit=st.integers(1, 5))
    def take(self, limit: int) -> None:
        failures = self.delivery.circuit.failures
        taken = self.delivery.take(self.now, limit)
        assert len(taken) <= limit
        if failures:
            assert len(taken) + len(self.flying) <= max(1, len(self.flying)), "one probe at a time"
            assert not taken or self.now >= self.delivery.circuit.closed_until
        self.flying += taken

    @precondition(lambda self: self.flying)
    @rule(nth=st.integers(0, 20), outcome=st.sampled_from([DELIVERED, DELIVERED, FAULT, REFUSED]))
    def settle(self, nth: int, outcome: Outcome) -> None:
        sent = self.flying.pop(nth % len(self.flying))
        self.delivery.settle(sent, outcome, self.now)
        if outcome is DELIVERED:
            self.done.append(sent)

    @rule(seconds=st.sampled_from([0.1, 1.0, 61.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def commit(self) -> None:
        finished = self.delivery.finished()
        if finished is not None:
            page, undelivered = finished
            through = page.events[-1].ring_id if undelivered is None else undelivered - 1
            assert through >= self.position, "a position never goes back"
            self.position = through
        waiting = set(self.offered) - set(self.done)
        assert all(late.ring_id > self.position for late in waiting), "a position passed an undelivered event"

    @invariant()
    def one_in_flight_per_key(self) -> None:
        keys = [key for sent in self.flying for key in sent.lane_keys]
        assert len(keys) == len(set(keys))

    @invariant()
    def in_order_per_key(self) -> None:
        for key in "abc":
            ids = [sent.ring_id for sent in [*self.done, *self.flying] if key in sent.lane_keys]
            assert ids == sorted(ids)

    @invariant()
    def a_gap_is_a_barrier(self) -> None:
        for at, sent in enumerate([*self.done, *self.flying]):
            if sent.op == "g":
                before = {earlier.ring_id for earlier in [*self.done, *self.flying][:at]}
                assert before == set(range(1, sent.ring_id))

    @invariant()
    def it_knows_when_to_look_again(self) -> None:
        assert self.delivery.waiting == len(self.offered) - len(self.done)
        assert self.delivery.in_flight == len(self.flying)

    def teardown(self) -> None:
        """Whatever happened, an endpoint that accepts everything from now on gets all the rest."""
        for _ in range(4 * len(self.offered) + 10):
            for sent in self.flying:
                self.delivery.settle(sent, DELIVERED, self.now)
                self.done.append(sent)
            self.flying = []
            wake = self.delivery.wake_at()
            self.now = max(self.now, wake or 0.0)
            self.flying = self.delivery.take(self.now, 3)
        assert sorted(sent.ring_id for sent in self.done) == [sent.ring_id for sent in self.offered]
        if self.offered and self.position < len(self.offered):
            finished = self.delivery.finished()
            assert finished is not None
            assert finished == (finished[0], None)
            assert finished[0].events[-1] is self.offered[-1]


Deliveries.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestDeliveries = Deliveries.TestCase


def test_a_refused_probe_does_not_keep_the_sender_spinning() -> None:
    """The circuit is open and the only event waits for its own time: nothing happens before that."""
    machine = delivery()
    machine.offer(Page((event(1, "a"),)))
    for outcome in (FAULT, FAULT, REFUSED):
        wake = machine.wake_at() or 0.0
        (sent,) = machine.take(wake, 1)
        machine.settle(sent, outcome, wake)
    due = machine.wake_at()
    assert due is not None
    assert machine.take(due - 0.001, 1) == []
    assert machine.take(due, 1) == [sent]


def test_faults_of_one_moment_count_once() -> None:
    machine = delivery()
    machine.offer(Page(tuple(event(nth, str(nth)) for nth in range(1, 6))))
    for sent in machine.take(0.0, 5):
        machine.settle(sent, FAULT, 0.0)
    assert machine.circuit.failures == 1
    assert machine.take(0.4, 5) == []
    assert len(machine.take(0.5, 5)) == 1


def test_a_barrier_holds_pages_that_come_after_it() -> None:
    machine = delivery()
    machine.offer(Page((event(1, "a", op="g"),)))
    machine.offer(Page((event(2, "b"),)))
    (barrier,) = machine.take(0.0, 5)
    assert machine.take(0.0, 5) == []
    machine.settle(barrier, DELIVERED, 0.0)
    assert [sent.ring_id for sent in machine.take(0.0, 5)] == [2]
