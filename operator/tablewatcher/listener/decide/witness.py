"""A bad event can hold up the only events that could prove it bad: then one of these is tried out of its turn. Pure.

A truncation or a gap waits for everything before it and holds everything after it. A bad event before one, or a bad one
of that kind, keeps away whatever the endpoint could accept instead. Once all that is left has failed by itself as
often as it may, it is tried once more in one go, without a wait, and right behind it the first event that could go
were that put aside. If that one is accepted, whoever has failed in this go is found guilty; if not, it goes back to its
place, and nothing is known.

Where all that fits in memory waits for what has failed, what is tried is not read yet. It is not kept: if it is
accepted, it comes once more in its turn. If not, it is remembered, for it may be bad too.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import islice

from ...event import Event
from ...sinks.base import Outcome
from .backlog import Backlog, Call
from .blame import Blame, may_be_the_event
from .walk import Walk

# A go is calls without a wait between them, at an endpoint that may be down: so many a failed attempt outside of one.
# In one piece all the same: put off, a suspect that failed in an outage would be judged by what came after it.
CALLS_A_FAILURE = 32
# Of what is not read yet: events are remembered that were tried in vain, as far as their bodies have no more bytes. A
# page may have as many.
REMEMBERED_BYTES = 8 << 20


@dataclass(slots=True)
class _Go:
    """left: suspects to be tried; failed: those that were, in vain; places: where one came from before its time.

    unread: those of them that are not read yet.
    """

    left: deque[Event]
    witness: Event
    failed: list[Event]
    unread: set[Event] = field(default_factory=set)
    places: dict[Event, int] = field(default_factory=dict)


class Witness:
    """At most one go at a time; nothing else may be under way. parks: whether what is found guilty may be passed.

    is_full: nothing more is read until some of what is read is settled.
    """

    def __init__(self, backlog: Backlog, blame: Blame, *, parks: bool) -> None:
        self._backlog = backlog
        self._blame = blame
        self._parks = parks
        self.is_full = False
        self._go: _Go | None = None
        self._failures = 0
        self._tried: dict[int, tuple[Event, float]] = {}
        # Whether an event that is not read yet has failed since one that is.
        self._had_turn = False

    @property
    def is_called(self) -> bool:
        """Whether a go is on."""
        return self._go is not None

    @property
    def is_hasty(self) -> bool:
        """Whether a go is on that waits for nothing. One that judges nobody waits as any probe does."""
        return self._go is not None and bool(self._go.left or self._go.failed)

    @property
    def is_missing(self) -> bool:
        """Whether all that was read has failed, or stands behind what has, and the endpoint accepted nothing since."""
        backlog, waiting = self._backlog, self._waiting
        if self.is_called or not waiting or not all(map(self._blame.lacks_proof, waiting)):
            return False
        if self._had_turn and self._blame.circuit.failures:
            return False  # who is the next probe? In turns, or what was read would never be tried again
        if not backlog.fresh:
            return True
        walk = self._walk()
        return backlog.is_barred(idle=True) and walk.find(backlog.fresh, 0.0) is None and not walk.is_over

    def walk(self) -> Walk:
        """A new one over what is not read yet."""
        walk = self._walk()
        walk.find(self._backlog.fresh, 0.0)
        return walk

    def forget_unread(self) -> None:
        """What was tried before it was read comes in its turn now, if not in a go that is on."""
        if self._go is not None:
            return
        for event, _ in self._tried.values():
            self._blame.forget(event)
        self._tried.clear()

    def dismiss(self) -> None:
        """Ends the go, if there is one."""
        self._go = None

    def call(self, failed: Event, outcome: Outcome) -> None:
        """Begins a go, where `failed`, which has failed just now, and others like it hold up all that is left."""
        backlog, self._had_turn = self._backlog, False
        if not self._counts(outcome) or not (backlog.fresh and backlog.is_barred(idle=True)):
            return
        walk, waiting = self._walk(), self._waiting
        event = walk.find(backlog.fresh, 0.0) or (None if self.is_full else walk.last())
        if event is not None and failed in waiting:
            suspects = [each for each in (*waiting, *walk.suspects) if each is not failed]
            self._go, self._failures = _Go(deque(suspects), event, [failed]), 0

    def call_unread(self, event: Event, walk: Walk | None) -> None:
        """Begins a go with an event that is not read yet. walk: by which it was just found; None: it judges nobody."""
        if walk is None or not walk.barred:
            self._go = _Go(deque(), event, [], {event})
            return
        unread = {event, *walk.suspects}.difference(self._backlog.fresh)
        self._go, self._failures = _Go(deque([*self._waiting, *walk.suspects]), event, [], unread), 0

    def take(self, call: Call) -> None:
        """The next event of the go, by itself."""
        go = self._go
        while go is not None and not call.events:
            event = go.left.popleft() if go.left else go.witness
            if event in go.unread:
                self._backlog.take_unread(event, call)
            elif event in self._backlog.fresh:
                go.places[event] = self._backlog.take_early(event, call)
            elif not self._backlog.take_waiting(event, call):
                # Taken back: what stood behind it is free, and must not be passed.
                self._go = go = None

    def is_unread(self, event: Event) -> bool:
        """Whether this is one of a go that is not read yet."""
        return self._go is not None and event in self._go.unread

    def fail(self, event: Event, outcome: Outcome, due: float) -> bool:
        """Notes that one of the go has failed. True: it is back among what nobody has looked at yet.

        due: when it may be tried again.
        """
        go = self._go
        if go is None:
            return False
        # What an endpoint says of itself tells nothing, and may ask for a wait.
        if not self._counts(outcome, 0) or event is go.witness:
            self._go = None
        go.failed.append(event)
        if event in go.unread:
            self._had_turn = True
            self._remember(event, due)
            return True
        place = go.places.get(event)
        if place is None:
            return False
        self._backlog.fresh.insert(place, event)
        return True

    def accept(self, events: Iterable[Event]) -> tuple[list[Event], list[Event]]:
        """Ends the go, since something was accepted: those that are found guilty by it, and whom else it has passed."""
        go, self._go, self._failures = self._go, None, 0
        if go is None:
            return [], []
        # Also one that had failed as often before, and is not bad any more: it has passed the others all the same.
        early = next((event for event in events if event in go.unread or event in go.places), None)
        if early is None:
            return [], []
        for event in (early, *go.failed):
            self._tried.pop(event.ring_id, None)
        return go.failed, list(islice(self._backlog.fresh, go.places.get(early)))

    @property
    def _waiting(self) -> list[Event]:
        return [*self._backlog.ready, *(entry[2] for entry in self._backlog.later)]

    def _walk(self) -> Walk:
        return Walk(self._backlog, self._blame, self._tried, self._may_judge)

    def _may_judge(self, more: int) -> bool:
        waiting = self._waiting
        if not self._parks or len(waiting) + more > CALLS_A_FAILURE * self._failures:
            return False
        return all(map(self._blame.is_suspect, waiting))

    def _counts(self, outcome: Outcome, failures: int = 1) -> bool:
        """Whether a failure may be the event's. Else nothing is tried in haste before one that may be."""
        if not may_be_the_event(outcome):
            self._failures = 0
            return False
        self._failures += failures
        return True

    def _remember(self, event: Event, due: float) -> None:
        others = sum(len(each.body) for each, _ in self._tried.values() if each is not event)
        if others + len(event.body) <= REMEMBERED_BYTES:
            self._tried[event.ring_id] = (event, due)
        else:
            self._blame.forget(event)
