"""Events, pages and outcomes for tests of the delivery."""

from __future__ import annotations

from dataclasses import dataclass, replace

from tablewatcher.errors import Reason
from tablewatcher.event import Event
from tablewatcher.listener.decide.delivery import Delivery
from tablewatcher.sinks.base import DELIVERED, Limits, Outcome, Verdict
from tablewatcher.spec.model import Backoff, DeliveryPolicy, OnExhausted, Ordering

FAULT = Outcome(Verdict.RETRY, Reason.SINK_UNREACHABLE, "down", endpoint=True)
REFUSED = Outcome(Verdict.REJECTED, Reason.SINK_UNREACHABLE, "400")


@dataclass(frozen=True)
class Page:
    events: tuple[Event, ...]

    def with_events(self, events: tuple[Event, ...]) -> Page:
        return replace(self, events=events)


def event(ring_id: int, key: str, old_key: str | None = None, op: str = "u", body: bytes = b"{}") -> Event:
    return Event(ring_id, f"{ring_id:032x}", op, key, old_key, "", 0.0, "", None, body)


def page(*keys: str, start: int = 1) -> Page:
    """A page with one update a key."""
    return Page(tuple(event(start + nth, key) for nth, key in enumerate(keys)))


def delivery(
    *,
    attempts: int = 1000,
    on_exhausted: OnExhausted = OnExhausted.PARK,
    ordering: Ordering = Ordering.PER_KEY,
    age: float = 0.0,
    jitter: float = 0.5,
) -> Delivery[Page]:
    """First wait 1 s times `jitter`, at most 60 s."""
    policy = DeliveryPolicy(
        backoff=Backoff(initial_milliseconds=1000, max_seconds=60),
        max_attempts=attempts,
        max_age_seconds=100,
        on_exhausted=on_exhausted,
        ordering=ordering,
    )
    return Delivery(policy, lambda: jitter, lambda _: age)


def lanes(batch: int = 100, concurrency: int = 16) -> Limits:
    """Of a sink that takes one event of a key at a time."""
    return Limits(max_batch=batch, concurrency=concurrency)


def shared(batch: int = 100, concurrency: int = 16) -> Limits:
    """Of a sink that keeps the order within a call."""
    return Limits(max_batch=batch, concurrency=concurrency, ordered=True)


def ids(events: list[Event]) -> list[int]:
    return [found.ring_id for found in events]


class Endpoint:
    """Answers each event with what `bad` has for its key, and accepts all others; time passes as the delivery wants.

    full: nothing more will be read until something is settled.
    """

    def __init__(self, machine: Delivery[Page], **bad: Outcome) -> None:
        self.machine, self.bad, self.now = machine, bad, 0.0
        self.full = False
        self.accepted: list[int] = []
        self.attempts: list[list[int]] = []

    def run(self, calls: int, limits: Limits | None = None) -> None:
        """Makes so many calls, one at a time, or fewer where nothing more is to be sent."""
        for _ in range(calls):
            taken = self.machine.take(self.now, limits or lanes(1), full=self.full)
            if not taken and (wake := self.machine.wake_at()) is not None:
                self.now = max(self.now, wake)
                taken = self.machine.take(self.now, limits or lanes(1), full=self.full)
            if not taken:
                return
            self.attempts.append(ids(taken))
            outcomes = [self.answer(sent) for sent in taken]
            if limits is not None and any(outcome is not DELIVERED for outcome in outcomes):
                outcomes = [next(outcome for outcome in outcomes if outcome is not DELIVERED)] * len(taken)
            self.accepted += [
                sent.ring_id for sent, outcome in zip(taken, outcomes, strict=True) if outcome is DELIVERED
            ]
            self.machine.settle(taken, outcomes, self.now)

    def answer(self, sent: Event) -> Outcome:
        return self.bad.get(sent.key, DELIVERED)

    def feed(self, start: int, number: int) -> None:
        """Offers good events and delivers each while bad ones are tried again."""
        for nth in range(start, start + number):
            self.machine.offer(page(f"good{nth}", start=nth))
            self.run(2)
            self.now += 100.0


def aside(machine: Delivery[Page]) -> list[int]:
    return [parking.event.ring_id for parking in machine.aside]
