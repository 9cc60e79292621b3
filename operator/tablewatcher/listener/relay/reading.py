"""The reading part of a relay: pages from the ring into the delivery, as fast as there is room."""

from __future__ import annotations

import asyncio

from ...postgres.ring.position import Position
from .flow import Flow
from .scouting import Scouting

# How long there is no room until we see whether any will come.
STUCK_SECONDS = 1.0
# Where writers may not be asked to notify: how long until we see whether they may by now.
BLIND_SECONDS = 5.0
# How long one sleeps while writers notify, and nothing comes.
ASLEEP_SECONDS = 60.0


class Reading:
    """Reads one watcher's ring from where its lease begins."""

    def __init__(self, flow: Flow) -> None:
        self._flow = flow
        self._outbox = flow.channels.outbox
        self._ring = flow.channels.ring
        self._pace = flow.pace
        self._scouting = Scouting(flow)

    async def run(self) -> None:
        """Until cancelled. Raises DatabaseError."""
        flow, channels = self._flow, self._flow.channels
        position = flow.lease.position
        woken = await channels.wakeup.subscribe(channels.names.channel)
        while True:
            await self._room(position)
            flow.reading = True
            page = await self._outbox.next_page(position, self._pace.page)
            flow.reading = False
            flow.observer.reads()
            if page is None:
                flow.observer.behind.caught_up()
                await self._idle(woken, position)
                continue
            flow.delivery.offer(page)
            for hear in flow.on_read:
                hear(page.events)
            position = page.position(None)
            if not page.events:
                flow.observer.behind.caught_up()
                continue  # the batch ended with the page before; that is known only now
            self._pace.read(len(page.events), sum(len(event.body) for event in page.events), flow.now())
            flow.observer.read(page.events, page.rest)
            flow.newest_id = max(flow.newest_id, page.events[-1].ring_id)
            flow.changed.set()
            if flow.delivery.waiting >= self._pace.high_water:
                flow.room.clear()
            elif page.last:
                await self._rest(woken, position)

    async def _room(self, position: Position) -> None:
        """Waits until there is room for another page."""
        flow = self._flow
        while not flow.room.is_set():
            try:
                async with asyncio.timeout(STUCK_SECONDS):
                    await flow.room.wait()
            except TimeoutError:
                if self._scouting.is_wanted:
                    await self._scouting.look(position)

    async def _rest(self, woken: asyncio.Event, position: Position) -> None:
        """After the last page of a batch: rows gather while they come fast, else whoever commits next wakes us."""
        if self._pace.busy:
            if self._pace.armed(self._flow.now()):
                self._pace.disarm()
                await self._ring.disarm()
            await asyncio.sleep(self._pace.busy_step)
        elif self._pace.armed(self._flow.now()):
            # Whatever commits after this page's snapshot notifies us: no need to look before it does.
            self._flow.observer.behind.caught_up()
            await self._idle(woken, position)

    async def _idle(self, woken: asyncio.Event, position: Position) -> None:
        """Waits for more: hot for a moment, then asleep until a notification or the next look."""
        now = self._flow.now()
        if not self._pace.armed(now):
            hot = self._pace.hot(now)
            if hot is not None:
                await asyncio.sleep(hot)
                return
            woken.clear()
            if not await self._flow.channels.wakeup.usable():
                await self._sleep(woken, position, every=self._pace.blind, at_most=BLIND_SECONDS)
                return
            await self._ring.arm()
            self._pace.arm(self._flow.now())
            return  # look once more: what was committed before the arming has notified nobody
        channels = self._flow.channels
        with channels.arming.kept(channels.names, woken, self._pace.armed_at) as wish:
            await self._sleep(woken, position, every=self._pace.look, at_most=ASLEEP_SECONDS)
        self._pace.arm(wish.asked)

    async def _sleep(self, woken: asyncio.Event, position: Position, *, every: float, at_most: float) -> None:
        channels = self._flow.channels
        await channels.idle.wait(channels.names, position.prev, woken, every=every, at_most=at_most)
        woken.clear()
