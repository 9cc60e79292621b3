"""How far one watcher's delivery is behind its ring, between two looks at the ring. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from ...event import Event
from ...postgres.ring.chunks import IDS_A_ROW
from ...postgres.ring.position import Rest


class Behind:
    """delivered: events that the sink has taken since this process began. seen_all: the last look found nothing more.
    more: the page that was read last is not the last of its batch.

    The rest of a batch is known. What has come after it is known by ids alone: a transaction that was rolled back, or
    has not committed, has drawn some too, so they count only while pages come that are not the last of their batch.
    """

    def __init__(self) -> None:
        self.delivered = 0
        self._events_an_id = 1 / IDS_A_ROW
        self._held: Callable[[], int] | None = None
        self._rest = 0
        self._last_id = self._known_id = 0
        self.more = False
        self.seen_all = False

    @contextmanager
    def delivering(self, held: Callable[[], int]) -> Iterator[None]:
        """While this process delivers; else nothing waits for it. held: how many events are read and not delivered."""
        self._held, self.more, self.seen_all = held, False, False
        self._rest = self._last_id = self._known_id = 0
        try:
            yield
        finally:
            self._held = None

    def read(self, events: Sequence[Event], rest: Rest | None) -> None:
        """A page has been read. rest: what its batch has behind it."""
        # A row of the ring takes so many ids, however many events it holds: what comes after is taken to be like the
        # end of what is known. The first rows of a long statement lie closer than most of it.
        if rest is None:
            ids = events[-1].ring_id - events[0].ring_id + IDS_A_ROW
            rest = Rest(0, events[-1].ring_id, len(events) / ids)
            self.more = False
        else:
            self.more = True
        self._rest, self._known_id, self._events_an_id = rest.events, rest.last_id, rest.events_an_id
        self.seen_all = False

    def caught_up(self) -> None:
        """Nothing is left to be read."""
        self._rest, self.more, self.seen_all = 0, False, True

    def drawn(self, last_id: int) -> None:
        """The newest id of the ring."""
        self._last_id = last_id

    @property
    def unread(self) -> int:
        """Events that have not been read, about, if all ids that have been drawn since are of such."""
        return self._rest + round(max(self._last_id - self._known_id, 0) * self._events_an_id)

    @property
    def held(self) -> int:
        """Events that are read and not delivered; 0 where this process does not deliver."""
        return 0 if self._held is None else self._held()

    @property
    def waiting(self) -> int:
        """Events that wait, about; 0 where this process does not deliver."""
        return 0 if self._held is None else self.held + (self.unread if self.more else 0)
