"""The keeping part of a relay: the cursor, the proof of the lease, and the ring's upkeep."""

from __future__ import annotations

import asyncio

from ..postgres.outbox import Position
from ..postgres.ring import TURN_SECONDS, may_resume
from .flow import Flow, LeaseLost

COMMIT_SECONDS = 0.1
RENEW_SECONDS = 1.0
UPKEEP_SECONDS = 5.0


class Keeping:
    """Writes down how far one watcher has come."""

    def __init__(self, flow: Flow) -> None:
        self._flow = flow
        self._epoch = flow.lease.epoch
        self._committed = self._delivered = flow.lease.position

    async def cursor(self) -> None:
        """Commits the cursor while there is news, and proves the lease once a second in any case. Until cancelled."""
        flow = self._flow
        while True:
            await asyncio.sleep(COMMIT_SECONDS)
            position = self._position()
            if position == self._committed and flow.now() - flow.proof < RENEW_SECONDS:
                continue
            asked = flow.now()
            # While rows come fast, the writers' own commits flush the WAL, and often.
            if not await flow.channels.cursor.commit(self._epoch, position, durable=not flow.pace.busy):
                raise LeaseLost
            self._committed, flow.proof = position, asked
            flow.changed.set()

    async def release(self) -> None:
        """Commits how far delivery has come, and lets go of the lease."""
        await self._flow.channels.cursor.commit(self._epoch, self._position(), release=True)

    async def upkeep(self) -> None:
        """Turns the ring, starts capture again after an overflow, and tells of its size. Until cancelled."""
        flow, ring, cursor = self._flow, self._flow.channels.ring, self._flow.channels.cursor
        turned = flow.now()
        while True:
            gauge = await ring.gauge()
            flow.observer.ring(gauge, flow.delivery.oldest, flow.newest_id)
            full = gauge.stopped_at > 0 or await ring.is_turn_due(cursor.slot)
            if full or flow.now() - turned > TURN_SECONDS:
                # Delivered rows are kept for a while, but never at the price of capture.
                keep = 0 if full else TURN_SECONDS
                slot = await ring.turn(cursor.slot, self._committed.prev, keep_seconds=keep)
                if slot is not None:
                    turned, cursor.slot = flow.now(), slot
                    if not await cursor.commit(self._epoch, self._committed):
                        raise LeaseLost
            if may_resume(gauge):
                await ring.resume_capture(cursor.slot, gauge.stopped_at)
            await flow.observer.publish()
            await asyncio.sleep(UPKEEP_SECONDS)

    def _position(self) -> Position:
        """How far delivery has come by now."""
        finished = self._flow.delivery.finished()
        if finished is not None:
            page, undelivered = finished
            self._delivered = page.position(undelivered)
        return self._delivered
