"""What one watcher puts aside, and what comes back from there."""

from __future__ import annotations

import asyncio
from collections.abc import Container, Sequence
from dataclasses import replace

from ..event import Event
from ..postgres.parked import PIECE_EVENTS, Held, Row
from .delivery import Parking
from .flow import Flow, LeaseLost

# How soon after a change all are counted anew.
COUNT_SECONDS = 0.5


class Aside:
    """Writes down events that delivery gives up, and forgets those that are delivered in the end.

    failed: keys of events that came back and were put aside once more. ring_bytes: the size of the ring, which shares
    the room.
    """

    def __init__(self, flow: Flow) -> None:
        self._flow = flow
        self._parked = flow.channels.parked
        self._held = Held()
        self._back: set[Event] = set()
        self._lock = asyncio.Lock()
        self._count_at = 0.0
        self._full = False
        self.ring_bytes = 0
        self.failed: set[str] = set()

    async def begin(self) -> None:
        """Before anything is read: keys with events aside must not be overtaken."""
        self._flow.delivery.parked(await self._parked.keys())
        await self.count()

    async def settle(self) -> None:
        """Writes down what is given up, as far as there is room, and deletes what came back and is delivered."""
        delivery = self._flow.delivery
        if not (delivery.aside or delivery.resent or self._lock.locked()):
            if 0 < self._count_at <= self._flow.now():
                await self.count()
            return
        async with self._lock:
            await self._write()
            settled = len(delivery.resent)
            resent = [event for event in delivery.resent if event in self._back]
            if resent:
                await self._parked.delete(resent)
            # Only now: cancelled before, they are still to be deleted. Others may have come meanwhile.
            del delivery.resent[:settled]
            self._back.difference_update(resent)
        # Not each time: where a busy key is aside, all are counted.
        if not self._count_at:
            self._count_at = self._flow.now() + COUNT_SECONDS
        if self._count_at <= self._flow.now():
            await self.count()
        self._flow.make_room()
        self._flow.changed.set()

    async def bring_back(self, keys: Sequence[str], replay: int) -> Sequence[Event]:
        """Puts the first events of `keys` back into delivery, as many as one piece has; they are returned."""
        async with self._lock:
            await self._write()
            events, more = await self._parked.first(keys, replay)
            # Nothing may come between what was read and what is let in.
            self._back.update(events)
            self._flow.delivery.release(events, set(keys) - more, convicted=True)
        self._flow.changed.set()
        return events

    async def _write(self) -> None:
        delivery = self._flow.delivery
        while delivery.aside:
            room = self._flow.spec.delivery.overflow_bytes - self.ring_bytes - self._held.bytes
            piece = that_fits(delivery.aside[:PIECE_EVENTS], room, self._back)
            self._full = not piece
            if not piece:
                return
            if not await self._parked.write(self._flow.lease.epoch, [_row(parking) for parking in piece]):
                raise LeaseLost
            for parking in piece:
                if parking.event in self._back:
                    self._back.discard(parking.event)
                    self.failed.update(parking.event.lane_keys)
            delivery.put_aside(len(piece))
            size = sum(len(parking.event.body) for parking in piece)
            self._held = replace(self._held, events=self._held.events + len(piece), bytes=self._held.bytes + size)

    async def count(self) -> None:
        """Looks how much is aside, and tells it."""
        self._count_at = 0.0
        self._held = await self._parked.held()
        self._flow.observer.parked(self._held, full=self._full and bool(self._flow.delivery.aside))


def that_fits(aside: Sequence[Parking], room: int, back: Container[Event]) -> Sequence[Parking]:
    """The first of `aside` that fit in `room` bytes. Those of `back` have their place already."""
    for nth, parking in enumerate(aside):
        if parking.event in back:
            continue
        room -= len(parking.event.body)
        if room < 0:
            return aside[:nth]
    return aside


def _row(parking: Parking) -> Row:
    outcome = parking.outcome
    if outcome is None:
        return Row(parking.event)
    return Row(parking.event, parking.attempts, str(outcome.reason), outcome.message)
