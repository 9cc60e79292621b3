"""The reading part of a relay: pages from the ring into the delivery, as fast as there is room."""

from __future__ import annotations

import asyncio
import contextlib

from .flow import Flow
from .pace import BUSY_STEP


class Reading:
    """Reads one watcher's ring from where its lease begins."""

    def __init__(self, flow: Flow) -> None:
        self._flow = flow
        self._outbox = flow.channels.outbox
        self._ring = flow.channels.ring
        self._pace = flow.pace

    async def run(self) -> None:
        """Until cancelled. Raises DatabaseError."""
        flow, channels = self._flow, self._flow.channels
        position = flow.lease.position
        woken = await channels.wakeup.subscribe(channels.channel)
        while True:
            await flow.room.wait()
            page = await self._outbox.next_page(position, self._pace.page)
            if page is None:
                await self._idle(woken)
                continue
            flow.delivery.offer(page)
            position = page.position(None)
            if not page.events:
                continue  # the batch ended with the page before; that is known only now
            self._pace.read(len(page.events), sum(len(event.body) for event in page.events), flow.now())
            flow.observer.read(page.events)
            flow.newest_id = max(flow.newest_id, page.events[-1].ring_id)
            flow.changed.set()
            if flow.delivery.waiting >= self._pace.high_water:
                flow.room.clear()
            elif page.last:
                await self._rest(woken)

    async def _rest(self, woken: asyncio.Event) -> None:
        """After the last page of a batch: rows gather while they come fast, else whoever commits next wakes us."""
        if self._pace.busy:
            if self._pace.armed(self._flow.now()):
                self._pace.disarm()
                await self._ring.disarm()
            await asyncio.sleep(BUSY_STEP)
        elif self._pace.armed(self._flow.now()):
            # Whatever commits after this page's snapshot notifies us: no need to look before it does.
            await self._idle(woken)

    async def _idle(self, woken: asyncio.Event) -> None:
        """Waits for more: hot for a moment, then asleep until a notification or the next look."""
        now = self._flow.now()
        if not self._pace.armed(now):
            hot = self._pace.hot(now)
            if hot is not None:
                await asyncio.sleep(hot)
                return
            woken.clear()
            if not await self._flow.channels.wakeup.usable():
                await asyncio.sleep(self._pace.blind)
                return
            await self._ring.arm()
            self._pace.arm(self._flow.now())
            return  # look once more: what was committed before the arming has notified nobody
        # Not wait_for: before Python 3.12 it may swallow a cancellation, and the listener would never end.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._pace.look):
                await woken.wait()
        woken.clear()
