"""When a ring turns because of the time alone: so that what is delivered does not stay in it for ever. Pure."""

from __future__ import annotations

from ...naming import RING_SLOTS

# TRUNCATE leaves dead rows in the catalog: not more often than this.
LEAST_TURN_SECONDS = 10.0
MOST_TURN_SECONDS = 300.0


class Turning:
    """Of one ring. Times are seconds of one monotonic clock; last_id is the newest id that was ever drawn in it."""

    def __init__(self, retention_seconds: float, now: float) -> None:
        # A slot is emptied when the two others have been written for this long, so rows stay for about twice of it.
        self._every = min(max(retention_seconds / 2, LEAST_TURN_SECONDS), MOST_TURN_SECONDS)
        self._turned = now
        self._last_id = -1
        self._idle_turns = 0

    def due(self, now: float, last_id: int) -> bool:
        """Whether it is time; never where every slot has been emptied since anybody wrote."""
        if last_id == self._last_id and self._idle_turns >= RING_SLOTS:
            return False
        return now - self._turned >= self._every

    def turned(self, now: float, last_id: int) -> None:
        """The ring has turned, for whatever reason. last_id: as it was before that."""
        self._idle_turns = self._idle_turns + 1 if last_id == self._last_id else 0
        self._turned, self._last_id = now, last_id
