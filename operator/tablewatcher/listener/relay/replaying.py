"""Delivered events that the ring still holds, sent again when a person asks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import groupby

import structlog

from ...errors import in_short
from ...event import Event
from ...postgres.requests import TRIED_ON, Request, State
from ...postgres.ring.outbox import Outbox
from ...postgres.ring.position import Position
from ...postgres.ring.snapshot import Snapshot
from ..decide.backlog import BARRIERS
from .aside import Aside
from .flow import Flow
from .keeping import Keeping
from .searching import Search, read_so_far, undelivered
from .turns import Stall, Turns

log = structlog.get_logger("tablewatcher.listener")

# Before the first transaction: everything there is comes after it.
_NOTHING = Snapshot.parse("1:1:")
_PIECE = 1000
_STEP = 0.02
_LEFT_STEP = 0.2
_MOST_KEYS = 1000


@dataclass(slots=True)
class _Sent:
    """What has come of a request: how far it is, and what is said of that. left: events that are not accepted yet;
    aside: how many are put aside."""

    asked: Request
    state: State = State.DONE
    text: str = ""
    left: list[Event] = field(default_factory=list)
    aside: int = 0

    @property
    def message(self) -> str:
        aside = ""
        if self.aside:
            were, are = ("was", "is") if self.aside == 1 else ("were", "are")
            aside = f"; {self.aside} of them {were} refused and {are} put aside"
        return f"{self.asked.done} sent again{aside}{self.text}"


class Replaying:
    """Requests to send delivered rows of the ring again. turns: of all requests that send."""

    def __init__(self, flow: Flow, aside: Aside, keeping: Keeping, turns: Turns) -> None:
        self._flow = flow
        self._aside = aside
        self._keeping = keeping
        self._requests = flow.channels.requests
        self._turns = turns

    async def send(self, asked: Request) -> None:
        """Sends what the ring holds and is meant, while live delivery waits."""
        async with self._turns:
            try:
                sent = await self._send_all(asked, await self._found(asked))
            finally:
                self._let_live_go()
        await self._finish(sent)

    async def _found(self, asked: Request) -> Sequence[Event] | None:
        """All that is meant, of one key, looked for while live delivery goes on, which waits from then on.

        None: it has to be read page by page, also where the key is that of a truncated table.
        """
        if asked.key is None or asked.key == "_":
            await self._pause_live()
            return None
        search = Search(self._flow, asked, asked.key)
        try:
            await search.run(self._keeping)
            await self._pause_live()
            return search.delivered()
        finally:
            search.end()

    async def _send_all(self, asked: Request, found: Sequence[Event] | None) -> _Sent:
        """found: all that is meant, where that is known."""
        history, sent = self._flow.channels.history, _Sent(asked)
        if found is not None:
            there, pieces = len(found), self._pieces_of(found, asked)
        else:
            position = read_so_far(self._flow, self._keeping)
            first, there = await history.since(asked.since, asked.key, position)
            pieces = self._pieces(asked, first, position, there)
        # A predecessor may have begun it, nobody was there for long, or rows have gone while they were counted.
        extent = await history.extent()
        if refusal := extent.lacks(asked.since):
            sent.state, sent.text = State.FAILED, f"; {refusal}"
            return sent
        nothing = "" if there or asked.key is None else _nothing_of(asked.key)
        # What a predecessor has sent, but for the rest, counts already.
        is_rest = asked.keys is not None
        sent.asked = replace(asked, state=State.RUNNING, done=asked.done if is_rest else 0, total=there)
        await self._requests.update(sent.asked)
        async for read, piece in pieces:
            there -= read
            if piece:
                await self._send(piece, behind=bool(sent.left))
                await self._take_stock(sent, piece)
                sent.asked = replace(sent.asked, done=sent.asked.done + (0 if is_rest else len(piece)))
                await self._requests.update(sent.asked)
        sent.asked = replace(sent.asked, total=sent.asked.done + there)
        sent.text = nothing
        if there:
            sent.state = State.FAILED
            sent.text += _gone(there, (await history.extent()).oldest)
        sent.text += extent.precedes(asked.since)
        return sent

    async def _send(self, piece: Sequence[Event], *, behind: bool) -> None:
        """Until a piece is settled, but for events that are refused. behind: some of those are of an earlier piece.

        Live delivery must not wait for those for ever; and once is enough, however many pieces have events that stand
        behind them. Where the endpoint takes nothing at all, it goes on too and may be the next probe, and so may
        another request.
        """
        flow, delivery, rest = self._flow, self._flow.delivery, list(piece)
        while rest:
            await self._pause_live()
            delivery.release(rest)
            flow.changed.set()
            stall = Stall(flow.now())
            while left := delivery.unsettled(rest):
                await asyncio.sleep(_STEP)
                # With the endpoint well again the time begins anew: the first that it accepts may be another's.
                is_well = not (delivery.circuit.failures or delivery.halted)
                is_left = behind and is_well and delivery.is_quiet
                if not (is_left or stall.lasts((left, is_well), flow.now())):
                    continue
                if is_well:
                    return
                self._let_live_go()
                if self._turns.wanted:
                    break
            withdrawn = await self._aside.take_back(rest) if left else set()
            rest = [event for event in rest if event in withdrawn]
            if rest:
                await self._turns.pass_on()

    async def _take_stock(self, sent: _Sent, events: Sequence[Event]) -> None:
        """Notes which of these, that are sent, are not accepted: none of them is to be forgotten after a kill."""
        delivery, again = self._flow.delivery, self._flow.delivery.again
        if not (again.open or again.given_up):
            return
        await self._aside.settle()
        # There may be no room to write down what is given up.
        waiting = again.open.union(parking.event for parking in delivery.aside)
        sent.left += [event for event in events if event in waiting]
        aside = again.given_up.intersection(events) - waiting
        again.given_up -= aside
        sent.aside += len(aside)

    async def _pause_live(self) -> None:
        """What is read already goes out first: nothing of it comes in the middle of what is sent again."""
        flow = self._flow
        stall = Stall(flow.now())
        while True:
            flow.replaying = True
            flow.room.clear()
            # Polled: it is seldom, and what it waits for takes a sink's answer at least.
            while not (flow.delivery.is_quiet and not flow.reading):
                await asyncio.sleep(_STEP)
                if stall.lasts(flow.delivery.accepted, flow.now()) and self._turns.wanted:
                    break
            else:
                return
            self._let_live_go()
            await self._turns.pass_on()
            stall = Stall(flow.now())

    def _let_live_go(self) -> None:
        self._flow.replaying = False
        self._flow.make_room()

    async def _pieces_of(self, found: Sequence[Event], asked: Request) -> AsyncIterator[tuple[int, list[Event]]]:
        """The same in one piece."""
        aside = await self._flow.channels.parked.event_ids()
        yield len(found), [event for event in _left_of(found, asked.keys) if event.event_id not in aside]

    async def _pieces(
        self, asked: Request, first: int, position: Position, number: int
    ) -> AsyncIterator[tuple[int, list[Event]]]:
        """What is delivered and meant, from ring id `first` on, in the order of delivery, a barrier by itself.

        Each piece with the number of rows that it stands for: what is aside is left out, and what is read and is not
        delivered. number: of all that are meant.
        Keys have no index, for writers would pay for it: what lies between is read, but nothing behind the last one.
        """
        if not number:
            return
        channels = self._flow.channels
        waiting, aside = undelivered(self._flow), await channels.parked.event_ids()
        outbox = channels.outbox.for_replay(asked.id)
        ranges: list[tuple[Position, int | None]] = [(Position(_NOTHING, position.prev, first - 1), None)]
        if position.cur is not None:
            ranges.append((Position(position.prev, position.cur, first - 1), position.after_id))
        for start, through in ranges:
            async for events in _read(outbox, start, through):
                meant = [event for event in events if _is_meant(event, asked)]
                left = _left_of(meant, asked.keys)
                there = [event for event in left if event.event_id not in aside and event.ring_id not in waiting]
                yield len(meant) - len(there), []
                for event in there:
                    event.replay = asked.id
                for piece in _divided(there):
                    yield len(piece), piece
                number -= len(meant)
                if number <= 0:
                    return

    async def _finish(self, sent: _Sent) -> None:
        """Tells what has come of it. While events are tried on it stays open: a successor sends those of their rows."""
        if sent.left and sent.state is State.DONE:
            message = f"{sent.message}; {_of_them(sent.left)} {TRIED_ON}"
            await self._requests.update(replace(sent.asked, message=message, keys=_keys_of(sent.left)))
            log.info(message, watcher=self._flow.spec.qualified_name, number=sent.asked.id)
            while sent.left:
                await asyncio.sleep(_LEFT_STEP)
                left, sent.left = sent.left, []
                await self._take_stock(sent, left)
        rest = f"; {_of_them(sent.left)} not accepted yet" if sent.left else ""
        message = f"{sent.message}{rest}"
        await self._requests.update(replace(sent.asked, state=sent.state, message=message))
        log.info(message, watcher=self._flow.spec.qualified_name, number=sent.asked.id)


def _of_them(events: Sequence[Event]) -> str:
    return f"{len(events)} of them {'is' if len(events) == 1 else 'are'}"


async def _read(outbox: Outbox, start: Position, through: int | None) -> AsyncIterator[list[Event]]:
    """The pages of one batch; with `through` up to that ring id."""
    position = start
    while position.cur is not None and (page := await outbox.next_page(position, _PIECE)) is not None:
        yield [event for event in page.events if through is None or event.ring_id <= through]
        position = page.position(None)


def _gone(number: int, oldest: datetime | None) -> str:
    since = f", which holds events since {oldest.isoformat()} now" if oldest else ""
    return (
        f"; {'1 more is' if number == 1 else f'{number} more are'} gone: room was needed in the ring{since};"
        " raise spec.delivery.overflow.maxBytes to keep more"
    )


def _nothing_of(key: str) -> str:
    return (
        f": the ring holds no delivered event of key {in_short(key)} since then; a key is written as `partitionkey` of"
        " its events has it"
    )


def _is_meant(event: Event, asked: Request) -> bool:
    if asked.since is not None and event.captured_at < asked.since.timestamp():
        return False
    return event.op != "g" and (asked.key is None or asked.key in event.lane_keys)


def _keys_of(left: Sequence[Event]) -> Sequence[str] | None:
    """The rows that a successor has to send again; None, for all, where they are many."""
    keys = {key for event in left for key in event.lane_keys}
    return sorted(keys) if len(keys) <= _MOST_KEYS else None


def _left_of(events: Iterable[Event], keys: Sequence[str] | None) -> Iterator[Event]:
    """Those that may be left of what a predecessor has sent. keys: their rows; None: nobody has noted that."""
    known = frozenset(keys or ())
    return (event for event in events if keys is None or not known.isdisjoint(event.lane_keys))


def _divided(events: list[Event]) -> Iterator[list[Event]]:
    """`events` in pieces in which barriers stand alone: what is added to a delivery has no barriers."""
    for is_barrier, group in groupby(events, key=lambda event: event.op in BARRIERS):
        if is_barrier:
            yield from ([event] for event in group)
        else:
            yield list(group)
