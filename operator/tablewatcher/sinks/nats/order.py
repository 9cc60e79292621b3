"""Which events of a call may be sent, so that no event overtakes an earlier one of its key. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from ...errors import Reason
from ...event import Event
from ..base import Outcome, Verdict

HELD = Outcome(Verdict.RETRY, Reason.SINK_UNREACHABLE, "an earlier event of the same row is not delivered yet")


def distinct(events: Sequence[Event]) -> bool:
    """Whether each of `events` is the only one of its key."""
    return len({event.key for event in events}) == len(events) and all(event.old_key is None for event in events)


def sendable(events: Sequence[Event], outcomes: Sequence[Outcome | None], *, one_a_key: bool = False) -> list[int]:
    """The places of the events that have no outcome yet and may go now, in order.

    Held are those that follow one of their key that was not delivered. one_a_key: and those that follow one that goes
    now, for a way of sending that keeps no order.
    """
    barred: set[str] = set()
    found: list[int] = []
    for place, (event, outcome) in enumerate(zip(events, outcomes, strict=True)):
        keys = event.lane_keys
        if outcome is not None:
            if outcome.verdict is not Verdict.DELIVERED:
                barred.update(keys)
        elif not barred.isdisjoint(keys):
            barred.update(keys)
        else:
            found.append(place)
            if one_a_key:
                barred.update(keys)
    return found


class Parts:
    """A call that goes in parts: `sendable`, then `settle`, until there is nothing more to send.

    refused: what is known beforehand, by place.
    """

    def __init__(self, events: Sequence[Event], refused: Mapping[int, Outcome] | None = None) -> None:
        self._events = events
        self._outcomes: list[Outcome | None] = [None] * len(events)
        self._places: Sequence[int] = list(refused or ())
        self._open = len(events)
        self.settle((refused or {}).values())

    @property
    def outcomes(self) -> list[Outcome]:
        """Of every event."""
        return [outcome or HELD for outcome in self._outcomes]

    def sendable(self, *, one_a_key: bool = False) -> Sequence[Event]:
        """The events that may go now, as the function of this name finds them."""
        if not one_a_key and self._open == len(self._events):
            self._places = range(self._open)
            return self._events
        self._places = sendable(self._events, self._outcomes, one_a_key=one_a_key) if self._open else ()
        return [self._events[place] for place in self._places]

    def settle(self, outcomes: Iterable[Outcome]) -> None:
        """What came of them, or of the first of them."""
        for place, outcome in zip(self._places, outcomes, strict=False):
            self._outcomes[place] = outcome
            self._open -= 1
