"""Delivery into JetStream: plain publishes, one acknowledgement window for each call.

The library's `publish` into a stream waits one round trip for each message, and its `publish_async` leaves
futures that never end when the server dies. Here a call publishes all its events, then waits once; whatever
is not acknowledged when the connection goes or the time is over is a retry. A second way to publish (fast
ingest, for streams that allow it) would take the place of `_publish`, with the same windows and outcomes.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from typing import TYPE_CHECKING

from nats import errors as nats_errors

from ...errors import Reason, SinkError
from ...event import ACTION_NAMES, Event
from ...spec.model import Action, Format, Table
from ...spec.model import NatsSink as NatsSpec
from ..base import Limits, Outcome, Verdict
from . import pub_ack
from .connection import Connection, server_names
from .message import MessageWriter
from .stream import check_streams

if TYPE_CHECKING:
    from .ack_window import AckWindow

_DEADLINE_SECONDS = 5.0
_MAX_BATCH = 1000
_CONCURRENCY = 4
_RECONNECT_FIRST_SECONDS = 0.1
_RECONNECT_MAX_SECONDS = 2.0
# Publishing pauses while the client's buffer holds more than this: a batch of large events is not held twice.
_BUFFER_BYTES = 4 << 20
_WRITE_TOGETHER = 64


class NatsSink:
    """A Sink over JetStream. Safe for several `deliver` calls at once on one event loop."""

    def __init__(
        self,
        spec: NatsSpec,
        *,
        format: Format,  # noqa: A002 - the word of the manifest
        source: str,
        table: Table,
        actions: frozenset[Action] = frozenset(Action),
    ) -> None:
        self._servers = spec.servers
        self._stream = spec.stream
        self._writer = MessageWriter(spec, format=format, source=source, table=table)
        self._patterns = sorted(
            {self._writer.subjects[op].pattern for op, name in ACTION_NAMES.items() if name in actions}
        )
        self._gaps_otherwise = next(op for op, name in ACTION_NAMES.items() if name in actions)
        self._connection: Connection | None = None
        self._reconnecting: asyncio.Task[None] | None = None
        self._down = self._not_connected(None)

    @property
    def limits(self) -> Limits:
        return Limits(max_batch=_MAX_BATCH, concurrency=_CONCURRENCY)

    @property
    def timeout(self) -> float:
        return _DEADLINE_SECONDS

    async def open(self) -> None:
        """Connect, and check that a stream stores the subjects of every watched action; SinkError if not."""
        await self.close()
        connection = await self._connect()
        try:
            await check_streams(connection, self._patterns, self._stream)
            await self._place_gaps(connection)
        except BaseException:
            await connection.close()
            raise
        self._connection = connection
        if connection.lost:
            self._replace(connection)

    async def _place_gaps(self, connection: Connection) -> None:
        """A gap must arrive: where no stream takes its own subject, it goes where the changes go."""
        try:
            await check_streams(connection, [self._writer.subjects["g"].pattern], self._stream)
        except SinkError as error:
            if error.reason is not Reason.NO_STREAM_FOR_SUBJECT:
                raise
            self._writer.send_gaps_as(self._gaps_otherwise)

    async def check(self) -> None:
        """The connection stands and the stream is still there; a lost connection comes back by itself."""
        connection = self._connection
        if connection is None or connection.lost:
            raise SinkError(self._down.reason, self._down.message)
        await check_streams(connection, self._patterns, self._stream)

    async def close(self) -> None:
        if self._reconnecting is not None:
            self._reconnecting.cancel()
            await asyncio.gather(self._reconnecting, return_exceptions=True)
            self._reconnecting = None
        connection, self._connection = self._connection, None
        self._down = self._not_connected(None)
        if connection is not None:
            await connection.close()

    async def deliver(self, events: Sequence[Event]) -> Sequence[Outcome]:
        """Publish `events` and wait for every acknowledgement, 5 s at most."""
        connection = self._connection
        if connection is None or connection.lost:
            if self._reconnecting is not None and self._reconnecting.done():
                # It ends by itself only when connected: whatever stopped it must not stop delivery for good.
                self._reconnecting = asyncio.get_running_loop().create_task(self._reconnect(None))
            return [self._down] * len(events)
        deadline = asyncio.get_running_loop().time() + _DEADLINE_SECONDS
        answers_before = connection.windows.answers
        window = connection.windows.open(len(events))
        try:
            await self._publish(connection, window, events, deadline)
            if not await window.wait(deadline - asyncio.get_running_loop().time()):
                window.settle_rest(self._late())
                if connection.windows.answers == answers_before:
                    # Not one answer in all that time, to anybody: the peer is gone without a word.
                    self._replace(connection)
        finally:
            connection.windows.close(window)
        return [outcome or self._late() for outcome in window.outcomes]

    async def _publish(
        self, connection: Connection, window: AckWindow, events: Sequence[Event], deadline: float
    ) -> None:
        client, write, largest = connection.client, self._writer.write, connection.client.max_payload
        for first in range(0, len(events), _WRITE_TOGETHER):
            if not await self._room(connection, window, deadline):
                return
            commands = []
            for place, event in enumerate(events[first : first + _WRITE_TOGETHER], first):
                command, size = write(event, f"{connection.inbox}{window.base + place}")
                if size > largest:
                    # The server would close the connection over it.
                    window.settle(place, _too_large(size, largest))
                else:
                    commands.append(command)
            try:
                await client.send(b"".join(commands))
            except (nats_errors.Error, OSError):
                # The disconnect settles the window, and this makes sure of it.
                window.settle_rest(self._not_connected(None))
                return

    async def _room(self, connection: Connection, window: AckWindow, deadline: float) -> bool:
        """Wait until the client's buffer is short; False when it is no use to go on."""
        loop = asyncio.get_running_loop()
        while connection.client.pending_data_size > _BUFFER_BYTES:
            if window.done or connection.lost or loop.time() >= deadline:
                return False
            await asyncio.sleep(0.001)
        return not (window.done or connection.lost)

    async def _connect(self) -> Connection:
        connection = Connection(self._servers, self._stream, lambda: self._replace(connection))
        await connection.connect()
        return connection

    def _replace(self, lost: Connection) -> None:
        """`lost` is of no more use: connect anew in the background, for as long as it takes."""
        if self._connection is lost and self._reconnecting is None:
            self._connection = None
            self._down = self._not_connected(None)
            self._reconnecting = asyncio.get_running_loop().create_task(self._reconnect(lost))

    async def _reconnect(self, lost: Connection | None) -> None:
        if lost is not None:
            await lost.close()
        pause = _RECONNECT_FIRST_SECONDS
        while True:
            try:
                connection = await self._connect()
            except SinkError as error:
                self._down = self._not_connected(error)
                await asyncio.sleep(pause * random.uniform(0.5, 1.5))  # noqa: S311 - spreads load only
                pause = min(pause * 2, _RECONNECT_MAX_SECONDS)
                continue
            if not connection.lost:
                self._connection, self._reconnecting = connection, None
                return
            await connection.close()

    def _not_connected(self, error: SinkError | None) -> Outcome:
        if error is not None:
            return Outcome(Verdict.RETRY, error.reason, error.message, endpoint=True)
        return pub_ack.unreachable(f"not connected to NATS at {server_names(self._servers)}")

    def _late(self) -> Outcome:
        return pub_ack.unreachable(
            f"NATS at {server_names(self._servers)} did not acknowledge within {_DEADLINE_SECONDS:g} s"
        )


def _too_large(size: int, largest: int) -> Outcome:
    return Outcome(
        Verdict.REJECTED,
        Reason.SINK_UNREACHABLE,
        f"the event has {size} bytes and the NATS server takes {largest}: send fewer columns, "
        "or raise max_payload on the server",
    )
