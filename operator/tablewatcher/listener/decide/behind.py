"""How far one watcher's delivery is behind its ring, between two looks at the ring. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from ...event import Event
from ...postgres.ring.chunks import IDS_A_ROW


class Behind:
    """delivered: events that the sink has taken since this process began. seen_all: the last look found nothing more.

    What is unread is known by ids alone. A transaction that was rolled back, or has not committed, has drawn some too:
    they count only while pages come that are not the last of their batch.
    """

    def __init__(self) -> None:
        self.delivered = 0
        self.events_an_id = 1 / IDS_A_ROW
        self._held: Callable[[], int] | None = None
        self._last_id = self._read_id = 0
        self._more = False
        self.seen_all = False

    @contextmanager
    def delivering(self, held: Callable[[], int]) -> Iterator[None]:
        """While this process delivers; else nothing waits for it. held: how many events are read and not delivered."""
        self._held, self._more, self.seen_all = held, False, False
        self._last_id = self._read_id = 0
        try:
            yield
        finally:
            self._held = None

    def read(self, events: Sequence[Event], *, last: bool) -> None:
        """A page has been read. last: its batch ends with it."""
        # A row of the ring takes so many ids, however many events it holds: what is unread is taken to be like this.
        self.events_an_id = len(events) / (events[-1].ring_id - events[0].ring_id + IDS_A_ROW)
        self._read_id, self._more, self.seen_all = events[-1].ring_id, not last, False

    def caught_up(self) -> None:
        """Nothing is left to be read."""
        self._more, self.seen_all = False, True

    def drawn(self, last_id: int) -> None:
        """The newest id of the ring."""
        self._last_id = last_id

    @property
    def waiting(self) -> int:
        """Events that wait, about; 0 where this process does not deliver."""
        if self._held is None:
            return 0
        unread = max(self._last_id - self._read_id, 0) * self.events_an_id if self._more else 0
        return self._held() + round(unread)
