"""What `destroy` has to say of a removal: the steps, and what had not been delivered."""

from __future__ import annotations

from ..naming import WatcherNames
from ..postgres.install.apply import Removed
from ..postgres.standing import Undelivered
from .steps import number_of, steps_json


def removal_text(done: Removed, names: WatcherNames) -> str:
    """For a person."""
    return "; ".join([_removed(done, names), *done.notes])


def _removed(done: Removed, names: WatcherNames) -> str:
    if done.keeps_ring:
        text = f"removed, {number_of(done.steps)}" if done else f"nothing else of {names.identity} was there"
        text += "; the ring stays, with what it holds (deletionPolicy: Retain)"
        return f"{text}: {_events(done.left)}" if done.left and done.left.waiting else text
    if not done:
        return f"nothing of {names.identity} was there (--instance says whose)"
    return f"removed, {number_of(done.steps)}{_lost(done.left)}"


def removal_json(done: Removed) -> dict[str, object]:
    """For a program. undelivered, parked: how many events, null where they could not be counted; they are gone, unless
    `ringKept`. notes: what is left to others, where something is."""
    return {
        "changed": bool(done),
        "undelivered": done.left.waiting if done.left else None,
        "parked": done.left.parked if done.left else None,
        "ringKept": done.keeps_ring,
        **({"notes": list(done.notes)} if done.notes else {}),
        **steps_json(done),
    }


def _lost(left: Undelivered | None) -> str:
    if left is None:
        return "; what was not delivered is gone, and could not be counted"
    if not left.waiting and not left.parked:
        return ""
    parked = f"{left.parked} that {'was' if left.parked == 1 else 'were'} parked"
    if not left.waiting:
        return f"; {left.parked} parked {'event is' if left.parked == 1 else 'events are'} gone"
    gone = f"; {_events(left)} {'is' if left.waiting == 1 else 'are'} gone"
    return f"{gone}, and {parked}" if left.parked else gone


def _events(left: Undelivered) -> str:
    return f"{left.waiting} {'event that was' if left.waiting == 1 else 'events that were'} not delivered"
