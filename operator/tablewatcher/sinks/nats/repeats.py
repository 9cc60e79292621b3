"""What a stream with copies may have been sent already. Pure: times are arguments, seconds of one clock.

In a cluster a batch of fast ingest takes a repeat for stored once its leader has noted the id, also where no other
server ever got the event (nats-server 2.15.1): a leader that is cut off from the others, or was voted out and in again,
has noted what is stored nowhere. A plain publish of the same is refused until the event is stored, or forgotten after
the stream's duplicate window. So nothing goes in batches as long as it may be a repeat (decision 0028).
"""

from __future__ import annotations

from collections.abc import Sequence

from ...event import Event
from ..base import DELIVERED, Outcome, Verdict

# Clocks and timers of the server: it forgets an id a moment after its window.
_SLACK = 5.0


class Repeats:
    """Of one sink, since it was opened at `opened`. window: the stream's duplicate window.

    Somebody may have sent events before that: they are forgotten when the window is over, as are those of our own that
    were not acknowledged.
    """

    def __init__(self, opened: float) -> None:
        self.window = 120.0
        self._opened = opened
        self._doubtful: dict[str, float] = {}

    def possible(self, now: float) -> bool:
        """Whether what is sent next may have been sent before."""
        return self._opened > self._forget(now) or bool(self._doubtful)

    def settled(self, events: Sequence[Event], outcomes: Sequence[Outcome], now: float) -> None:
        """What came of `events`. Whatever is not acknowledged may be there, or be noted."""
        self._forget(now)
        if not self._doubtful and outcomes.count(DELIVERED) == len(events):
            return
        for event, outcome in zip(events, outcomes, strict=True):
            self._doubtful.pop(event.message_id, None)
            if outcome.verdict is not Verdict.DELIVERED:
                self._doubtful[event.message_id] = now  # as the newest

    def _forget(self, now: float) -> float:
        """Drops what the stream has forgotten: it may never be sent again. The moment before which that is all."""
        forgotten = now - self.window - _SLACK
        while self._doubtful and next(iter(self._doubtful.values())) < forgotten:
            del self._doubtful[next(iter(self._doubtful))]
        return forgotten
