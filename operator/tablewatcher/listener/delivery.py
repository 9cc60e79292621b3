"""What may be sent now, and how far delivery has come. Pure: a state machine over events, outcomes and the time.

Order: every key has a line; an event may be sent when it stands first in the lines of all its keys (two, where an
update changed the key), and leaves them when it is delivered. A gap event waits for everything before it and holds
everything after it.

Faults: while the endpoint is at fault nothing is sent but one probe at a time, after a growing wait; nothing is given
up. A fault of one event makes that event wait, and with it only the later events of its keys.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from ..event import Event
from ..sinks.base import Outcome, Verdict
from ..spec.model import Backoff
from .retry import delay

BARRIERS = frozenset("g")


class PageLike(Protocol):
    """A run of events that ends at a known place."""

    @property
    def events(self) -> tuple[Event, ...]: ...


P = TypeVar("P", bound=PageLike)


@dataclass(slots=True, eq=False)
class _OpenPage(Generic[P]):
    page: P
    outstanding: dict[Event, None]


@dataclass(slots=True)
class Circuit:
    """The endpoint's state. failures: faults in a row; since: when the first of them came."""

    failures: int = 0
    since: float = 0.0
    closed_until: float = 0.0
    last: Outcome | None = None


@dataclass(slots=True)
class Delivery(Generic[P]):
    """The delivery of one watcher. `chance` gives numbers in [0, 1) for jitter."""

    backoff: Backoff
    chance: Callable[[], float]
    circuit: Circuit = field(default_factory=Circuit)
    in_flight: int = 0
    _pages: deque[_OpenPage[P]] = field(default_factory=deque)
    _page_of: dict[Event, _OpenPage[P]] = field(default_factory=dict)
    _lines: dict[str, list[Event]] = field(default_factory=dict)
    _ready: deque[Event] = field(default_factory=deque)
    _later: list[tuple[float, int, Event]] = field(default_factory=list)
    _attempts: dict[Event, int] = field(default_factory=dict)
    _barred: deque[Event] = field(default_factory=deque)
    _barrier: Event | None = None

    @property
    def waiting(self) -> int:
        """Events taken in and not yet delivered."""
        return len(self._page_of)

    @property
    def oldest(self) -> Event | None:
        """The first event that is not delivered."""
        return next((next(iter(opened.outstanding)) for opened in self._pages if opened.outstanding), None)

    def offer(self, page: P) -> None:
        """Takes in the next page, in order of delivery."""
        opened = _OpenPage(page, dict.fromkeys(page.events))
        self._pages.append(opened)
        for event in page.events:
            self._page_of[event] = opened
        self._admit(page.events)

    def take(self, now: float, limit: int) -> list[Event]:
        """Up to `limit` events to send now; each counts as in flight until it is settled."""
        if self.circuit.failures:
            if now < self.circuit.closed_until or self.in_flight:
                return []
            limit = 1
        while self._later and self._later[0][0] <= now:
            self._ready.appendleft(heapq.heappop(self._later)[2])
        taken = [self._ready.popleft() for _ in range(min(limit, len(self._ready)))]
        self.in_flight += len(taken)
        return taken

    def settle(self, event: Event, outcome: Outcome, now: float) -> None:
        """Notes what came of sending `event`."""
        self.in_flight -= 1
        if outcome.verdict is Verdict.DELIVERED:
            self.circuit.failures = 0
            self._attempts.pop(event, None)
            self._leave(event)
        elif outcome.endpoint:
            self._endpoint_failed(outcome, now)
            self._ready.appendleft(event)
        else:
            attempt = self._attempts[event] = self._attempts.get(event, 0) + 1
            wait = delay(self.backoff, attempt, self.chance(), outcome.retry_after)
            heapq.heappush(self._later, (now + wait, event.ring_id, event))

    def wake_at(self) -> float | None:
        """When `take` may give something that it does not give now; None: only after an outcome or an offer."""
        if self.circuit.failures:
            if self.in_flight or not (self._ready or self._later):
                return None
            # A refused probe waits for its own time, which may be long after the circuit's.
            return self.circuit.closed_until if self._ready else max(self.circuit.closed_until, self._later[0][0])
        return self._later[0][0] if self._later else None

    def finished(self) -> tuple[P, int | None] | None:
        """The page up to which all is delivered: (page, None), or within it all before a ring id; None: no news.

        Pages delivered to their end are forgotten by this call.
        """
        done: P | None = None
        while self._pages and not self._pages[0].outstanding:
            done = self._pages.popleft().page
        if self._pages and len(self._pages[0].outstanding) < len(self._pages[0].page.events):
            first = next(iter(self._pages[0].outstanding))
            if first is not self._pages[0].page.events[0]:
                return self._pages[0].page, first.ring_id
        return None if done is None else (done, None)

    def keep_overtaken(self) -> int:
        """Gives up every event after the last one delivered; the number of those before it that still wait.

        For an end without repeats: once these are delivered too, what is delivered has no holes. Nothing may be in
        flight. What is given up stays undelivered for `finished`.
        """
        given_up: set[Event] = set()
        for event in reversed([event for opened in self._pages for event in opened.page.events]):
            if self._page_of.pop(event, None) is None:
                break
            given_up.add(event)
        self._ready = deque(event for event in self._ready if event not in given_up)
        self._later = [entry for entry in self._later if entry[2] not in given_up]
        heapq.heapify(self._later)
        self._barred.clear()  # nothing passes a barrier: all of it is given up
        for key, line in list(self._lines.items()):
            kept = [event for event in line if event not in given_up]
            if kept:
                self._lines[key] = kept
            else:
                del self._lines[key]
        return self.waiting

    def _admit(self, events: Iterable[Event]) -> None:
        for event in events:
            if self._barred or self._barrier is not None or event.op in BARRIERS:
                self._barred.append(event)
            else:
                self._line_up(event)
        self._pass_barrier()

    def _line_up(self, event: Event) -> None:
        first = True
        # Lists, not deques: nearly every line has one event, and a deque costs a block of 64 places.
        for key in event.lane_keys:
            line = self._lines.get(key)
            if line is None:
                self._lines[key] = [event]
            else:
                line.append(event)
                first = False
        if first:
            self._ready.append(event)

    def _pass_barrier(self) -> None:
        """Lets barred events in: a barrier when it is the only one left, what follows it when it is gone."""
        while self._barred and not self._lines:
            event = self._barred.popleft()
            self._line_up(event)
            if event.op in BARRIERS:
                self._barrier = event
                return
            while self._barred and self._barred[0].op not in BARRIERS:
                self._line_up(self._barred.popleft())

    def _leave(self, event: Event) -> None:
        del self._page_of.pop(event).outstanding[event]
        for key in event.lane_keys:
            line = self._lines[key]
            if len(line) == 1:
                del self._lines[key]
                continue
            del line[0]
            if line[0].old_key is None or all(self._lines[other][0] is line[0] for other in line[0].lane_keys):
                self._ready.append(line[0])
        if event is self._barrier:
            self._barrier = None
        if self._barred:
            self._pass_barrier()

    def _endpoint_failed(self, outcome: Outcome, now: float) -> None:
        circuit = self.circuit
        circuit.last = outcome
        if circuit.failures and now < circuit.closed_until:
            return  # sent before the circuit opened: the same fault, counted once
        if not circuit.failures:
            circuit.since = now
        circuit.failures += 1
        circuit.closed_until = now + delay(self.backoff, circuit.failures, self.chance(), outcome.retry_after)
