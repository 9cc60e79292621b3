"""When to look again, and how much to read at a time. Pure: the time is an argument.

At a hundred commits a second a listener should sleep and be woken; at thousands it must not ask for notifications at
all, since a NOTIFY in every commit serialises the writers, and should gather rows instead of running after each one.
"""

from __future__ import annotations

# After the last row: look every HOT_STEP for HOT_SECONDS, before writers are asked to notify.
HOT_SECONDS = 0.004
HOT_STEP = 0.001
ARMED_SECONDS = 8.0
LOOK_SECONDS = 1.0
BLIND_SECONDS = 0.05
# Above this rate never ask for notifications: they would hold the rate down and so keep themselves alive.
BUSY_ROWS_PER_SECOND = 250.0
# Then a look every so often, more rarely the faster they come, so that more rows share what a look and a batch cost;
# but not more rarely than it takes for ENOUGH to come: they share it well.
BUSY_STEP = 0.008
LONGEST_BUSY_STEP = 0.05
ENOUGH = 400
_STEP_PER_RATE = BUSY_STEP / 800
BUSY_SECONDS = 0.1
PAGE_BYTES = 8 << 20
LARGEST_PAGE = 1_024
SMALLEST_PAGE = 16


class Pace:
    """Times are seconds of one monotonic clock."""

    def __init__(self) -> None:
        self._last_row = float("-inf")
        self._event_bytes = 32_768.0
        self._rate = 0.0
        self.armed_at = float("-inf")
        self.look = LOOK_SECONDS
        self.blind = BLIND_SECONDS

    @property
    def page(self) -> int:
        """Events to read next, so that a page stays near PAGE_BYTES."""
        return int(min(LARGEST_PAGE, max(SMALLEST_PAGE, PAGE_BYTES / self._event_bytes)))

    @property
    def high_water(self) -> int:
        """Events to hold in memory at the most, read and not yet delivered."""
        return 2 * self.page

    def read(self, events: int, size: int, now: float) -> None:
        """Notes a page of `events` with `size` bytes."""
        # Quick to believe in large events, slow to forget them.
        seen = size / events
        self._event_bytes = seen if seen > self._event_bytes else (self._event_bytes + seen) / 2
        since = max(now - self._last_row, 0.000_1)
        weight = min(since / 0.1, 1.0)
        self._rate = (1 - weight) * self._rate + weight * events / since
        self._last_row = now

    @property
    def busy(self) -> bool:
        """Whether rows come so fast that they should gather rather than wake anybody."""
        return self._rate > BUSY_ROWS_PER_SECOND

    @property
    def busy_step(self) -> float:
        """Seconds that rows gather for while they come fast."""
        return max(BUSY_STEP, min(self._rate * _STEP_PER_RATE, ENOUGH / self._rate, LONGEST_BUSY_STEP))

    def hot(self, now: float) -> float | None:
        """Seconds until the next look while rows came just now; None: time to sleep."""
        step, window = (self.busy_step, BUSY_SECONDS) if self.busy else (HOT_STEP, HOT_SECONDS)
        if now - self._last_row < window:
            return step
        self._rate = 0.0
        return None

    def armed(self, now: float) -> bool:
        """Whether writers have been asked to notify for some time yet."""
        return now - self.armed_at < ARMED_SECONDS

    def arm(self, now: float) -> None:
        """Writers were asked to notify at `now`."""
        self.armed_at = now

    def disarm(self) -> None:
        """Writers have been told not to notify."""
        self.armed_at = float("-inf")
