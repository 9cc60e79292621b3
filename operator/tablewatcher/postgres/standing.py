"""How a watcher stands, read from its database alone: no listener need be there. Reads only."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

from ..naming import SCHEMA, WatcherNames
from .ddl import literal, ours
from .progress import UNDELIVERED, installed
from .session import Connection, connected

_STATEMENT_SECONDS = 30
# A transaction that is open for longer is worth a word.
LONG_SECONDS = 60
_AGAIN_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Blocker:
    """An open transaction that keeps the ring from being emptied. `who`: pid or prepared transaction, for a person.

    seconds: how long it is open; None where the role may not see that.
    """

    who: str
    seconds: float | None
    prepared: bool = False


@dataclass(frozen=True, slots=True)
class Standing:
    """One installed watcher now.

    host: of the listener that holds the lease, "" where none does; lease_seconds: until that lease runs out. The
    report (reason, message, forwarding, generation) is that listener's word, "" where it has said nothing.
    waiting: events captured and not delivered; oldest_seconds: the age of the oldest of them. stopped_at: epoch
    seconds, 0 while capture runs. parked: None where this version's table is not there yet.
    """

    host: str
    lease_seconds: float
    reason: str
    message: str
    forwarding: bool
    generation: int
    waiting: int
    oldest_seconds: float | None
    ring_bytes: int
    stopped_at: int
    parked: int | None


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What of the server bears on all watchers. notify_used: share of the notification queue, 0 to 1."""

    blockers: tuple[Blocker, ...]
    prepared_transactions: int
    notify_used: float


async def standing(conninfo: str, names: WatcherNames) -> Standing | None:
    """How one watcher stands; None: it is not installed. Raises DatabaseError."""
    async with connected(conninfo) as connection:
        await connection.execute(f"SET statement_timeout = '{_STATEMENT_SECONDS}s'")
        if not await installed(connection, [names]):
            return None
        lease = await _one(connection, _LEASE.format(log=_log(names), hash=literal(names.hash), schema=SCHEMA))
        undelivered = " UNION ALL ".join(UNDELIVERED.format(columns="r.at", ring=ours(name)) for name in names.rings)
        waiting = await _one(connection, _WAITING.format(log=_log(names), undelivered=undelivered))
        sizes = " + ".join(f"pg_catalog.pg_total_relation_size('{ours(name)}')" for name in names.rings)
        ring = await _one(
            connection, f"SELECT ({sizes})::bigint AS ring_bytes, last_value AS stopped_at FROM {ours(names.stop)}"
        )
        return Standing(**lease, **waiting, **ring, parked=await _parked(connection, names))


async def surroundings(conninfo: str, names: WatcherNames) -> Surroundings:
    """What else there is on the server. Raises DatabaseError."""
    async with connected(conninfo) as connection:
        blockers = [Blocker(f"pid {row['pid']}{_named(row)}", row["seconds"]) for row in await _open(connection, names)]
        rows = await (await connection.execute(_PREPARED, {"long": LONG_SECONDS})).fetchall()
        blockers += [Blocker(f"prepared transaction {row['gid']!r}", row["seconds"], prepared=True) for row in rows]
        found = await _one(
            connection,
            "SELECT pg_catalog.current_setting('max_prepared_transactions')::integer AS prepared_transactions,"
            " pg_catalog.pg_notification_queue_usage() AS notify_used",
        )
        return Surroundings(tuple(blockers), **found)


async def _open(connection: Connection, names: WatcherNames) -> list[dict[str, Any]]:
    """Transactions that hold a lock on the ring for long. The age of another role's is not for everybody to see: then
    one that is still there after a second is told."""

    async def look() -> dict[str, dict[str, Any]]:
        rings = [ours(name) for name in names.rings]
        cursor = await connection.execute(_OPEN, {"rings": rings, "long": LONG_SECONDS})
        return {row["transaction"]: row for row in await cursor.fetchall()}

    found = await look()
    if all(row["seconds"] is not None for row in found.values()):
        return list(found.values())
    await asyncio.sleep(_AGAIN_SECONDS)
    again = await look()
    return [row for transaction, row in again.items() if row["seconds"] is not None or transaction in found]


async def _parked(connection: Connection, names: WatcherNames) -> int | None:
    found = await _one(connection, f"SELECT pg_catalog.to_regclass('{SCHEMA}.parked') IS NOT NULL AS there")
    if not found["there"]:
        return None
    counted = f"SELECT pg_catalog.count(*) AS parked FROM {SCHEMA}.parked WHERE hash = {literal(names.hash)}"
    return int((await _one(connection, counted))["parked"])


async def _one(connection: Connection, query: str) -> dict[str, Any]:
    row = await (await connection.execute(query.encode())).fetchone()
    assert row is not None  # noqa: S101 - each of these queries gives exactly one row
    return row


def _log(names: WatcherNames) -> str:
    return " UNION ALL ".join(f"SELECT * FROM {ours(name)}" for name in names.cursors)


def _named(row: dict[str, Any]) -> str:
    parts = [str(row[name]) for name in ("application", "state") if row[name]]
    return f" ({', '.join(parts)})" if parts else ""


_LEASE = """
SELECT CASE WHEN l.seconds > 0 THEN pg_catalog.split_part(l.holder, '/', 1) ELSE '' END AS host,
       greatest(l.seconds, 0) AS lease_seconds, coalesce(p.reason, '') AS reason, coalesce(p.message, '') AS message,
       coalesce(p.forwarding, false) AS forwarding, coalesce(p.spec_generation, 0) AS generation
FROM (SELECT epoch, holder, coalesce(extract(epoch FROM CASE WHEN expires_at = '-infinity' THEN NULL
             ELSE expires_at - pg_catalog.clock_timestamp() END), 0)::float8 AS seconds
      FROM ({log}) AS c ORDER BY epoch DESC, n DESC LIMIT 1) AS l
LEFT JOIN {schema}.progress AS p ON p.hash = {hash} AND p.epoch = l.epoch
"""
_WAITING = """
WITH p AS MATERIALIZED (SELECT prev, cur, after_id FROM ({log}) AS l ORDER BY epoch DESC, n DESC LIMIT 1)
SELECT pg_catalog.count(*) AS waiting,
       extract(epoch FROM pg_catalog.clock_timestamp() - min(at))::float8 AS oldest_seconds
FROM ({undelivered}) AS u
"""
_OPEN = """
SELECT DISTINCT ON (a.xact_start, a.pid) a.pid, l.virtualtransaction AS transaction,
       extract(epoch FROM pg_catalog.clock_timestamp() - a.xact_start)::float8 AS seconds,
       a.application_name AS application, a.state
FROM pg_catalog.pg_stat_activity AS a JOIN pg_catalog.pg_locks AS l ON l.pid = a.pid
WHERE a.pid <> pg_catalog.pg_backend_pid() AND a.datname = pg_catalog.current_database()
  AND l.locktype = 'relation' AND l.granted AND l.relation = ANY (%(rings)s::text[]::regclass[]::oid[])
  AND coalesce(a.xact_start < pg_catalog.clock_timestamp() - pg_catalog.make_interval(secs => %(long)s), true)
  AND coalesce(a.application_name, '') NOT LIKE 'tablewatcher%%'
ORDER BY a.xact_start NULLS LAST, a.pid LIMIT 5
"""
_PREPARED = """
SELECT gid, extract(epoch FROM pg_catalog.clock_timestamp() - prepared)::float8 AS seconds
FROM pg_catalog.pg_prepared_xacts WHERE database = pg_catalog.current_database()
  AND prepared < pg_catalog.clock_timestamp() - pg_catalog.make_interval(secs => %(long)s) ORDER BY prepared LIMIT 5
"""
