"""Requests of people, done under the lease: events put aside come back or go, delivered ones are sent again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import replace
from itertools import groupby

import structlog

from ..event import Event
from ..postgres.outbox import Outbox, Position
from ..postgres.requests import LOOK_SECONDS, Kind, Request, State
from ..postgres.snapshot import Snapshot
from .aside import Aside
from .backlog import BARRIERS
from .flow import Flow
from .keeping import Keeping

log = structlog.get_logger("tablewatcher.listener")

# Before the first transaction: everything there is comes after it.
_NOTHING = Snapshot.parse("1:1:")
_PIECE = 1000
_STEP = 0.02
# So long without one more event accepted, a replay is stuck at what is refused.
STUCK_SECONDS = 3.0


class Replaying:
    """Does one request after the other."""

    def __init__(self, flow: Flow, aside: Aside, keeping: Keeping) -> None:
        self._flow = flow
        self._aside = aside
        self._keeping = keeping
        self._requests = flow.channels.requests

    async def run(self) -> None:
        """Until cancelled. Raises DatabaseError."""
        channels = self._flow.channels
        while True:
            asked = None
            if not self._flow.spec.suspend and await channels.open_requests.has(channels.names):
                asked = await self._requests.next()
            if asked is None:
                await asyncio.sleep(LOOK_SECONDS)
            else:
                log.info("request", watcher=self._flow.spec.qualified_name, kind=str(asked.kind), number=asked.id)
                await self._do(asked)

    async def _do(self, asked: Request) -> None:
        if asked.kind is Kind.SKIP:
            await self._skip(asked)
        elif asked.kind is Kind.PARKED:
            await self._send_parked(asked)
        else:
            await self._replay(asked)

    async def _skip(self, asked: Request) -> None:
        number, freed, empty = await self._requests.drop(asked)
        self._flow.delivery.release((), empty)
        self._flow.changed.set()
        await self._aside.count()
        asked = replace(asked, kind=Kind.PARKED, keys=freed, done=number, total=number)
        if freed:
            await self._send_parked(asked)
        else:
            await self._finish(asked, f"{number} dropped")

    async def _send_parked(self, asked: Request) -> None:
        """Sends what is aside of some keys, in order and piece by piece; a key that fails again stays aside."""
        keys = asked.keys if asked.keys is not None else await self._requests.selected(asked)
        left = set(await self._flow.channels.parked.lanes_of(keys))
        asked = replace(asked, keys=sorted(left), state=State.RUNNING)
        await self._requests.update(asked)
        sent = 0
        self._aside.failed.clear()
        while left:
            events = await self._aside.bring_back(sorted(left), asked.id)
            await self._settled(events)
            failed = self._aside.failed
            sent += sum(1 for event in events if failed.isdisjoint(event.lane_keys))
            left -= failed
            if not events:
                break
            asked = replace(asked, done=sent, total=max(sent, asked.total))
            await self._requests.update(asked)
        again = sorted(self._aside.failed)
        if again:
            await self._finish(asked, f"{sent} sent; parked again: key {', '.join(again[:5])}", State.FAILED)
        else:
            await self._finish(asked, f"{sent} sent")

    async def _replay(self, asked: Request) -> None:
        """Sends delivered rows of the ring again, while live delivery waits."""
        flow = self._flow
        try:
            left = 0
            await self._pause_live()
            first, total = await flow.channels.history.since(asked.since, asked.key)
            asked = replace(asked, state=State.RUNNING, total=total, done=0)
            await self._requests.update(asked)
            async for piece in self._pieces(asked, first):
                await self._pause_live()
                flow.delivery.release(piece)
                flow.changed.set()
                left += await self._mostly_settled(piece)
                asked = replace(asked, done=asked.done + len(piece))
                await self._requests.update(asked)
            refused = f"; {left} of them are refused and tried on" if left else ""
            await self._finish(asked, f"{asked.done} sent again{refused}")
        finally:
            self._let_live_go()

    async def _pause_live(self) -> None:
        """What is read already goes out first: nothing of it comes in the middle of what is sent again."""
        flow = self._flow
        flow.replaying = True
        flow.room.clear()
        await self._until(lambda: flow.delivery.is_quiet and not flow.reading)

    def _let_live_go(self) -> None:
        self._flow.replaying = False
        self._flow.make_room()

    async def _mostly_settled(self, piece: Sequence[Event]) -> int:
        """Until a piece is settled, but for events that are refused, whose number is returned.

        Live delivery must not wait for those for ever. Where the endpoint takes nothing at all, it goes on too and may
        be the next probe.
        """
        flow, delivery = self._flow, self._flow.delivery
        left, since = delivery.unsettled(piece), flow.now()
        while left:
            await asyncio.sleep(_STEP)
            if (now_left := delivery.unsettled(piece)) != left:
                left, since = now_left, flow.now()
            elif flow.now() - since > STUCK_SECONDS:
                if not delivery.circuit.failures:
                    break
                self._let_live_go()
        return left

    async def _pieces(self, asked: Request, first: int) -> AsyncIterator[list[Event]]:
        """Delivered events that are meant, from ring id `first` on, in the order of delivery, a barrier by itself."""
        channels, position = self._flow.channels, self._keeping.position()
        outbox, aside = channels.outbox.for_replay(asked.id), await channels.parked.event_ids()
        ranges: list[tuple[Position, int | None]] = [(Position(_NOTHING, position.prev, first - 1), None)]
        if position.cur is not None:
            ranges.append((Position(position.prev, position.cur, first - 1), position.after_id))
        for start, through in ranges:
            async for events in _read(outbox, start, through):
                meant = [event for event in events if _is_meant(event, asked) and event.event_id not in aside]
                for event in meant:
                    event.replay = asked.id
                for piece in _divided(meant):
                    yield piece

    async def _settled(self, events: Sequence[Event]) -> None:
        """Until all that came back is delivered, or put aside once more."""
        await self._until(lambda: not self._flow.delivery.unsettled(events))
        await self._aside.settle()

    async def _until(self, condition: Callable[[], bool]) -> None:
        # Polled: it is seldom, and what it waits for takes a sink's answer at least.
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(_STEP)

    async def _finish(self, asked: Request, message: str, state: State = State.DONE) -> None:
        await self._requests.update(replace(asked, state=state, message=message))
        log.info(message, watcher=self._flow.spec.qualified_name, number=asked.id)


async def _read(outbox: Outbox, start: Position, through: int | None) -> AsyncIterator[list[Event]]:
    """The pages of one batch; with `through` up to that ring id."""
    position = start
    while position.cur is not None and (page := await outbox.next_page(position, _PIECE)) is not None:
        yield [event for event in page.events if through is None or event.ring_id <= through]
        position = page.position(None)


def _is_meant(event: Event, asked: Request) -> bool:
    if asked.since is not None and event.captured_at < asked.since.timestamp():
        return False
    return event.op != "g" and (asked.key is None or asked.key in event.lane_keys)


def _divided(events: list[Event]) -> Iterator[list[Event]]:
    """`events` in pieces in which barriers stand alone: what is added to a delivery has no barriers."""
    for is_barrier, group in groupby(events, key=lambda event: event.op in BARRIERS):
        if is_barrier:
            yield from ([event] for event in group)
        else:
            yield list(group)
