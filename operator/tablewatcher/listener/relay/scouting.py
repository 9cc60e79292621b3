"""Where all that fits in memory fails, or waits behind what does: something further on is sent, to judge that by.

An event is given up only where the endpoint accepts others. A row that is refused and has many events keeps all others
from being read, and so what could be accepted. Nothing of what is passed here is kept, and what is sent comes once more
in its turn: a repeat, of the kind that follows a fault. Of a key it is the first event that is not read yet, if any.
"""

from __future__ import annotations

from ...event import Event
from ...postgres.ring.position import Page, Position
from ..decide.walk import Walk
from .flow import Flow

# Of one look: the next goes on from there.
PAGES = 16
PAGE_EVENTS = 1_024


class Scouting:
    """Reads ahead of one watcher's reading."""

    def __init__(self, flow: Flow) -> None:
        self._flow = flow
        self._begun_at: Position | None = None  # most listeners never look: no queries are put together for it before

    @property
    def is_wanted(self) -> bool:
        """Whether nothing is left to send until something else has been accepted."""
        flow, delivery = self._flow, self._flow.delivery
        is_live = not (flow.replaying or flow.spec.suspend or delivery.halted or delivery.in_flight)
        return is_live and delivery.witness.is_missing

    async def look(self, position: Position) -> None:
        """Has an event after `position` sent that may go before its turn, if one is near. Raises DatabaseError."""
        flow, witness = self._flow, self._flow.delivery.witness
        if self._begun_at is not position:
            self._begin_at(position)
        flow.reading = True
        try:
            walk, event = self._walk, await self._found()
            if walk.is_over:
                self._begun_at = None  # the next look begins at the first again, for there is no more
            # Much may have happened while it was read.
            if self.is_wanted and (found := event or walk.spare):
                witness.call_unread(found, walk if event else None)
                flow.changed.set()
        finally:
            flow.reading = False

    def _begin_at(self, position: Position) -> None:
        self._begun_at = position
        self._walk: Walk = self._flow.delivery.witness.walk()
        self._go_on_at(position)

    def _go_on_at(self, position: Position) -> None:
        self._at = position
        # A new one: within a batch an outbox goes on by pages, wherever it is asked to.
        self._outbox = self._flow.channels.outbox.for_replay(0)

    async def _found(self) -> Event | None:
        flow = self._flow
        for _ in range(PAGES):
            page: Page | None = await self._outbox.next_page(self._at, PAGE_EVENTS)
            if page is None:
                event, self._walk.is_over = self._walk.last(), True
                return event
            event = self._walk.find(page.events, flow.now())
            if event is not None:
                is_last = event.ring_id == page.events[-1].ring_id
                self._go_on_at(page.position(None if is_last else event.ring_id + 1))
                return event
            if self._walk.is_over or flow.room.is_set():
                return None
            self._at = page.position(None)
        return None
