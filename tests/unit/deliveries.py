"""Events, pages and outcomes for tests of the delivery."""

from __future__ import annotations

from dataclasses import dataclass

from tablewatcher.errors import Reason
from tablewatcher.event import Event
from tablewatcher.listener.decide.delivery import Delivery
from tablewatcher.sinks.base import Limits, Outcome, Verdict
from tablewatcher.spec.model import Backoff, DeliveryPolicy, OnExhausted, Ordering

FAULT = Outcome(Verdict.RETRY, Reason.SINK_UNREACHABLE, "down", endpoint=True)
REFUSED = Outcome(Verdict.REJECTED, Reason.SINK_UNREACHABLE, "400")


@dataclass(frozen=True)
class Page:
    events: tuple[Event, ...]


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
