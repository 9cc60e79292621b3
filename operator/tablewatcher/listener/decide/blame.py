"""Whose fault a failed attempt is: the endpoint's or the event's. Pure: time and chance are arguments.

An event alone is at fault only where the endpoint has accepted others between its failures: with nothing accepted, a
wrong URL and a bad event look the same. So a failure is counted against an event only when it was sent by itself,
and once more only when another event has been accepted since the last count. While nothing is accepted the circuit is
open: one probe at a time, after a growing wait, and nothing is given up.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from ...errors import Reason
from ...event import Event
from ...sinks.base import Outcome, Verdict
from ...spec.model import DeliveryPolicy
from .retry import delay

# So many calls refused in a row, with none accepted between them, are the endpoint's doing.
REFUSED_IN_A_ROW = 5


@dataclass(slots=True)
class Circuit:
    """The endpoint's state. failures: faults in a row; since: when the first of them came."""

    failures: int = 0
    since: float = 0.0
    closed_until: float = 0.0
    last: Outcome | None = None


@dataclass(slots=True)
class Record:
    """The failures of one event: all, those that may be its own fault, and those that count against it.

    passed: those that cannot be its own, between which others were accepted. accepted: how much the endpoint had
    accepted when it last counted (in company: when it last failed).
    """

    failures: int = 0
    alone: int = 0
    counted: int = 0
    passed: int = 0
    accepted: int = 0
    last: Outcome | None = None


@dataclass(slots=True)
class Blame:
    """Keeps the records. `chance` gives numbers in [0, 1) for jitter, `age` the seconds since an event's capture.

    alone: events that go by themselves from now on, since in company they have failed.
    """

    policy: DeliveryPolicy
    chance: Callable[[], float]
    age: Callable[[Event], float]
    circuit: Circuit = field(default_factory=Circuit)
    records: dict[Event, Record] = field(default_factory=dict)
    alone: set[Event] = field(default_factory=set)
    accepted: int = 0
    _refused: set[Event] = field(default_factory=set)

    def delivered(self, events: Sequence[Event]) -> None:
        """The endpoint has accepted these."""
        self.circuit.failures = 0
        self.accepted += len(events)
        if self._refused:
            self._refused.clear()
        if self.records:
            for event in events:
                self.forget(event)

    def looks_well(self) -> None:
        """A look at the endpoint succeeds, after one that did not: the next probe need not wait any longer.

        Unless the endpoint itself has named a time.
        """
        if self.circuit.last is not None and self.circuit.last.retry_after is None:
            self.circuit.closed_until = float("-inf")

    def forget(self, event: Event) -> None:
        """This event is delivered or put aside."""
        self.records.pop(event, None)
        self.alone.discard(event)

    def failed(self, event: Event, outcome: Outcome, now: float, *, company: int, first: bool) -> float | None:
        """Notes a failure; seconds until this event may go again, None: as soon as the endpoint may be tried.

        company: how many events its call had. first: the first failure of its call.
        """
        record = self.records.get(event)
        known = record is not None
        if record is None:
            record = self.records[event] = Record()
        record.failures += 1
        record.last = outcome
        accepts_others = known and self.accepted > record.accepted
        if company > 1:
            record.accepted = self.accepted
            # Else it was not even sent, behind one that failed: it may go in company again.
            if outcome.verdict is Verdict.REJECTED or (outcome.endpoint and accepts_others):
                self.alone.add(event)
        elif may_be_the_event(outcome):
            record.alone += 1
            if not record.counted or accepts_others:
                record.counted += 1
                record.accepted = self.accepted
        elif not record.passed or accepts_others:
            record.passed += 1
            record.accepted = self.accepted
        if outcome.endpoint:
            self._endpoint_failed(outcome, now)
            if company > 1:
                return None
            # Not at once: another one is the next probe, or this one would keep a sound endpoint's circuit open.
            return delay(self.policy.backoff, max(record.counted, record.passed, 1), self.chance())
        if first and outcome.verdict is Verdict.REJECTED and len(self._refused) < REFUSED_IN_A_ROW:
            self._refused.add(event)
        if self.circuit.failures or len(self._refused) >= REFUSED_IN_A_ROW:
            self._endpoint_failed(outcome, now)
        return delay(self.policy.backoff, record.failures, self.chance(), outcome.retry_after)

    def refused(self) -> Outcome | None:
        """What was last said of the first event that has been refused more than once and waits; None: there is none."""
        return next((each.last for each in self.records.values() if _is_refused(each)), None)

    def is_exhausted(self, event: Event) -> bool:
        """Whether an event has failed as often as it may, or for as long, while the endpoint accepted others."""
        return self._are_enough(event, self.records[event].counted)

    def is_suspect(self, event: Event) -> bool:
        """Whether an event has failed by itself as often as it may, or for as long, whatever the endpoint accepted."""
        return event in self.records and self._are_enough(event, self.records[event].alone)

    def lacks_proof(self, event: Event) -> bool:
        """Whether the last failure of an event may be its own, and the endpoint has accepted nothing since."""
        record = self.records.get(event)
        return record is not None and record.counted > 0 and self.accepted <= record.accepted

    def _are_enough(self, event: Event, failures: int) -> bool:
        return failures >= 2 and (failures >= self.policy.max_attempts or self.age(event) > self.policy.max_age_seconds)

    def _endpoint_failed(self, outcome: Outcome, now: float) -> None:
        circuit = self.circuit
        circuit.last = outcome
        if circuit.failures and now < circuit.closed_until:
            return  # sent before the circuit opened: the same fault, counted once
        if not circuit.failures:
            circuit.since = now
        circuit.failures += 1
        wait = delay(self.policy.backoff, circuit.failures, self.chance(), outcome.retry_after)
        circuit.closed_until = now + wait


def _is_refused(record: Record) -> bool:
    """Whether the sink has refused an event more than once: itself, or a right or a place for it and not for others."""
    if record.last is None:
        return False
    if record.last.verdict is Verdict.REJECTED:
        return record.failures > 1
    return record.last.reason is not Reason.SINK_UNREACHABLE and max(record.counted, record.passed) > 1


def may_be_the_event(outcome: Outcome) -> bool:
    """Not a time to come back at, nor what is known of the sink as a whole: a right on NATS, a stream that is gone.

    What an endpoint answers to one event may be, even that the login is refused: a firewall before it says 403 to what
    it takes for an attack, and who checks a signature over JSON that was written anew says 401.
    """
    about_all = outcome.endpoint and outcome.reason is not Reason.SINK_UNREACHABLE and not outcome.answered
    return outcome.retry_after is None and not about_all
