"""What a stream with copies may have been sent already. Pure.

In a cluster a batch of fast ingest takes a repeat for stored once the leader has seen the event before, also where no
other server ever got it (nats-server 2.15.1): a leader that is cut off from the others, or was voted out and in again,
remembers what is stored nowhere. A plain publish of the same is refused until the event is stored, or forgotten. So
nothing goes in batches as long as it may be a repeat.
"""

from __future__ import annotations

from collections.abc import Sequence

from ...event import Event
from ..base import DELIVERED, Outcome
from .order import HELD
from .pub_ack import REPEATED

# New events one after the other that tell: who delivered before us had less than that in hand.
_NONE_LEFT = 8192


class Repeats:
    """Kept for as long as a sink is: a new one knows nothing of what was sent before it."""

    def __init__(self) -> None:
        self._doubtful: set[str] = set()
        self._new = 0

    @property
    def possible(self) -> bool:
        """Whether what is sent next may have been sent before."""
        return self._new < _NONE_LEFT or bool(self._doubtful)

    def unknown(self) -> None:
        """Events may have been sent of which nothing was learnt."""
        self._new = 0

    def settled(self, events: Sequence[Event], outcomes: Sequence[Outcome]) -> None:
        """What came of `events`. Where the endpoint was at fault, nobody knows which of them the stream has."""
        if outcomes.count(DELIVERED) == len(events) and not self._doubtful:
            self._new += len(events)
            return
        for event, outcome in zip(events, outcomes, strict=True):
            if outcome.endpoint:
                self._doubtful.add(event.message_id)
            elif outcome is not HELD:  # which has not been sent this time
                self._doubtful.discard(event.message_id)
        new = outcomes.count(DELIVERED)
        self._new = self._new + new if REPEATED not in outcomes else 0
