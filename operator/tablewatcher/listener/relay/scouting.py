"""Where all that fits in memory fails, or waits behind what does: something further on is sent, to judge that by.

An event is given up only where the endpoint accepts others. A row that is refused and has many events keeps all others
from being read, and so what could be accepted. Nothing of what is passed here is kept, and what is sent comes once more
in its turn: a repeat, of the kind that follows a fault. Of a key it is the first event that is not read yet, if any.
"""

from __future__ import annotations

import asyncio
from itertools import takewhile

from ...event import Event
from ...postgres.ring.outbox import Page
from ...postgres.ring.position import Position
from ..decide.delivery import BARRIERS
from .flow import Flow

# Of one look: the next goes on from there.
PAGES = 16
PAGE_EVENTS = 1_024
_STEP = 0.02


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
        """Sends the first event after `position` that waits for nobody, where one is near. Raises DatabaseError."""
        flow = self._flow
        if self._begun_at is not position:
            self._begin_at(position)
        flow.reading = True
        try:
            if event := await self._found(position):
                flow.delivery.release([event])
                flow.changed.set()
        finally:
            flow.reading = False
        if event:
            await self._settled(event)

    def _begin_at(self, position: Position) -> None:
        self._begun_at = position
        self._passed: set[str] = set()
        self._go_on_at(position)

    def _go_on_at(self, position: Position) -> None:
        self._at = position
        # A new one: within a batch an outbox goes on by pages, wherever it is asked to.
        self._outbox = self._flow.channels.outbox.for_replay(0)

    async def _found(self, begin: Position) -> Event | None:
        for _ in range(PAGES):
            page: Page | None = await self._outbox.next_page(self._at, PAGE_EVENTS)
            if page is None:
                break
            events = list(takewhile(lambda event: event.op not in BARRIERS, page.events))
            if event := self._flow.delivery.witness.among(events, self._passed):
                self._go_on_at(page.position(None if event is page.events[-1] else event.ring_id + 1))
                return event
            if len(events) < len(page.events):
                break  # nothing goes before what comes before all that follows it
            self._at = page.position(None)
            if self._flow.room.is_set():
                return None
        else:
            return None
        self._begin_at(begin)  # from the first again, for there is no more
        return None

    async def _settled(self, event: Event) -> None:
        """Until it is delivered, or has failed: then it comes in its turn, and another is tried next."""
        delivery = self._flow.delivery
        while delivery.unsettled([event]):
            if event in delivery.again.under_way:
                delivery.withdraw([event])
            await asyncio.sleep(_STEP)
        delivery.again.withdrawn.discard(event)
