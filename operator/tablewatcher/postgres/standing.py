"""How a watcher stands, read from its database alone: no listener need be there. Reads only."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

from ..naming import SCHEMA, WatcherNames
from .ddl import literal, ours
from .holders import Holder, holders
from .progress import UNDELIVERED, installed
from .session import Connection, connected

_STATEMENT_SECONDS = 30
# A transaction that is open for longer is worth a word.
LONG_SECONDS = 60
_AGAIN_SECONDS = 1.0
_TOLD = 5


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
    """Who keeps the ring from being emptied, and what decides how writers wake the listener.

    notify_used: share of the notification queue, 0 to 1.
    """

    holders: tuple[Holder, ...]
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
        found = await _one(
            connection,
            "SELECT pg_catalog.current_setting('max_prepared_transactions')::integer AS prepared_transactions,"
            " pg_catalog.pg_notification_queue_usage() AS notify_used",
        )
        return Surroundings(await _holders(connection, names), **found)


async def _holders(connection: Connection, names: WatcherNames) -> tuple[Holder, ...]:
    """Those that have held the ring for long. The age of another role's transaction is not for everybody to see: then
    one that is still there after a second is told."""
    found = await holders(connection, names, older_than=LONG_SECONDS)
    if any(holder.since is None for holder in found):
        await asyncio.sleep(_AGAIN_SECONDS)
        again = await holders(connection, names, older_than=LONG_SECONDS)
        found = [holder for holder in again if holder.since is not None or holder in found]
    return tuple(found[:_TOLD])


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
