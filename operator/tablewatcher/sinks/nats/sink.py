"""Delivery to NATS: over one connection, made anew whenever it is lost, in the way that server and stream allow."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ...errors import Reason, SinkError
from ...event import ACTION_NAMES, Event
from ...spec.model import Action, Format, Table
from ...spec.model import NatsSink as NatsSpec
from ..base import Limits, Outcome, Verdict
from . import order, pub_ack
from .advice import CORE, notes, too_small
from .connection import Connection
from .dial import connected
from .faults import server_names
from .login import Login
from .message import MessageWriter
from .repeats import Repeats
from .stream import StreamToMake, answers, create_missing, find_streams, missing
from .subject import covered
from .ways import DEADLINE_SECONDS, LATE, CoreWay, FastWay, Way, WindowWay

if TYPE_CHECKING:
    from nats.js.api import StreamConfig

    from ...spec.secrets import Secrets

_log = logging.getLogger(__name__)
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
        secrets: Secrets,
        actions: frozenset[Action] = frozenset(Action),
        routing_columns: Sequence[str] = (),
        max_event_bytes: int = 0,
    ) -> None:
        self._login = Login(spec, secrets)
        self._spec = spec
        self._writer = MessageWriter(spec, format=format, source=source, table=table, routing_columns=routing_columns)
        subjects = self._writer.subjects
        self._patterns = sorted({subjects[op].pattern for op, name in ACTION_NAMES.items() if name in actions})
        self._gap_pattern = subjects["g"].pattern
        self._to_make: StreamToMake | None = None
        if spec.jet_stream and spec.stream is not None and spec.create is not None:
            patterns = sorted({each.pattern for each in subjects.values()})
            self._to_make = StreamToMake(spec.stream, patterns, spec.create)
        self._gaps_otherwise = next(op for op, name in ACTION_NAMES.items() if name in actions)
        self._notes: tuple[str, ...] = ()
        self._max_event_bytes = max_event_bytes
        self._repeats = Repeats(time.monotonic())
        self._way: Way = WindowWay(self._writer) if spec.jet_stream else CoreWay(self._writer)
        self._max_stored: int | None = None
        self._too_large = False  # whether an event was, since the last look
        self._connection: Connection | None = None
        self._lost: Connection | None = None
        self._reconnecting: asyncio.Task[None] | None = None
        self._down = self._not_connected(None)

    @property
    def limits(self) -> Limits:
        """Of the way that the server and the stream allow, as `open` or `check` has found them last."""
        return self._way.limits

    @property
    def timeout(self) -> float:
        return DEADLINE_SECONDS

    @property
    def notes(self) -> tuple[str, ...]:
        """What is allowed and may still cost events, in sentences; as `open` or `check` has found it last."""
        return self._notes

    async def open(self) -> None:
        """Connect, make the stream where that is asked for, and look at it; SinkError where the promise cannot be kept.

        A stream must store the subjects of every watched action. Core NATS promises nothing: the connection is all.
        """
        await self.close()
        self._repeats = Repeats(time.monotonic())
        connection = await self._connect()
        try:
            if self._to_make is not None:
                await create_missing(connection, self._to_make)
            await self._look(connection)
        except BaseException:
            await connection.close()
            raise
        self._connection = connection
        if connection.lost:
            self._replace(connection)

    async def look(self) -> tuple[str, ...]:
        """As `open`, but a stream that is missing is not made, only told."""
        connection = await self._connect()
        try:
            config = await missing(connection, self._to_make) if self._to_make is not None else None
            if config is None:
                await self._look(connection)
                return ()
            self._notes = notes([config], batches=connection.takes_batches) + self._too_small(connection)
            takes = ", ".join(config.subjects or ())
            return (f"stream {config.name!r} does not exist yet: a listener makes it when it starts, for {takes}",)
        finally:
            await connection.close()

    async def _look(self, connection: Connection) -> None:
        """What the streams allow decides how events are published from now on."""
        if not self._spec.jet_stream:
            self._notes = (CORE, *self._too_small(connection))
            await answers(connection)
            return
        configs = await find_streams(connection, self._patterns, self._spec.stream)
        if not any(covered(config.subjects or (), self._gap_pattern) for config in configs):
            configs += await self._place_gaps(connection)
        bounds = [config.max_msg_size for config in configs if config.max_msg_size is not None]
        self._max_stored = min((bound for bound in bounds if bound >= 0), default=None)
        self._notes = notes(configs, batches=connection.takes_batches) + self._too_small(connection)
        # A batch lives in one stream: where the actions have one each, an event of another would be a hole.
        if len(configs) == 1 and configs[0].allow_batched and configs[0].name and connection.takes_batches:
            self._repeats.window = configs[0].duplicate_window or self._repeats.window
            copies = (configs[0].num_replicas or 1) > 1
            self._way = FastWay(self._writer, configs[0].name, repeats=self._repeats if copies else None)
        else:
            self._way = WindowWay(self._writer)

    def _too_small(self, connection: Connection) -> tuple[str, ...]:
        return too_small(self._max_event_bytes, connection.client.max_payload, self._max_stored)

    async def _place_gaps(self, connection: Connection) -> list[StreamConfig]:
        """A gap must arrive: where no stream takes its own subject, it goes where the changes go."""
        try:
            return await find_streams(connection, [self._gap_pattern], self._spec.stream)
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
        connection.refusal = None  # may be granted by now; what is not is refused again
        if self._too_large:
            self._too_large = False
            await self._ask_bound(connection)
        await self._look(connection)

    async def _ask_bound(self, connection: Connection) -> None:
        """Another max_payload, after a reload of the server, is told to new connections only."""
        try:
            asked = await self._connect()
        except SinkError:
            return  # perhaps there may be no second one: that is no fault of the one that stands
        connection.client.bound_by(asked.client.max_payload)
        await asked.close()

    async def close(self) -> None:
        if self._reconnecting is not None:
            self._reconnecting.cancel()
            await asyncio.gather(self._reconnecting, return_exceptions=True)
            self._reconnecting = None
        # The lost one too: what was cancelled just now may not even have begun to close it.
        connections = self._connection, self._lost
        self._connection = self._lost = None
        self._down = self._not_connected(None)
        for connection in connections:
            if connection is not None:
                await connection.close()

    async def deliver(self, events: Sequence[Event]) -> Sequence[Outcome]:
        """Publish `events` and wait for every acknowledgement, 5 s at most."""
        connection = self._connection
        if connection is None or connection.lost:
            # Whoever tries again at once must not keep the event loop from connecting.
            await asyncio.sleep(0)
            return [self._down] * len(events)
        deadline = asyncio.get_running_loop().time() + DEADLINE_SECONDS
        answers_before = connection.windows.answers
        outcomes = await self._publish(connection, events, deadline)
        self._repeats.settled(events, outcomes, time.monotonic())
        if connection.windows.answers == answers_before and LATE in outcomes:
            # Not one answer in all that time, to anybody: the peer is gone without a word.
            self._replace(connection)
        return outcomes

    async def _publish(self, connection: Connection, events: Sequence[Event], deadline: float) -> list[Outcome]:
        refused = self._writer.refused(events, connection.client.max_payload, self._max_stored)
        if not refused:
            return await self._way.deliver(connection, events, deadline)
        self._too_large = True
        parts = order.Parts(events, refused)
        parts.settle(await self._way.deliver(connection, parts.sendable(), deadline))
        return parts.outcomes

    async def _connect(self) -> Connection:
        return await connected(self._login, self._spec.stream, self._replace)

    def _replace(self, lost: Connection) -> None:
        """`lost` is of no more use: connect anew in the background, for as long as it takes."""
        if self._connection is lost and self._reconnecting is None:
            self._connection, self._lost = None, lost
            self._down = self._not_connected(None)
            self._reconnecting = asyncio.get_running_loop().create_task(self._reconnect())

    async def _reconnect(self) -> None:
        if self._lost is not None:
            await self._lost.close()
            self._lost = None
        pause = _RECONNECT_FIRST_SECONDS
        while True:
            try:
                connection = await self._connect()
            except SinkError as error:
                self._down = self._not_connected(error)
            except Exception:  # noqa: BLE001 - whatever it is, it must not be the end of connecting
                _log.exception("unexpected fault in connecting to NATS; trying again")
            else:
                if not connection.lost:
                    self._connection, self._reconnecting = connection, None
                    return
                await connection.close()
            await asyncio.sleep(pause * random.uniform(0.5, 1.5))  # noqa: S311 - spreads load only
            pause = min(pause * 2, _RECONNECT_MAX_SECONDS)

    def _not_connected(self, error: SinkError | None) -> Outcome:
        if error is not None:
            return Outcome(Verdict.RETRY, error.reason, error.message, endpoint=True)
        return pub_ack.unreachable(f"not connected to NATS at {server_names(self._login.servers)}")
