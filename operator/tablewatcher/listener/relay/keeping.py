"""The keeping part of a relay: the cursor, the proof of the lease, and the ring's upkeep."""

from __future__ import annotations

import asyncio

from ...errors import DatabaseError, Reason
from ...postgres.ring.cursor_log import LeaseLost
from ...postgres.ring.lineage import Read
from ...postgres.ring.position import Position
from ...postgres.ring.upkeep import Gauge, may_resume
from ..decide.turning import Turning
from .aside import Aside
from .flow import Flow

COMMIT_SECONDS = 0.1
# Leases are proved together more often than that, where they can be.
RENEW_SECONDS = 2.5
UPKEEP_SECONDS = 5.0
# While capture stands still or a backlog is drained, and for a ring so small that it may fill up between two looks.
HASTE_SECONDS = 1.0
SMALL_RING = 64 << 20
DRIFT_SECONDS = 10.0
HELD_SECONDS = 5.0
# Of the bound: up to here a replay keeps the rows that it is to send.
HELD_SHARE = 3 / 4
FOR_EVER = 1e9


class Keeping:
    """Writes down how far one watcher has come."""

    def __init__(self, flow: Flow, aside: Aside) -> None:
        self._flow = flow
        self._aside = aside
        self._epoch = flow.lease.epoch
        self._committed = self._delivered = flow.lease.position
        self._turning = Turning(flow.spec.delivery.retention_seconds, flow.now())

    async def cursor(self) -> None:
        """Commits the cursor while there is news, and sees that the lease is proved. Until cancelled."""
        flow, cursor = self._flow, self._flow.channels.cursor
        with flow.channels.proofs.kept(cursor, flow.proof) as kept:
            while not kept.lost:
                await asyncio.sleep(COMMIT_SECONDS)
                # In this order: the cursor passes no event whose predecessor came back and is still noted as aside.
                position = self.position()
                await self._aside.settle()
                asked = kept.at
                if position != self._committed or flow.now() - asked > RENEW_SECONDS:
                    asked = flow.now()
                    # While rows come fast, the writers' own commits flush the WAL, and often.
                    if not await cursor.commit(self._epoch, position, durable=not flow.pace.busy):
                        raise LeaseLost
                    self._committed, kept.at = position, asked
                if asked > flow.proof:
                    flow.proof = asked
                    flow.changed.set()
        raise LeaseLost

    async def release(self, *, settled: bool) -> None:
        """Commits how far delivery has come, and lets go of the lease.

        settled: what came back is written down as delivered. Else the cursor stays: past what follows it, that would
        be sent out of order.
        """
        position = self.position() if settled else self._committed
        await self._flow.channels.cursor.commit(self._epoch, position, release=True)

    async def upkeep(self) -> None:
        """Turns the ring, starts capture again after an overflow, tells gaps, and looks whether capture stands.

        Until cancelled.
        """
        flow, channels = self._flow, self._flow.channels
        haste = HASTE_SECONDS if channels.ring.bound < SMALL_RING else UPKEEP_SECONDS
        looked, drifted = float("-inf"), ""
        while True:
            read = Read(ring_id=flow.newest_id)  # before the look: what is read meanwhile may be newer than it
            gauge = await channels.ring.gauge()
            # One that slept through its lease in the midst of turning the ring goes on with that when it wakes up.
            channels.cursor.slot = gauge.slot
            if read.is_ahead_of(gauge.last_id):
                raise DatabaseError(Reason.RECONCILING, "the ids of the ring were set back; starting anew")
            if not gauge.stopped_at and gauge.bytes > self._room:
                await channels.ring.stop()
                gauge = await channels.ring.gauge()
            held = await self._turn(gauge)
            # Suspended, nobody reads: what waits is known by a look of its own.
            waits = await channels.ring.unread(self._committed) if flow.spec.suspend else None
            looks = flow.room.is_set()
            flow.observer.ring(
                gauge, flow.delivery.oldest, flow.newest_id, room=self._room, held=held, looks=looks, unread=waits
            )
            if may_resume(gauge, self._room):
                await channels.gaps.resume_capture(gauge.stopped_at)
                gauge = await channels.ring.gauge()
            if gauge.gaps:
                await channels.gaps.announce(channels.cursor.slot)
            if drifted or flow.now() - looked > DRIFT_SECONDS:
                looked, drifted = flow.now(), await channels.drift.look()
                flow.observer.drift(drifted)
            await flow.observer.publish()
            drains = flow.observer.behind.waiting > flow.pace.high_water
            await asyncio.sleep(HASTE_SECONDS if gauge.stopped_at or drains else haste)

    @property
    def _room(self) -> int:
        """Bytes that the ring may take: its bound, but for what is aside."""
        return self._flow.channels.ring.bound - self._aside.bytes

    async def _turn(self, gauge: Gauge) -> str:
        """Turns the ring if it is time. Who has long kept it from that, if it must be and cannot."""
        flow, ring, cursor = self._flow, self._flow.channels.ring, self._flow.channels.cursor
        tight = gauge.stopped_at > 0 or gauge.bytes > self._room * HELD_SHARE
        written = await ring.written(cursor.slot)
        full = tight or written.is_full(self._room)
        if not (full or written.is_long or self._turning.due(flow.now(), gauge.last_id)):
            return ""
        # Delivered rows are kept for a while, and where they are to be sent again; never at the price of capture.
        held = not tight and await flow.channels.requests.want_rows()
        keep = FOR_EVER if held else 0 if full else flow.spec.delivery.retention_seconds
        slot = await ring.turn(cursor.slot, self._committed.prev, keep_seconds=keep)
        if slot is None:
            return await ring.held_by(HELD_SECONDS) if full and not held else ""
        cursor.slot = slot
        self._turning.turned(flow.now(), gauge.last_id)
        if not await cursor.repeat():
            raise LeaseLost
        return ""

    def position(self) -> Position:
        """How far delivery has come by now."""
        finished = self._flow.delivery.finished()
        if finished is not None:
            page, undelivered = finished
            self._delivered = page.position(undelivered)
        return self._delivered
