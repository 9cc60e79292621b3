"""Which events of a call may be sent, so that no event overtakes an earlier one of its key. Pure."""

from __future__ import annotations

from collections.abc import Sequence

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
