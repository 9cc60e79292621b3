"""The ways to publish a call's events over one connection, and what each promises. Sinks choose; see `sink.py`.

The client library's `publish` into a stream waits one round trip for each message, and its `publish_async` leaves
futures that never end when the server dies. Here a call publishes all its events, then waits once; whatever is not
acknowledged when the connection goes or the time is over is a retry.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Protocol

from nats import errors as nats_errors

from ...event import Event
from ..base import DELIVERED, Limits, Outcome
from . import fast_batch, order, pub_ack
from .ack_window import AckWindow
from .connection import Connection, OpenBatch
from .message import MessageWriter
from .repeats import Repeats

DEADLINE_SECONDS = 5.0
LATE = pub_ack.unreachable(
    f"NATS did not acknowledge in {DEADLINE_SECONDS:g} s or less: look into its log, and at its load and its disk"
)
_LOST = pub_ack.unreachable("the connection to NATS was lost while the event was sent")
_WRITE_TOGETHER = 64
# Measured on one machine: plain publishes answer sooner up to a hundred events (2: 0.12 against 0.26 ms, 50: 0.44
# against 0.54), batches beyond; over a network the batch's second round trip weighs more.
_FEW = 128
# A silent batch is asked how far it is: its acknowledgement, or the one before, may have been lost on the way.
_SILENCE_SECONDS = 1.0


class Way(Protocol):
    """`deliver` sends `events`, none of which the server would cut the connection for, and never raises for a fault."""

    @property
    def limits(self) -> Limits: ...

    async def deliver(self, connection: Connection, events: Sequence[Event], deadline: float) -> list[Outcome]: ...


class WindowWay:
    """Plain publishes into a stream, one window of acknowledgements for each call. They are stored in any order."""

    limits = Limits(max_batch=1000, concurrency=4)

    def __init__(self, writer: MessageWriter) -> None:
        self._writer = writer

    async def deliver(self, connection: Connection, events: Sequence[Event], deadline: float) -> list[Outcome]:
        if order.distinct(events):
            return await self._publish(connection, events, deadline)
        # Limits may have changed while the call was made up: events of one key go one after the other.
        parts = order.Parts(events)
        while part := parts.sendable(one_a_key=True):
            parts.settle(await self._publish(connection, part, deadline))
        return parts.outcomes

    async def _publish(self, connection: Connection, events: Sequence[Event], deadline: float) -> list[Outcome]:
        window = connection.windows.open(len(events))
        try:
            async with asyncio.timeout_at(deadline):
                for first in range(0, len(events), _WRITE_TOGETHER):
                    if window.done:
                        break
                    some = events[first : first + _WRITE_TOGETHER]
                    await connection.client.send(self._writer.commands(some, connection.inbox, window.base + first))
                await window.wait()
        except TimeoutError:
            window.settle_rest(window.doubt or LATE)
        except (nats_errors.Error, OSError):
            # The disconnect settles the window, and this makes sure of it.
            window.settle_rest(_LOST)
        finally:
            connection.windows.close(window)
        return [outcome or LATE for outcome in window.outcomes]


class FastWay:
    """Fast ingest into `stream`: in the order given, up to the first that is not stored.

    A batch costs two round trips, and plain publishes one: a few events of different keys go that way. repeats: of a
    stream with copies; all go that way while there may be some.
    """

    def __init__(self, writer: MessageWriter, stream: str, *, repeats: Repeats | None = None) -> None:
        self._writer = writer
        self._stream = stream
        self._repeats = repeats
        self._window = WindowWay(writer)
        # Set once the server says that this stream takes no batches (any more).
        self.unusable = False

    @property
    def limits(self) -> Limits:
        return self._window.limits if self._plain else Limits(max_batch=4096, concurrency=1, ordered=True)

    @property
    def _plain(self) -> bool:
        return self.unusable or (self._repeats is not None and self._repeats.possible(time.monotonic()))

    async def deliver(self, connection: Connection, events: Sequence[Event], deadline: float) -> list[Outcome]:
        # A replay that was begun before us: its number is the same.
        again = self._repeats is not None and any(event.replay for event in events)
        if self._plain or again or len(events) == 1 or (len(events) <= _FEW and order.distinct(events)):
            return await self._window.deliver(connection, events, deadline)
        parts = order.Parts(events)
        while len(part := parts.sendable()) > 1 and not self.unusable:
            batch = await self._send(connection, part, deadline)
            parts.settle([DELIVERED] * batch.stored + self._faults(batch))
        if part:
            parts.settle(await self._window.deliver(connection, part, deadline))
        return parts.outcomes

    def _faults(self, batch: fast_batch.FastBatch) -> list[Outcome]:
        """What came of those that follow the stored ones: none of what was never said."""
        if batch.unusable:
            self.unusable = True
            return []
        fault, left = batch.fault or LATE, batch.size - batch.stored
        return [fault] * (left if fault.endpoint else min(left, 1))

    async def _send(self, connection: Connection, events: Sequence[Event], deadline: float) -> fast_batch.FastBatch:
        with connection.batch(len(events), self._stream) as opened:
            try:
                async with asyncio.timeout_at(deadline):
                    await self._publish(connection, opened, events)
            except TimeoutError:
                opened.end(opened.batch.doubt or LATE)
            except (nats_errors.Error, OSError):
                opened.end(_LOST)
            return opened.batch

    async def _publish(self, connection: Connection, opened: OpenBatch, events: Sequence[Event]) -> None:
        batch, client = opened.batch, connection.client
        reply = fast_batch.reply(connection.inbox, opened.name)
        sent = 0
        while not batch.over:
            opened.changed.clear()
            room = batch.room
            if sent < room:
                commands = self._stretch(events, sent, room, reply)
                sent = room
                await client.send(commands)
            elif batch.unfinished or not await _set_within(opened.changed, _SILENCE_SECONDS):
                batch.unfinished = False
                question = f"{reply}{sent}{fast_batch.tail(fast_batch.PING)}"
                await client.send(self._writer.empty(events[0], question))

    def _stretch(self, events: Sequence[Event], sent: int, room: int, reply: str) -> bytes:
        """Messages `sent + 1` to `room`: the first one opens the batch, the last one of all closes it."""
        write, size = self._writer.commands, len(events)
        parts = []
        if not sent:
            parts.append(write(events[:1], reply, 1, fast_batch.tail(fast_batch.START)))
        middle = max(sent, 1)
        parts.append(write(events[middle : min(room, size - 1)], reply, middle + 1, fast_batch.tail(fast_batch.APPEND)))
        if room == size:
            parts.append(write(events[-1:], reply, size, fast_batch.tail(fast_batch.COMMIT)))
        return b"".join(parts)


async def _set_within(event: asyncio.Event, seconds: float) -> bool:
    # Not wait_for: before Python 3.12 it may swallow a cancellation.
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return False
    return True


class CoreWay:
    """Core NATS: published, and no more. Delivered means that the server has read it, not that anybody got it."""

    limits = Limits(max_batch=4096, concurrency=1, ordered=True)

    def __init__(self, writer: MessageWriter) -> None:
        self._writer = writer

    async def deliver(self, connection: Connection, events: Sequence[Event], deadline: float) -> list[Outcome]:
        # One place for the whole call: a refusal that comes before the server's PONG settles it, and so does a loss.
        window = connection.windows.open(1)
        try:
            async with asyncio.timeout_at(deadline):
                for first in range(0, len(events), _WRITE_TOGETHER):
                    await connection.client.send(self._writer.commands(events[first : first + _WRITE_TOGETHER], ""))
                await self._read_by_server(connection, window)
            window.settle(0, DELIVERED)
        except TimeoutError:
            window.settle_rest(LATE)
        except (nats_errors.Error, OSError):
            window.settle_rest(_LOST)
        finally:
            connection.windows.close(window)
        return [window.outcomes[0] or LATE] * len(events)

    @staticmethod
    async def _read_by_server(connection: Connection, window: AckWindow) -> None:
        """Until the server has read what was sent, or `window` is settled: a PONG does not come from a lost one."""
        pong = asyncio.ensure_future(connection.round_trip(int(DEADLINE_SECONDS) + 1))
        settled = asyncio.ensure_future(window.wait())
        try:
            await asyncio.wait({pong, settled}, return_when=asyncio.FIRST_COMPLETED)
            if pong.done():
                pong.result()
        finally:
            for task in (pong, settled):
                task.cancel()
            await asyncio.gather(pong, settled, return_exceptions=True)
