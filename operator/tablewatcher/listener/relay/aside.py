"""What one watcher puts aside, and what comes back from there."""

from __future__ import annotations

import asyncio
from collections.abc import Container, Sequence
from dataclasses import dataclass, field

from ...event import Event
from ...postgres.parked import PIECE_EVENTS, Held, Row
from ...postgres.requests import Dropped, Request
from ...postgres.ring.cursor_log import LeaseLost
from ..decide.delivery import Parking
from ..decide.lanes import bound_to
from .flow import Flow

_STEP = 0.02


@dataclass(slots=True)
class Wanted:
    """Keys whose events are to come back, and those that are put aside again, with which nothing comes that is bound to
    them.

    links: as of which state of what is aside the keys are all that are bound to one another. Rows change their keys at
    any time, and such an event must not pass what is aside of its other key.
    """

    keys: set[str]
    again: set[str] = field(default_factory=set)
    links: int = -1

    def failed(self, keys: set[str]) -> None:
        """These are aside again."""
        if keys:
            self.again |= keys
            self.keys -= keys
            self.links = -1


class Aside:
    """Writes down events that delivery gives up, and forgets those that are delivered in the end.

    It may take half of the bound, so that the ring has room for all others in any case.

    failed: keys of events that were brought back last and are put aside once more.
    """

    def __init__(self, flow: Flow) -> None:
        self._flow = flow
        self._parked = flow.channels.parked
        self._held = Held()
        self._back: set[Event] = set()
        self._lock = asyncio.Lock()
        self._full = False
        # What there is no room for, while it is tried again, and when it may be once more.
        self._roomless: Sequence[Event] = ()
        self._again_at = 0.0
        # How often an event was written down that is of two keys.
        self._links = 0
        self.failed: set[str] = set()

    @property
    def bytes(self) -> int:
        """Of the data of all that is aside."""
        return self._held.bytes

    async def begin(self) -> None:
        """Before anything is read: keys with events aside must not be overtaken."""
        self._flow.delivery.parked(await self._parked.keys())
        await self._count()

    async def settle(self) -> None:
        """Writes down what is given up, as far as there is room, and deletes what came back and is delivered."""
        delivery = self._flow.delivery
        if not (delivery.aside or delivery.again.delivered or self._lock.locked()):
            return
        async with self._lock:
            await self._write()
            if self._full and delivery.aside and self._flow.now() >= self._again_at:
                await self._try_again()
            resent = list(delivery.again.delivered)
            found = [event for event in resent if event in self._back]
            if found:
                self._held -= await self._parked.delete(found)
            # Only now: cancelled before, they are still to be deleted. Others may have come meanwhile.
            del delivery.again.delivered[: len(resent)]
            self._back.difference_update(found)
        self._tell()
        self._flow.make_room()
        self._flow.changed.set()

    async def bring_back(self, wanted: Wanted, replay: int) -> Sequence[Event]:
        """Puts the first events of the wanted keys back into delivery, as many as one piece has; they are returned."""
        async with self._lock:
            await self._write()
            self.failed = set()
            if wanted.links != self._links:
                bound = set(await self._parked.lanes_of(wanted.keys)) - set(await self._parked.lanes_of(wanted.again))
                wanted.again |= wanted.keys - bound
                wanted.keys, wanted.links = bound, self._links
            events, more = await self._parked.first(sorted(wanted.keys), replay)
            # Nothing may come between what was read and what is let in.
            self._back.update(events)
            self._flow.delivery.release(events, wanted.keys - more, convicted=True)
        self._flow.changed.set()
        return events

    async def take_back(self, events: Sequence[Event]) -> set[Event]:
        """Takes events out of delivery that are not settled, and waits for those under way; which were taken."""
        delivery = self._flow.delivery
        while delivery.unsettled(events):
            delivery.withdraw(events)
            await asyncio.sleep(_STEP)
        await self.settle()
        found = delivery.again.withdrawn.intersection(events)
        delivery.again.withdrawn -= found
        self._back -= found
        self._flow.changed.set()
        return found

    async def drop(self, asked: Request) -> Dropped:
        """Drops what is aside and meant; nothing of it may be in delivery. Keys that have nothing left are free."""
        async with self._lock:
            # What is given up and not written down yet is behind what is: it would be freed with its key.
            await self._write()
            dropped = await self._flow.channels.requests.drop(asked)
            self._flow.delivery.release((), dropped.empty)
        await self._count()
        self._flow.changed.set()
        return dropped

    async def _write(self) -> None:
        delivery = self._flow.delivery
        # What is given up meanwhile is for the next time, or there might be no end: the lease has to be proved, too.
        left = len(delivery.aside)
        while left > 0 and delivery.aside:
            # However full the ring is: what waits for room there keeps the ring from being emptied.
            room = self._flow.spec.delivery.overflow_bytes // 2 - self._held.bytes
            piece = that_fits(delivery.aside, room, self._back)[:PIECE_EVENTS]
            self._full = not piece
            if not piece:
                return
            new = await self._parked.write(self._flow.lease.epoch, [_row(parking) for parking in piece])
            if new is None:
                raise LeaseLost
            self._held += new
            self._links += any(len(parking.event.lane_keys) > 1 for parking in piece)
            for parking in piece:
                if parking.event in self._back:
                    self._back.discard(parking.event)
                    self.failed.update(parking.event.lane_keys)
            delivery.put_aside(piece)
            left -= len(piece)

    async def _try_again(self) -> None:
        """Sends what there is no room for as if it had never failed, where nothing of its keys is written down.

        Else it would wait for room that the ring has not while this waits, and for nobody: it is in no list.
        """
        delivery, aside = self._flow.delivery, self._flow.delivery.aside
        written = set(await self._parked.keys())
        kept = bound_to(written, [parking.event for parking in aside])
        found = [parking for parking in aside if kept.isdisjoint(parking.event.lane_keys)]
        delivery.put_aside(found)
        self._roomless = [parking.event for parking in found]
        delivery.release(self._roomless, {key for event in self._roomless for key in event.lane_keys})
        self._again_at = self._flow.now() + self._flow.spec.delivery.backoff.max_seconds

    async def _count(self) -> None:
        """Looks how much is aside: all of it is read, so only where that is not known from what was done."""
        self._held = await self._parked.held()
        self._tell()

    def _tell(self) -> None:
        delivery = self._flow.delivery
        is_waiting = bool(delivery.aside) or delivery.unsettled(self._roomless) > 0
        self._flow.observer.parked(self._held, full=self._full and is_waiting)


def that_fits(aside: Sequence[Parking], room: int, back: Container[Event]) -> Sequence[Parking]:
    """Those of `aside` that fit in `room` bytes, up to the first that does not. Those of `back` have their place."""
    found: list[Parking] = []
    for parking in aside:
        if parking.event not in back:
            room -= len(parking.event.body)
            if room < 0:
                continue
        found.append(parking)
    return found


def _row(parking: Parking) -> Row:
    outcome = parking.outcome
    if outcome is None:
        return Row(parking.event)
    return Row(parking.event, parking.attempts, str(outcome.reason), outcome.message)
