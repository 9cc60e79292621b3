"""What listeners say, read from outside: one query for all watchers of a database, and whether a ring is drained."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass

import psycopg

from ..errors import DatabaseError, Reason
from ..naming import SCHEMA, WatcherNames
from ..tasks import heard
from .connection.session import Connection, connect, connected, translated
from .quoting import literal, ours
from .ring.cursor_sql import SECONDS_LEFT, newest, with_undelivered

POLL_SECONDS = 0.2
# With the waits before and after it, what does not answer has to show in status within eight seconds.
ANSWER_SECONDS = 4.0


class NoAnswer(DatabaseError):
    """The database lets us in, or had done so, and says nothing."""


@dataclass(frozen=True, slots=True)
class Report:
    """The newest lease of one watcher, and what its holder says.

    proof: changes within two seconds while the lease is held. lease_seconds: until the lease runs out, on the
    database's clock; 0 where it is released or over. spoken: the holder of this very lease has said something; the
    fields after it are its words.
    """

    proof: tuple[int, int]
    lease_seconds: float
    spoken: bool
    spec_generation: int
    forwarding: bool
    reason: str
    message: str


class ProgressReader:
    """One connection to one database, kept open between reads and opened again after it broke."""

    def __init__(self, conninfo: str) -> None:
        self._conninfo = conninfo
        self._connection: Connection | None = None

    async def read(self, watchers: Iterable[WatcherNames]) -> dict[str, Report]:
        """The reports of those that are installed, by hash. Raises DatabaseError."""
        wanted = sorted(watchers, key=lambda names: names.hash)
        if not wanted:
            return {}
        reading = asyncio.create_task(self._opened_and_read(wanted))
        reading.add_done_callback(heard)
        try:
            answered, _ = await asyncio.wait([reading], timeout=ANSWER_SECONDS)
        finally:
            if not reading.done():
                # Hung up on first: psycopg waits ten seconds more for the end of a statement that is cancelled.
                await self.close()
                reading.cancel()
        if not answered:
            raise NoAnswer(Reason.DATABASE_UNREACHABLE, "the database accepts connections but does not answer")
        try:
            return reading.result()
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Closes the connection; the next read opens another."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(Exception):
                await connection.close()

    async def _opened_and_read(self, wanted: list[WatcherNames]) -> dict[str, Report]:
        if self._connection is None:
            self._connection = await connect(self._conninfo, application="tablewatcher operator")
        return await self._read(self._connection, wanted)

    async def _read(self, connection: Connection, wanted: list[WatcherNames]) -> dict[str, Report]:
        with translated():
            try:
                return await _reports(connection, wanted)
            except psycopg.errors.UndefinedTable:
                # Somebody's ring is not there: ask for those that are.
                there = await installed(connection, wanted)
                return await _reports(connection, there) if there else {}


async def drained(conninfo: str, names: WatcherNames, *, seconds: float) -> bool:
    """Waits until everything captured is delivered, at most `seconds`; False: something was left. Raises DatabaseError.

    For a ring whose capture has been stopped: transactions that still hold a lock on it may write to it.
    """
    async with connected(conninfo) as connection:
        if not await installed(connection, [names]):
            return True
        return await _until(lambda: _is_drained(connection, names), seconds)


async def released(conninfo: str, names: WatcherNames, *, seconds: float) -> bool:
    """Waits until no listener holds the watcher's lease, at most `seconds`. Raises DatabaseError."""

    async def free() -> bool:
        found = await _reports(connection, [names])
        return all(report.lease_seconds <= 0 for report in found.values())

    async with connected(conninfo) as connection:
        if not await installed(connection, [names]):
            return True
        return await _until(free, seconds)


async def _until(condition: Callable[[], Awaitable[bool]], seconds: float) -> bool:
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    while not await condition():
        if loop.time() >= deadline:
            return False
        await asyncio.sleep(POLL_SECONDS)
    return True


async def _is_drained(connection: Connection, names: WatcherNames) -> bool:
    # Locks first, rows in a later snapshot: a writer that ends in between is then seen as committed rows.
    rings = [ours(name) for name in names.rings]
    locks = await connection.execute(
        "SELECT FROM pg_catalog.pg_locks WHERE locktype = 'relation' AND granted AND mode = 'RowExclusiveLock'"
        " AND relation = ANY (%s::text[]::regclass[]::oid[]) LIMIT 1",
        [rings],
    )
    if await locks.fetchone() is not None:
        return False
    left = await connection.execute(f"{with_undelivered(names, '')} SELECT FROM undelivered LIMIT 1".encode())
    return await left.fetchone() is None


async def installed(connection: Connection, wanted: list[WatcherNames]) -> list[WatcherNames]:
    """Those of `wanted` that have been applied here."""
    cursor = await connection.execute(
        "SELECT name FROM pg_catalog.unnest(%s::text[]) AS name"
        " WHERE pg_catalog.to_regclass(name) IS NOT NULL AND pg_catalog.to_regclass(%s) IS NOT NULL",
        [[f"{SCHEMA}.{names.cursors[0]}" for names in wanted], f"{SCHEMA}.progress"],
    )
    present = {row["name"] for row in await cursor.fetchall()}
    return [names for names in wanted if f"{SCHEMA}.{names.cursors[0]}" in present]


async def _reports(connection: Connection, wanted: list[WatcherNames]) -> dict[str, Report]:
    leases = [newest(names, f"{literal(names.hash)} AS hash, epoch, n, {SECONDS_LEFT} AS seconds") for names in wanted]
    branches = " UNION ALL ".join(f"({lease})" for lease in leases)
    cursor = await connection.execute((_REPORTS.format(schema=SCHEMA, leases=branches)).encode())
    return {row.pop("hash"): _report(**row) for row in await cursor.fetchall()}


def _report(
    epoch: int, n: int, seconds: float, spoken: bool, generation: int, forwarding: bool, reason: str, message: str
) -> Report:
    return Report((epoch, n), max(seconds, 0.0), spoken, generation, forwarding, reason, message)


_REPORTS = """
SELECT l.hash, l.epoch, l.n, p.epoch IS NOT NULL AS spoken,
       coalesce(l.seconds, 0) AS seconds,
       coalesce(p.spec_generation, 0) AS generation, coalesce(p.forwarding, false) AS forwarding,
       coalesce(p.reason, '') AS reason, coalesce(p.message, '') AS message
FROM ({leases}) AS l LEFT JOIN {schema}.progress AS p ON p.hash = l.hash AND p.epoch = l.epoch
"""
