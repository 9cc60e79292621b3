"""The connections of one database, shared by all its watchers: their number does not grow with theirs."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass

from ..naming import SCHEMA, WatcherNames
from .idle import IdleRings
from .requests import OpenRequests
from .session import Connection, connect, refuse_pooler, translated, translating
from .wakeup import Wakeup


@dataclass(frozen=True, slots=True)
class Progress:
    """What a listener says of one watcher, in table `progress`."""

    epoch: int
    holder: str
    spec_generation: int
    forwarding: bool
    reason: str
    message: str


@dataclass(slots=True)
class Session:
    """Open connections: `reader` reads rings, `writer` commits cursors and turns rings, `wakeup` listens."""

    reader: Connection
    writer: Connection
    wakeup: Wakeup
    reader_lock: asyncio.Lock
    writer_lock: asyncio.Lock
    idle: IdleRings
    requests: OpenRequests
    database: str
    _listener: Connection
    _tasks: tuple[asyncio.Task[None], ...]

    @property
    def alive(self) -> bool:
        """Whether all connections stand."""
        connections = (self.reader, self.writer, self._listener)
        broken = any(connection.broken or connection.closed for connection in connections)
        return not broken and not any(task.done() for task in self._tasks)

    @translating
    async def installed(self, names: WatcherNames) -> bool:
        """Whether `apply` has made this watcher's ring here."""
        query = "SELECT pg_catalog.to_regclass(%s) IS NOT NULL AND pg_catalog.to_regclass(%s) IS NOT NULL AS installed"
        async with self.writer_lock:
            cursor = await self.writer.execute(query, [f"{SCHEMA}.{names.ids}", f"{SCHEMA}.progress"])
            found = await cursor.fetchone()
        return found is not None and bool(found["installed"])

    @translating
    async def report(self, names: WatcherNames, progress: Progress) -> None:
        """Writes what a listener says of a watcher; a later epoch's word is never overwritten."""
        query = (
            f"INSERT INTO {SCHEMA}.progress AS p (hash, epoch, holder, spec_generation, forwarding, reason, message)"
            " VALUES (%s, %s, %s, %s, %s, %s, %s) ON CONFLICT (hash) DO UPDATE SET (epoch, holder, spec_generation,"
            " forwarding, reason, message, changed_at) = (excluded.epoch, excluded.holder, excluded.spec_generation,"
            " excluded.forwarding, excluded.reason, excluded.message, pg_catalog.clock_timestamp())"
            " WHERE p.epoch <= excluded.epoch"
        )
        values = [progress.epoch, progress.holder, progress.spec_generation]
        async with self.writer_lock:
            await self.writer.execute(
                query, [names.hash, *values, progress.forwarding, progress.reason, progress.message]
            )

    async def close(self) -> None:
        """Closes all; a connection that is broken already is no fault."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for connection in (self.reader, self.writer, self._listener):
            with contextlib.suppress(Exception):
                await connection.close()


async def open_session(conninfo: str) -> Session:
    """Connects. Raises DatabaseError."""
    opened: list[Connection] = []
    try:
        for role in ("reader", "writer", "wakeup"):
            opened.append(await connect(conninfo, application=f"tablewatcher listener {role}"))
        reader, writer, listener = opened
        with translated():
            # Rings have few statistics or none: without this a planner may well read a whole gigabyte for one row.
            # Losing the last cursor commits in a crash of the database costs repeats only; a lease is written safely.
            await refuse_pooler(reader)
            for connection in (reader, writer):
                await connection.execute("SET default_transaction_isolation = 'read committed'")
            await reader.execute(
                "SET enable_seqscan = off; SET datestyle = 'ISO'; SET plan_cache_mode = force_generic_plan"
            )
            await reader.execute(
                "SET idle_in_transaction_session_timeout = '60s'; SET jit = off; SET work_mem = '16MB'"
            )
            # Frozen in the middle of taking the lease, we must not keep it from others.
            await writer.execute("SET idle_in_transaction_session_timeout = '5s'")
            await writer.execute("SET synchronous_commit = off; SET enable_seqscan = off; SET jit = off")
            found = await (await reader.execute("SELECT pg_catalog.current_database() AS name")).fetchone()
        wakeup, reader_lock, writer_lock = Wakeup(listener), asyncio.Lock(), asyncio.Lock()
        idle = IdleRings(reader, reader_lock)
        return Session(
            reader,
            writer,
            wakeup,
            reader_lock,
            writer_lock,
            idle,
            OpenRequests(writer, writer_lock),
            str(found["name"]) if found else "",
            listener,
            (asyncio.create_task(wakeup.watch()), asyncio.create_task(idle.run())),
        )
    except BaseException:
        for connection in opened:
            with contextlib.suppress(Exception):
                await connection.close()
        raise
