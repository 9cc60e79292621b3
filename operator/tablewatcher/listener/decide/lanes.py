"""The order of each key: who may be sent, and who waits for whom. Pure.

A key belongs to the call that has an event of it under way, or to an event that waits for its time; whatever else
comes for it stands in its line. Lines exist only where somebody waits: nearly every event finds its keys free, is
sent, and leaves nothing behind. An update that changed the key takes part in the order of both: it stands in both lines
and goes when it is first in both.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from enum import Enum
from typing import NamedTuple

from ...event import Event

# Owners of a key beside calls, which are numbered from 1.
HELD = 0  # an event that has left its line and waits for its time, or to be taken
WAITING = -1  # nobody: the first of its line waits for another key
PARKED = -2  # nobody: its events are put aside


class Place(Enum):
    """Where an event goes that has just come: into the call, into its lines, or aside."""

    CALL = "call"
    LINE = "line"
    ASIDE = "aside"


class Moved(NamedTuple):
    """Events that have left their lines, in order: those that may be sent, and those to be put aside."""

    ready: list[Event]
    aside: list[Event]


NOTHING = Moved([], [])


class Lanes:
    """All keys of one watcher.

    owners: for each key that is not free. lines: who waits. parked: keys with events put aside, whose later events
    follow them; released: events that may go in spite of that.
    """

    __slots__ = ("lines", "owners", "parked", "released")

    def __init__(self) -> None:
        self.owners: dict[str, int] = {}
        self.lines: dict[str, deque[Event]] = {}
        self.parked: set[str] = set()
        self.released: set[Event] = set()

    def enter(self, event: Event, call: int, *, shared: bool) -> Place:
        """Finds the place of an event that has not stood in line. shared: a call may have several of one key."""
        keys, owners = event.lane_keys, self.owners
        if not any(key in self.lines for key in keys):
            found = [owners.get(key) for key in keys]
            if all(owner is None or (shared and owner == call and self.parked.isdisjoint(keys)) for owner in found):
                for key in keys:
                    owners[key] = call
                return Place.CALL
            if all(owner is None or owner == PARKED for owner in found):
                self._park(keys)
                return Place.ASIDE
        for key in keys:
            self.lines.setdefault(key, deque()).append(event)
            owners.setdefault(key, WAITING)
        return Place.LINE

    def own(self, event: Event, call: int) -> None:
        """An event that was held goes into `call`."""
        for key in event.lane_keys:
            self.owners[key] = call

    def following(self, event: Event) -> Event | None:
        """The next of this event's key, if it can go right behind it in the same call."""
        line = self.lines.get(event.key)
        if line is None or len(event.lane_keys) > 1 or len(line[0].lane_keys) > 1:
            return None
        if event.key in self.parked and line[0] not in self.released:
            return None
        return line[0]

    def leave(self, event: Event) -> None:
        """Takes an event that stands first out of its lines."""
        for key in event.lane_keys:
            line = self.lines[key]
            line.popleft()
            if not line:
                del self.lines[key]

    def free(self, events: Sequence[Event]) -> Moved:
        """The call with `events` is over, and none of them is to be sent again."""
        owners = self.owners
        if not self.lines and not self.parked:
            for event in events:
                owners.pop(event.key, None)
                if event.old_key is not None:
                    owners.pop(event.old_key, None)
            return NOTHING
        return self.put_back(events, ())

    def put_back(self, events: Sequence[Event], failed: Sequence[Event]) -> Moved:
        """The call with `events` is over, and `failed` of them (in order) are first in their lines again."""
        for event in reversed(failed):
            self._stand_first(event)
        keys = dict.fromkeys(key for event in events for key in event.lane_keys)
        for key in keys:
            self._let_go(key)
        return self._advance(keys)

    def park(self, event: Event) -> list[Event]:
        """Puts aside an event that is under way or held, and what stands behind it, which is returned in order."""
        keys = event.lane_keys
        self.released.discard(event)
        self._park(keys)
        return self._advance(keys).aside

    def release(self, events: Sequence[Event], unparked: Iterable[str]) -> Moved:
        """Events that were put aside come back, before all others of their keys; keys `unparked` have no more aside."""
        self.released.update(events)
        for event in reversed(events):
            self._stand_first(event)
        unparked = list(unparked)
        self.parked.difference_update(unparked)
        keys = dict.fromkeys(key for event in events for key in event.lane_keys)
        keys.update(dict.fromkeys(unparked))
        for key in keys:
            if self.owners.get(key) in (None, PARKED):
                self._let_go(key)
        return self._advance(keys)

    def forget(self, given_up: set[Event]) -> None:
        """Takes events out of all lines that will not be sent."""
        for key, line in list(self.lines.items()):
            kept = deque(event for event in line if event not in given_up)
            if kept:
                self.lines[key] = kept
                continue
            del self.lines[key]
            if self.owners[key] == WAITING:
                self._let_go(key)

    def withdraw(self, events: Sequence[Event]) -> Moved:
        """Takes events out that stand in lines or are held, wherever they are; what stood behind them moves on."""
        gone, keys = set(events), dict.fromkeys(key for event in events for key in event.lane_keys)
        standing = {event for key in keys for event in self.lines.get(key, ())}
        for key in keys:
            kept = deque(event for event in self.lines.pop(key, ()) if event not in gone)
            if kept:
                self.lines[key] = kept
        held = {key for event in events if event not in standing for key in event.lane_keys}
        for key in keys:
            if key in held or self.owners.get(key) in (WAITING, PARKED):
                self._let_go(key)
        return self._advance(keys)

    def _stand_first(self, event: Event) -> None:
        for key in event.lane_keys:
            self.lines.setdefault(key, deque()).appendleft(event)

    def _let_go(self, key: str) -> None:
        if key in self.lines:
            self.owners[key] = WAITING
        elif key in self.parked:
            self.owners[key] = PARKED
        else:
            self.owners.pop(key, None)

    def _advance(self, keys: Iterable[str]) -> Moved:
        moved, look = Moved([], []), deque(keys)
        while look:
            line = self.lines.get(look.popleft())
            if line is None or not self._may_leave(line[0]):
                continue
            event = line[0]
            self.leave(event)
            held = event.lane_keys
            if event in self.released or self.parked.isdisjoint(held):
                for key in held:
                    self.owners[key] = HELD
                moved.ready.append(event)
            else:
                self._park(held)
                moved.aside.append(event)
                look.extend(held)
        return moved

    def _may_leave(self, event: Event) -> bool:
        return all(self.owners[key] < HELD and self.lines[key][0] is event for key in event.lane_keys)

    def _park(self, keys: Sequence[str]) -> None:
        self.keep(keys)
        self.owners.update(dict.fromkeys(keys, PARKED))

    def keep(self, keys: Iterable[str]) -> None:
        """Events of these are aside from now on. What stands in line came after them, and was perhaps released."""
        for key in keys:
            self.parked.add(key)
            self.released.difference_update(self.lines.get(key, ()))


def bound_to(keys: Iterable[str], events: Sequence[Event]) -> set[str]:
    """These keys, and all that are bound to them by events that changed a row's key."""
    found = set(keys)
    while True:
        more = {key for event in events if not found.isdisjoint(event.lane_keys) for key in event.lane_keys}
        if more <= found:
            return found
        found |= more
