"""A bad event can hold up the only events that could prove it bad: then one of these is tried behind it. Pure.

A truncation or a gap waits for everything before it and holds everything after it. A bad event before one, or a bad one
of that kind, keeps away whatever the endpoint could accept instead. Once all that is left has failed by itself as
often as it may, it is tried once more in one go, without a wait, and right behind it the first event that could go
were that put aside. If that one is accepted, whoever has failed in this go is found guilty; if not, it goes back to its
place, and nothing is known.
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

# A go is calls without a wait between them, at an endpoint that may be down: so many a failed attempt outside of one.
# In one piece all the same: put off, a suspect that failed in an outage would be judged by what came after it.
CALLS_A_FAILURE = 32


@dataclass(slots=True)
class _Go:
    """left: suspects to be tried; failed: those that were, in vain; places: where one came from before its time."""

    left: deque[Event]
    witness: Event
    failed: list[Event]
    places: dict[Event, int] = field(default_factory=dict)


class Witness:
    """At most one go at a time; nothing else may be under way."""

    def __init__(self, backlog: Backlog, blame: Blame) -> None:
        self._backlog = backlog
        self._blame = blame
        self._go: _Go | None = None
        self._failures = 0

    @property
    def is_called(self) -> bool:
        """Whether a go is on."""
        return self._go is not None

    @property
    def is_missing(self) -> bool:
        """Whether all that was read has failed, or stands behind what has, and the endpoint accepted nothing since."""
        backlog = self._backlog
        waiting = [entry[2] for entry in backlog.later]
        return bool(waiting) and not (backlog.ready or backlog.fresh) and all(map(self._blame.lacks_proof, waiting))

    def among(self, events: Iterable[Event], passed: set[str]) -> Event | None:
        """The first of `events`, which come after all that was read, that waits for nobody.

        passed: the keys of all that was passed so far, to which those of these are added, up to the one found: a key
        that was not free then may be now, and its later events must not go before those.
        """
        owners = self._backlog.lanes.owners
        for event in events:
            keys = event.lane_keys
            is_free = passed.isdisjoint(keys) and not any(key in owners for key in keys)
            passed.update(keys)
            if is_free:
                return event
        return None

    def dismiss(self) -> None:
        """Ends the go, if there is one."""
        self._go = None

    def call(self, failed: Event, outcome: Outcome) -> None:
        """Begins a go, where `failed`, which has failed just now, and others like it hold up all that is left."""
        backlog = self._backlog
        if not may_be_the_event(outcome):
            return
        waiting = [*backlog.ready, *(entry[2] for entry in backlog.later)]
        if not (backlog.fresh and backlog.is_barred(idle=True)):
            return
        self._failures += 1
        if len(waiting) > CALLS_A_FAILURE * self._failures:
            return
        if failed not in waiting or not all(map(self._blame.is_suspect, waiting)):
            return
        suspects, blocked = [event for event in waiting if event is not failed], set[str]()
        owners, is_first = backlog.lanes.owners, True
        for event in backlog.fresh:
            is_free = blocked.isdisjoint(event.lane_keys) and not any(key in owners for key in event.lane_keys)
            if is_free and not (is_first and self._blame.is_suspect(event)):
                self._go, self._failures = _Go(deque(suspects), event, [failed]), 0
                return
            if is_free:
                suspects.append(event)
            else:
                is_first = False
            # It would be put aside, or follow what is: nothing of its keys may go before it.
            blocked.update(event.lane_keys)

    def take(self, call: Call) -> None:
        """The next event of the go, by itself."""
        go = self._go
        while go is not None and not call.events:
            event = go.left.popleft() if go.left else go.witness
            if event in self._backlog.fresh:
                go.places[event] = self._backlog.take_early(event, call)
            elif not self._backlog.take_waiting(event, call) and event is go.witness:
                self._go = go = None

    def fail(self, event: Event, outcome: Outcome) -> bool:
        """Notes that one of the go has failed. True: it is back among what nobody has looked at yet."""
        go = self._go
        if go is None:
            return False
        # What an endpoint says of itself tells nothing, and may ask for a wait.
        if event is go.witness or not may_be_the_event(outcome):
            self._go = None
        go.failed.append(event)
        place = go.places.get(event)
        if place is None:
            return False
        self._backlog.fresh.insert(place, event)
        return True

    def accept(self, events: Iterable[Event]) -> tuple[list[Event], list[Event]]:
        """Ends the go, since something was accepted: those that are found guilty by it, and whom else it has passed."""
        go, self._go, self._failures = self._go, None, 0
        if go is None or go.witness not in events:
            return [], []
        return go.failed, list(islice(self._backlog.fresh, go.places.get(go.witness, 0)))
