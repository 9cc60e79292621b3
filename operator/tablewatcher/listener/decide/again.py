"""Events that are sent on request, beside those that come from the ring: which are still to be settled. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field

from ...event import Event


@dataclass(slots=True)
class Again:
    """open: added and not settled yet; of these, convicted: put aside before, and go back there when they are refused.

    under_way: in a call now. recalled: of those, which are not to be tried once more. delivered: since somebody last
    emptied the list. given_up: of a replay, and put aside for the first time, and withdrawn: neither delivered nor put
    aside, since somebody last took them.
    """

    open: set[Event] = field(default_factory=set)
    convicted: set[Event] = field(default_factory=set)
    under_way: set[Event] = field(default_factory=set)
    recalled: set[Event] = field(default_factory=set)
    delivered: list[Event] = field(default_factory=list)
    given_up: set[Event] = field(default_factory=set)
    withdrawn: set[Event] = field(default_factory=set)

    def add(self, events: Iterable[Event], *, convicted: bool) -> None:
        """These come."""
        self.open.update(events)
        if convicted:
            self.convicted.update(events)

    def take(self, events: Iterable[Event]) -> None:
        """A call with these begins."""
        if self.open:
            self.under_way.update(self.open.intersection(events))

    def repeats(self, events: Iterable[Event]) -> Collection[Event]:
        """Those of `events` that were delivered before: what was put aside never was."""
        return self.open.intersection(events) - self.convicted if self.open else ()

    def land(self, events: Iterable[Event]) -> None:
        """A call with these has ended."""
        if self.under_way:
            self.under_way.difference_update(events)

    def deliver(self, events: Sequence[Event]) -> None:
        """These are delivered."""
        found = [event for event in events if event in self.open]
        self.delivered += found
        self.given_up.difference_update(found)
        self.forget(found)

    def give_up(self, events: Iterable[Event]) -> None:
        """These are put aside."""
        found = self.open.intersection(events)
        self.given_up.update(event for event in found - self.convicted if event.replay)
        self.forget(found)

    def forget(self, events: Iterable[Event]) -> None:
        """These are settled, one way or the other."""
        self.open.difference_update(events)
        self.convicted.difference_update(events)
        self.recalled.difference_update(events)

    def recall(self, events: Iterable[Event]) -> list[Event]:
        """Those of `events` that can be taken back now; the others are under way, and are when they fail."""
        meant = self.open.intersection(events)
        self.recalled.update(meant & self.under_way)
        return [event for event in events if event in meant and event not in self.under_way]
