"""Delivery to NATS: one connection that is made anew for as long as it takes, and the way to publish that it allows."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ...errors import Reason, SinkError
from ...event import ACTION_NAMES, Event
from ...spec.model import Action, Format, Table
from ...spec.model import NatsSink as NatsSpec
from ..base import Limits, Outcome, Verdict
from . import order, pub_ack
from .connection import Connection, server_names
from .message import MessageWriter
from .stream import find_streams
from .subject import covered
from .ways import DEADLINE_SECONDS, LATE, FastWay, Way, WindowWay

if TYPE_CHECKING:
    from nats.js.api import StreamConfig

_RECONNECT_FIRST_SECONDS = 0.1
_RECONNECT_MAX_SECONDS = 2.0


class NatsSink:
    """A Sink over NATS. Safe for several `deliver` calls at once on one event loop."""

    def __init__(
        self,
        spec: NatsSpec,
        *,
        format: Format,  # noqa: A002 - the word of the manifest
        source: str,
        table: Table,
        actions: frozenset[Action] = frozenset(Action),
        routing_columns: Sequence[str] = (),
    ) -> None:
        self._servers = spec.servers
        self._stream = spec.stream
        self._writer = MessageWriter(spec, format=format, source=source, table=table, routing_columns=routing_columns)
        self._patterns = sorted(
            {self._writer.subjects[op].pattern for op, name in ACTION_NAMES.items() if name in actions}
        )
        self._gap_pattern = self._writer.subjects["g"].pattern
        self._gaps_otherwise = next(op for op, name in ACTION_NAMES.items() if name in actions)
        self._way: Way = WindowWay(self._writer)
        self._max_stored: int | None = None
        self._connection: Connection | None = None
        self._reconnecting: asyncio.Task[None] | None = None
        self._down = self._not_connected(None)

    @property
    def limits(self) -> Limits:
        """Of the way that the server and the stream allow, as `open` or `check` has found them last."""
        return self._way.limits

    @property
    def timeout(self) -> float:
        return DEADLINE_SECONDS

    async def open(self) -> None:
        """Connect, and check that a stream stores the subjects of every watched action; SinkError if not."""
        await self.close()
        connection = await self._connect()
        try:
            await self._look(connection)
        except BaseException:
            await connection.close()
            raise
        self._connection = connection
        if connection.lost:
            self._replace(connection)

    async def _look(self, connection: Connection) -> None:
        """What the streams allow decides how events are published from now on."""
        configs = await find_streams(connection, self._patterns, self._stream)
        if not any(covered(config.subjects or (), self._gap_pattern) for config in configs):
            configs += await self._place_gaps(connection)
        bounds = [config.max_msg_size for config in configs if config.max_msg_size is not None]
        self._max_stored = min((bound for bound in bounds if bound >= 0), default=None)
        # A batch lives in one stream: where the actions have one each, an event of another would be a hole.
        if len(configs) == 1 and configs[0].allow_batched and configs[0].name and connection.takes_batches:
            self._way = FastWay(self._writer, configs[0].name)
        else:
            self._way = WindowWay(self._writer)

    async def _place_gaps(self, connection: Connection) -> list[StreamConfig]:
        """A gap must arrive: where no stream takes its own subject, it goes where the changes go."""
        try:
            return await find_streams(connection, [self._gap_pattern], self._stream)
        except SinkError as error:
            if error.reason is not Reason.NO_STREAM_FOR_SUBJECT:
                raise
            self._writer.send_gaps_as(self._gaps_otherwise)
            return []

    async def check(self) -> None:
        """The connection stands and the stream is still there; a lost connection comes back by itself."""
        connection = self._connection
        if connection is None or connection.lost:
            raise SinkError(self._down.reason, self._down.message)
        await self._look(connection)

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
        deadline = asyncio.get_running_loop().time() + DEADLINE_SECONDS
        answers_before = connection.windows.answers
        outcomes = await self._publish(connection, events, deadline)
        if connection.windows.answers == answers_before and LATE in outcomes:
            # Not one answer in all that time, to anybody: the peer is gone without a word.
            self._replace(connection)
        return outcomes

    async def _publish(self, connection: Connection, events: Sequence[Event], deadline: float) -> list[Outcome]:
        refused = self._writer.refused(events, connection.client.max_payload, self._max_stored)
        if not refused:
            return await self._way.deliver(connection, events, deadline)
        outcomes = [refused.get(place) for place in range(len(events))]
        places = order.sendable(events, outcomes)
        found = await self._way.deliver(connection, [events[place] for place in places], deadline)
        for place, outcome in zip(places, found, strict=True):
            outcomes[place] = outcome
        return [outcome or order.HELD for outcome in outcomes]

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
