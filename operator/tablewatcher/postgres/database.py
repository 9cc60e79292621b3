"""The connections of one database, shared by all its watchers: their number does not grow with theirs."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable
from dataclasses import asdict, dataclass

import psycopg

from ..naming import SCHEMA, WatcherNames
from .connection.pooling import Pooling, pooling_of
from .connection.session import Connection, connect, translated, translating
from .connection.unanswered import Over, Patience, Unanswered
from .requests import OpenRequests
from .ring.arming import Arming
from .ring.idle import IdleRings
from .ring.proofs import Proofs
from .ring.wakeup import NoWakeup, Wakeup


@dataclass(frozen=True, slots=True)
class Progress:
    """What a listener says of one watcher, in table `progress`. refused: `message` is about an event that the sink
    refuses, while others are forwarded."""

    epoch: int
    holder: str
    spec_generation: int
    forwarding: bool
    reason: str
    message: str
    refused: bool = False


@dataclass(slots=True)
class Session:
    """Open connections: `reader` reads rings, `writer` commits cursors and turns rings, `wakeup` listens if it can."""

    reader: Connection
    writer: Connection
    wakeup: Wakeup | NoWakeup
    reader_lock: asyncio.Lock
    writer_lock: asyncio.Lock
    idle: IdleRings
    proofs: Proofs
    arming: Arming
    requests: OpenRequests
    database: str
    pooling: Pooling
    _opened: tuple[Connection, ...]
    _tasks: tuple[asyncio.Task[None], ...]

    @property
    def alive(self) -> bool:
        """Whether all connections stand."""
        return not any(connection.closed for connection in self._opened) and not any(
            task.done() for task in self._tasks
        )

    @translating
    async def installed(self, names: WatcherNames) -> bool:
        """Whether `apply` has made this watcher's ring here."""
        query = "SELECT pg_catalog.to_regclass(%s) IS NOT NULL AND pg_catalog.to_regclass(%s) IS NOT NULL AS installed"
        async with self.writer_lock:
            found = await self.writer.one(query, [f"{SCHEMA}.{names.ids}", f"{SCHEMA}.progress"])
        return bool(found["installed"])

    @translating
    async def report(self, names: WatcherNames, progress: Progress) -> None:
        """Writes what a listener says of a watcher; a later epoch's word is never overwritten."""
        values = asdict(progress)
        async with self.writer_lock:
            try:
                await self.writer.execute(_said(values), {"hash": names.hash, **values})
            except psycopg.errors.UndefinedColumn:
                # Not brought up by `apply` yet: nobody who reads it there knows of this one either.
                del values["refused"]
                await self.writer.execute(_said(values), {"hash": names.hash, **values})

    async def close(self) -> None:
        """Closes all; a connection that is broken already is no fault."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for connection in self._opened:
            with contextlib.suppress(Exception):
                await connection.close()


def _said(columns: Iterable[str]) -> str:
    """INSERT or UPDATE of a watcher's row, from parameters with the names of `columns` and `hash`."""
    names = ", ".join(columns)
    return (
        f"INSERT INTO {SCHEMA}.progress AS p (hash, {names})"
        f" VALUES (%(hash)s, {', '.join(f'%({name})s' for name in columns)})"
        f" ON CONFLICT (hash) DO UPDATE SET ({names}, changed_at) ="
        f" ({', '.join(f'excluded.{name}' for name in columns)}, pg_catalog.clock_timestamp())"
        " WHERE p.epoch <= excluded.epoch"
    )


# Rings have few statistics or none: without these a planner may well read a whole gigabyte for one row. And all
# watchers of the database wait behind one whose table somebody has locked.
_READER = {
    "enable_seqscan": "off",
    "plan_cache_mode": "force_generic_plan",
    "jit": "off",
    "work_mem": "16MB",
    "lock_timeout": "1s",
    "idle_in_transaction_session_timeout": "60s",
}
# Losing the last cursor commits in a crash of the database costs repeats only; a lease is written safely.
# Frozen in the middle of taking the lease, we must not keep it from others. And a listener that is told to end must not
# wait for ever for a table that somebody has locked; while it waits, no other lease of this database is proved.
_WRITER = {
    "enable_seqscan": "off",
    "jit": "off",
    "synchronous_commit": "off",
    "lock_timeout": "2s",
    "idle_in_transaction_session_timeout": "5s",
}


async def open_session(conninfo: str, patience: Patience | None = None) -> Session:
    """Connects. patience: of earlier sessions with the same database. Raises DatabaseError."""
    opened: list[Connection] = []

    async def another(role: str) -> Connection:
        opened.append(await connect(conninfo, application=f"tablewatcher listener {role}"))
        return opened[-1]

    try:
        reader, writer = await another("reader"), await another("writer")
        with translated():
            found = await pooling_of(reader, writer)
            if found is not Pooling.NONE:
                await writer.pin(await reader.pin())
            for connection, settings in ((reader, _READER), (writer, _WRITER)):
                await connection.use(settings)
            (row,) = await (await reader.execute("SELECT pg_catalog.current_database() AS name")).fetchall()
        listener = None if found is Pooling.TRANSACTION else await another("wakeup")
    except BaseException:
        for connection in opened:
            with contextlib.suppress(Exception):
                await connection.close()
        raise
    return _session(reader, writer, listener, patience or Patience(), database=str(row["name"]), pooling=found)


def _session(
    reader: Connection,
    writer: Connection,
    listener: Connection | None,
    patience: Patience,
    *,
    database: str,
    pooling: Pooling,
) -> Session:
    reader_lock, writer_lock = asyncio.Lock(), asyncio.Lock()
    idle, proofs = IdleRings(reader, reader_lock), Proofs(writer, writer_lock)
    wakeup = NoWakeup() if listener is None else Wakeup(listener, beside=(reader, writer))
    arming = Arming(writer, writer_lock, wakeup)
    # Whoever hangs does not answer for itself. Through a pooler there is nobody to ask.
    ask = Over(writer, writer_lock).idle
    unanswered = {reader: ask, writer: ask}
    if listener is not None and isinstance(wakeup, Wakeup):
        about = Over(listener, wakeup.lock).idle
        unanswered = {reader: about, writer: about, listener: ask}
    running = [idle.run(), proofs.run(), arming.run(), Unanswered(unanswered, patience).watch()]
    if isinstance(wakeup, Wakeup):
        running.append(wakeup.watch())
    return Session(
        reader,
        writer,
        wakeup,
        reader_lock,
        writer_lock,
        idle,
        proofs,
        arming,
        OpenRequests(writer, writer_lock),
        database,
        pooling,
        tuple(each for each in (reader, writer, listener) if each is not None),
        tuple(asyncio.create_task(each) for each in running),
    )
