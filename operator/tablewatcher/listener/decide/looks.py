"""When to look at a sink that may have nothing to do: often while in doubt, seldom while it is well. Pure."""

from __future__ import annotations

LOOK_SECONDS = 2.0


class Looks:
    """Times are seconds of one monotonic clock. longest: seconds between two looks, once all has long been well."""

    def __init__(self, longest: float) -> None:
        self._longest = max(longest, LOOK_SECONDS)
        self._every = LOOK_SECONDS
        self._looked = float("-inf")

    def due(self, now: float) -> bool:
        """Whether it is time."""
        # Ticks come every LOOK_SECONDS, a little more or less.
        return now - self._looked >= self._every - LOOK_SECONDS / 2

    def well(self, now: float) -> None:
        """A look has just found nothing wrong."""
        self._every = min(2 * self._every, self._longest)
        self._looked = now

    def doubt(self) -> None:
        """A look or a delivery has just met a fault."""
        self._every = LOOK_SECONDS
