"""How long the body of a batch may be, as the endpoint tells by what it refuses (413). Pure: times are arguments, in
seconds.

A proxy before an endpoint may take less than `batch.maxBytes`. A body it refuses is halved, and that bounds all that
follow: else every other request would be refused for ever. Now and then one twice as long is tried, for the proxy may
have been told to take more.
"""

from __future__ import annotations

AGAIN_SECONDS = 60.0


class BodyLength:
    """The bound of one endpoint, `most` bytes where it has refused nothing."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._bound = most
        self._again_at = 0.0
        self._accepted = 0
        self._accepted_at = float("-inf")

    @property
    def is_bounded(self) -> bool:
        """Whether the endpoint takes less than it may be sent."""
        return self._bound < self._most

    def most(self, now: float) -> int:
        """Bytes of the next body: twice the bound where that is to be tried."""
        return self._bound if now < self._again_at else min(self._bound * 2, self._most)

    def begin(self, now: float) -> int:
        """The same, for requests that are made now: nobody else tries for the next while."""
        found = self.most(now)
        if found > self._bound:
            self._again_at = now + AGAIN_SECONDS
        return found

    def accepted(self, size: int, now: float) -> None:
        """The endpoint has taken a body of `size` bytes."""
        if size >= self._accepted or not self._is_recent(now):
            self._accepted, self._accepted_at = size, now
        if size > self._bound:
            self._bound, self._again_at = min(size, self._most), now

    def refused(self, size: int, now: float, *, alone: bool) -> bool:
        """It has refused one as too long; whether shorter ones help: then `begin` gives less than `size`.

        alone: of one event. Else they do not help where longer ones pass: it says so of one of the events.
        """
        if alone:
            self._again_at = now  # it may be why those were refused that it was among
            return False
        if size <= self._accepted and self._is_recent(now):
            return False
        if size <= self._bound:
            self._bound = size // 2
        self._again_at = now + AGAIN_SECONDS
        return True

    def _is_recent(self, now: float) -> bool:
        return now - self._accepted_at <= AGAIN_SECONDS
