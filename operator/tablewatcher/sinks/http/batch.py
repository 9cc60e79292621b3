"""Which events go into which request, and what came of each: a batch that is refused is divided. Pure.

CloudEvents has one batch format, a JSON array of structured events. An answer is for all of a request, so a refusal
does not say which event it means: the next request holds half as many, down to one, and grows again as soon as
something is accepted. Requests of one call go out one after another, so the order of a key's events is kept; after an
event that was refused, those of its keys are held back.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from ...errors import Reason
from ...event import Event
from ..base import Outcome, Verdict

BATCH_CONTENT_TYPE = "application/cloudevents-batch+json"

HELD = Outcome(
    Verdict.RETRY, Reason.SINK_UNREACHABLE, "not sent: an earlier event of the same row was refused in this call"
)
LATE = Outcome(
    Verdict.RETRY, Reason.SINK_UNREACHABLE, "not sent: finding the event that was refused took the time there was"
)


def batch_body(events: Sequence[Event]) -> bytes:
    """The structured events as one JSON array. Joined, never parsed."""
    return b"[" + b",".join([event.body for event in events]) + b"]"


def batch_id(events: Sequence[Event]) -> str:
    """The webhook-id of a batch: the same for the same events, and no other; 32 hexadecimal digits."""
    joined = ",".join([event.message_id for event in events])
    return hashlib.sha256(joined.encode()).hexdigest()[:32]


class Call:
    """The events of one call on their way: `request`, then `settle`, until `request` gives nothing.

    size: events of the next request at the most. max_bytes: of a body; an event that is longer goes by itself.
    """

    def __init__(self, events: Sequence[Event], *, size: int, max_events: int, max_bytes: int) -> None:
        self.size = size
        self.outcomes: list[Outcome] = []
        self._events = events
        self._max_events = max_events
        self._max_bytes = max_bytes
        self._held: set[str] = set()
        self._sent: list[Event] = []
        self._places: list[int] = []
        self._passed: list[int] = []
        self._found: dict[int, Outcome] = {}
        self._next = 0

    def request(self) -> list[Event]:
        """The events of the next request, in order; none: every event has its outcome."""
        self._sent, self._places, self._passed = [], [], []
        place, left, held = self._next, self._max_bytes - 1, self._held
        while place < len(self._events) and len(self._sent) < self.size:
            event = self._events[place]
            if held and not held.isdisjoint(event.lane_keys):
                # Its keys are held for what is behind it only: what is before it may have to be sent once more.
                held = held.union(event.lane_keys)
                self._passed.append(place)
            else:
                left -= len(event.body) + 1
                if left < 0 and self._sent:
                    break
                self._sent.append(event)
                self._places.append(place)
            place += 1
        if not self._sent:
            self._hold_passed()
            self.outcomes = [self._found[each] for each in range(len(self._events))]
        return self._sent

    def settle(self, outcome: Outcome) -> None:
        """`outcome` is what came of the request."""
        if outcome.verdict is Verdict.REJECTED and len(self._sent) > 1:
            self.size = len(self._sent) // 2
            return
        if outcome.verdict is Verdict.RETRY:
            self._end(outcome)
            return
        for place in self._places:
            self._found[place] = outcome
        if outcome.verdict is Verdict.DELIVERED:
            self.size = min(self.size * 2, self._max_events)
        else:
            for event in self._sent:
                self._held.update(event.lane_keys)
        self._next = self._places[-1] + 1
        self._hold_passed()

    def shorten(self, max_bytes: int) -> None:
        """What was sent goes again, and what is left, in requests of so many bytes."""
        self._max_bytes = max_bytes

    def give_up(self) -> None:
        """No further request: what has no outcome yet was not sent in time."""
        self._end(LATE)

    def _hold_passed(self) -> None:
        """What was passed over on the way to the last one sent, or to the end, is held, and with it all of its keys."""
        for place in self._passed:
            if place < self._next or not self._sent:
                self._found[place] = HELD
                self._held.update(self._events[place].lane_keys)  # an update of a key holds both its keys

    def _end(self, outcome: Outcome) -> None:
        self._found.update(dict.fromkeys(self._passed, HELD))
        for place in range(self._next, len(self._events)):
            self._found.setdefault(place, outcome)
        self._next = len(self._events)
