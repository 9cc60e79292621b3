"""What has been read and is not under way: in which order it goes into the next call. Pure.

First what comes back (its time has come, or its line has moved on), then what nobody has looked at yet. A gap or a
truncation, in order, waits for everything before it and holds everything after it.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count

from ...event import Event
from ...sinks.base import Limits, Outcome
from .lanes import Lanes, Moved, Place

BARRIERS = frozenset("gt")
_AT_ONCE: Mapping[Event, float | None] = {}


@dataclass(frozen=True, slots=True)
class Parking:
    """An event to be put aside: exhausted after `attempts`, last with `outcome`, or (None) behind one that was."""

    event: Event
    attempts: int = 0
    outcome: Outcome | None = None


@dataclass(slots=True)
class Call:
    """A call that is put together. shared: it may have several events of one key; size: bytes of its bodies."""

    number: int
    limit: int
    max_bytes: int | None
    shared: bool
    events: list[Event] = field(default_factory=list)
    size: int = 0

    def has_room(self, event: Event) -> bool:
        """Whether `event` fits; a first one always does."""
        if len(self.events) >= self.limit:
            return False
        return not self.events or self.max_bytes is None or self.size + len(event.body) <= self.max_bytes

    def add(self, event: Event) -> None:
        """Takes it in."""
        self.events.append(event)
        self.size += len(event.body)


class Backlog:
    """fresh: not looked at yet. ready: may go. later: waits for its time, a heap. aside: to be put aside, in order.

    barrier: the one that is under way or waits, while nothing fresh may go. alone: events that go by themselves.
    """

    def __init__(self, *, ordered: bool, alone: set[Event]) -> None:
        self.ordered = ordered
        self.lanes = Lanes()
        self.fresh: deque[Event] = deque()
        self.ready: deque[Event] = deque()
        self.later: list[tuple[float, int, Event]] = []
        self.aside: list[Parking] = []
        self.barrier: Event | None = None
        self.linger_until: float | None = None
        self._alone = alone
        self._numbers = count(1)

    def call(self, limit: int, limits: Limits) -> Call:
        """An empty call."""
        return Call(next(self._numbers), limit, limits.max_bytes, limits.ordered)

    def wake(self, now: float) -> None:
        """What waited until `now` is ready."""
        while self.later and self.later[0][0] <= now:
            self.ready.append(heapq.heappop(self.later)[2])

    def lingers(self, now: float, limits: Limits) -> bool:
        """Whether to wait for more events before the next call."""
        fresh = self.fresh
        filled = len(fresh) >= limits.max_batch or (
            limits.max_bytes is not None and sum(len(event.body) for event in fresh) >= limits.max_bytes
        )
        if not fresh or filled or self.ready:
            self.linger_until = None
            return False
        if self.linger_until is None:
            self.linger_until = now + limits.linger
        if now < self.linger_until:
            return True
        self.linger_until = None
        return False

    def take_only(self, event: Event, call: Call) -> None:
        """This event and nothing else, where it is ready."""
        if event in self.ready:
            self.ready.remove(event)
            if self.ordered:
                self.lanes.own(event, call.number)
            call.add(event)

    def take_early(self, event: Event, call: Call) -> int:
        """This event, which nobody has looked at yet and whose keys are free, before its time; its place."""
        place = self.fresh.index(event)
        del self.fresh[place]
        self.take_unread(event, call)
        return place

    def take_distant(self, call: Call, chance: float) -> None:
        """One that nobody has looked at yet and that waits for nobody: as often the last of them as any other.

        Rows of one statement are often all bad: to try each of them in turn, with a wait that doubles, takes hours.
        """
        passed: set[str] = set()
        free: list[Event] = []
        for event in self.fresh if self.ordered and self.barrier is None else ():
            if event.op in BARRIERS:
                break
            keys = event.lane_keys
            if passed.isdisjoint(keys) and not any(key in self.lanes.owners for key in keys):
                free.append(event)
            passed.update(keys)
        if free:
            self.take_early(free[min(int(chance * 2 * len(free)), len(free) - 1)], call)

    def take_unread(self, event: Event, call: Call) -> None:
        """This event, which is not read yet and whose keys are free."""
        self.lanes.own(event, call.number)
        call.add(event)

    def take_waiting(self, event: Event, call: Call) -> bool:
        """This event before its time; False: it is not there any more."""
        if event not in self.ready:
            if all(entry[2] is not event for entry in self.later):
                return False
            self._drop({event})
            self.ready.append(event)
        self.take_only(event, call)
        return True

    def take_ready(self, call: Call) -> None:
        """What comes back; in a shared call each with its followers."""
        ready, lanes, alone = self.ready, self.lanes, self._alone
        while ready and call.has_room(ready[0]):
            event = ready[0]
            if event in alone:
                if call.events:
                    return
                call.limit = 1
            ready.popleft()
            call.add(event)
            if not self.ordered:
                continue
            lanes.own(event, call.number)
            while call.shared and (follower := lanes.following(event)) and call.has_room(follower):
                if follower in alone:
                    break
                lanes.leave(follower)
                call.add(follower)

    def take_fresh(self, call: Call, *, idle: bool) -> None:
        """What nobody has looked at yet; what is not free to go is put into its lines. idle: nothing is in flight."""
        if self.barrier is not None:
            return
        fresh, events, ordered, number = self.fresh, call.events, self.ordered, call.number
        owners, lines, boundless = self.lanes.owners, self.lanes.lines, call.max_bytes is None
        # What is parked must not be overtaken in the call of one that came back.
        shared = call.shared and not self.lanes.parked
        while fresh and len(events) < call.limit:
            event = fresh[0]
            if ordered and event.op in BARRIERS and (events or self.is_barred(idle=idle)):
                return
            if not boundless and not call.has_room(event):
                return
            fresh.popleft()
            if ordered:
                key = event.key
                owner = owners.get(key)
                # In one line what nearly always holds: each look costs as much as all that follows it.
                if event.old_key is None and (owner is None or (shared and owner == number and key not in lines)):
                    owners[key] = number
                elif not self._has_entered(event, call):
                    continue
                if event.op in BARRIERS:
                    self.barrier = event
                    call.limit = 1
            events.append(event)
            if not boundless:
                call.size += len(event.body)

    def is_barred(self, *, idle: bool) -> bool:
        """Whether the next fresh event has to wait for something that came before it."""
        if self.barrier is not None:
            return True
        return self.ordered and self.fresh[0].op in BARRIERS and not (idle and not self.ready and not self.later)

    def move(self, moved: Moved, due: Mapping[Event, float | None] = _AT_ONCE) -> None:
        """Puts events that have left their lines where the next call finds them. due: when each may go."""
        for event in moved.ready:
            at = due.get(event)
            if at is None:
                self.ready.append(event)
            else:
                heapq.heappush(self.later, (at, next(self._numbers), event))
        self.aside += map(Parking, moved.aside)

    def settled(self, events: Iterable[Event]) -> None:
        """These are delivered or put aside."""
        if self.barrier is not None and self.barrier in events:
            self.barrier = None

    def forget(self, given_up: set[Event]) -> None:
        """Drops events that will not be sent."""
        self.fresh = deque(event for event in self.fresh if event not in given_up)
        self._drop(given_up)
        self.aside = [parking for parking in self.aside if parking.event not in given_up]
        self.lanes.forget(given_up)

    def withdraw(self, events: Sequence[Event]) -> None:
        """Drops events that were added and are not under way; what stood behind them moves on."""
        self._drop(set(events))
        if self.ordered:
            self.move(self.lanes.withdraw(events))

    def put_aside(self, parking: Parking) -> list[Event]:
        """Puts an event aside that is under way or waits; what stood behind it, and follows."""
        event = parking.event
        self._drop({event})
        if event in self.fresh:
            self.fresh.remove(event)
        behind = self.lanes.park(event) if self.ordered else []
        self.aside += [parking, *map(Parking, behind)]
        self.settled([event])
        return behind

    def follow(self, events: Iterable[Event]) -> None:
        """Of these, which nobody has looked at yet, those whose keys have events aside go there too, and at once.

        Somebody has passed them for that: brought back before they were looked at, what they stand behind would be
        followed by them, behind whoever has passed them.
        """
        for event in events:
            if event in self.fresh and not self.lanes.parked.isdisjoint(event.lane_keys):
                self.fresh.remove(event)
                if self.lanes.enter(event, 0, shared=False) is Place.ASIDE:
                    self.aside.append(Parking(event))

    def _drop(self, events: set[Event]) -> None:
        self.ready = deque(event for event in self.ready if event not in events)
        self.later = [entry for entry in self.later if entry[2] not in events]
        heapq.heapify(self.later)

    def _has_entered(self, event: Event, call: Call) -> bool:
        place = self.lanes.enter(event, call.number, shared=call.shared)
        if place is Place.ASIDE:
            self.aside.append(Parking(event))
        return place is Place.CALL
