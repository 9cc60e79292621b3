"""The LISTEN connection: a hint that something was committed. Losing one costs latency, never an event."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from weakref import WeakValueDictionary

import psycopg
from psycopg import Notify

from ...errors import DatabaseError, Reason
from ..connection.session import Connection, translating

# As often as somebody sees whether answers are owed: else one that hangs would be found out only when it is needed.
_PROBE_SECONDS = 2.5
# What is asked here takes no time: who does not answer for so long never will.
_ANSWER_SECONDS = 30.0
_PID = "SELECT pg_catalog.pg_backend_pid() AS pid"
_QUEUE_LIMIT = 0.25


class Wakeup:
    """Wakes watchers by channel, over one connection for all watchers of a database.

    beside: the others to this database. Where nobody answers, whoever waits on those would wait for ever. lock: of the
    connection, for one statement at a time.
    """

    def __init__(self, connection: Connection, beside: Sequence[Connection] = ()) -> None:
        self._connection = connection
        self._all = (connection, *beside)
        # Watchers come and go while the connection stays: whoever still waits for a channel holds its event.
        self._events: WeakValueDictionary[str, asyncio.Event] = WeakValueDictionary()
        self._heard: set[str] = set()
        self.lock = asyncio.Lock()
        self._broken = asyncio.Event()
        connection.add_notify_handler(self._notified)

    @translating
    async def subscribe(self, channel: str) -> asyncio.Event:
        """The event that every notification on `channel` sets, for as long as somebody keeps it."""
        async with self.lock:
            woken = self._events.get(channel)
            for gone in self._heard.difference(self._events.keys(), {channel}):
                await self._connection.execute(f"UNLISTEN {gone}")
                self._heard.discard(gone)
            if woken is None:
                await self._connection.execute(f"LISTEN {channel}")
                # Only now: cancelled before, the next one to ask would believe that somebody listens.
                self._events[channel] = woken = asyncio.Event()
                self._heard.add(channel)
        return woken

    @translating
    async def usable(self) -> bool:
        """Whether writers may be asked to notify: never where that would break PREPARE TRANSACTION, nor while
        somebody else fills the notification queue: a full one fails commits."""
        query = (
            "SELECT pg_catalog.current_setting('max_prepared_transactions')::integer = 0"
            " AND pg_catalog.pg_notification_queue_usage() < %s AS usable"
        )
        async with self.lock:
            return bool((await self._connection.one(query, [_QUEUE_LIMIT]))["usable"])

    @translating
    async def watch(self) -> None:
        """Runs until the connection fails, then raises; looks every now and then whether somebody answers.

        And whether it is still the same process that listens: a pooler may be told to pool otherwise.
        """
        loop = asyncio.get_running_loop()
        pid = await self._pid()
        # A descriptor of our own: psycopg adds and removes its reader on the original at every statement.
        descriptor = os.dup(self._connection.fileno())
        loop.add_reader(descriptor, self._readable)
        try:
            while True:
                try:
                    async with asyncio.timeout(_PROBE_SECONDS):
                        await self._broken.wait()
                    self._broken.clear()
                except TimeoutError:
                    pass
                if await self._pid() != pid:
                    raise DatabaseError(
                        Reason.POOLER_DETECTED, "the pooler does not keep sessions any more; connecting again"
                    )
        finally:
            loop.remove_reader(descriptor)
            os.close(descriptor)

    async def _pid(self) -> int:
        # Not a timeout: a statement that is cancelled waits for its end all the same.
        giving_up = asyncio.get_running_loop().call_later(_ANSWER_SECONDS, self._hang_up)
        try:
            async with self.lock:
                return int((await self._connection.one(_PID))["pid"])
        finally:
            giving_up.cancel()

    def _hang_up(self) -> None:
        for connection in self._all:
            connection.hang_up()

    def _readable(self) -> None:
        if self.lock.locked():
            return  # the statement under way reads the socket, and hands notifications to _notified
        try:
            self._connection.pgconn.consume_input()
            while (found := self._connection.pgconn.notifies()) is not None:
                self._wake(found.relname.decode())
        except psycopg.OperationalError:
            self._broken.set()

    def _notified(self, notification: Notify) -> None:
        self._wake(notification.channel)

    def _wake(self, channel: str) -> None:
        event = self._events.get(channel)
        if event is not None:
            event.set()


class NoWakeup:
    """In its place where a pooler gives every transaction another connection: there is nowhere to listen."""

    async def subscribe(self, channel: str) -> asyncio.Event:
        """An event that only a look at the ring sets."""
        return asyncio.Event()

    async def usable(self) -> bool:
        """Never: writers would pay for notifications that reach nobody."""
        return False
