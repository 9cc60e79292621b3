"""How a watcher stands, read from its database alone: no listener need be there. Reads only."""

from __future__ import annotations

import asyncio
import datetime
from dataclasses import dataclass

import psycopg

from ..naming import SCHEMA, WatcherNames
from .connection.session import Connection, connected
from .progress import installed
from .quoting import literal, ours, skipped
from .ring.cursor_sql import SECONDS_LEFT, newest, with_undelivered
from .ring.holders import Holder, holders, writers

_STATEMENT_SECONDS = 30
# A ring of a gigabyte is counted in less.
_COUNT_SECONDS = 10
# A transaction that is open for longer is worth a word.
LONG_SECONDS = 60
_AGAIN_SECONDS = 1.0
_TOLD = 5


@dataclass(frozen=True, slots=True)
class OpenGap:
    """Capture was interrupted from `since` (None: not known) to `until`, and that is not told to an end yet.

    told: once, as open. waits_for: transactions that write to the watched table and hold the end back.
    """

    reason: str
    certain: bool
    since: datetime.datetime | None
    until: datetime.datetime
    told: bool
    waits_for: tuple[Holder, ...] = ()


@dataclass(frozen=True, slots=True)
class Standing:
    """One installed watcher now.

    last_host, last_pid: of the listener that held the lease last, "" and None where none ever has. lease_seconds: until
    that lease runs out, 0 where nobody holds it; ended_seconds: since it ran out without being released, else None. The
    report (reason, message, forwarding, refused, generation) is that listener's word, "" where it has said nothing, and
    said_seconds how long ago it was said. waiting: events captured and not delivered; oldest_seconds: the age of the
    oldest of them. stopped_at: epoch seconds, 0 while capture runs. parked: None where this version's table is not
    there yet. skipped: changes that their transactions asked not to capture, since the watcher was installed. captured:
    the function that does it is there. pooled: the way to the database leads through a pooler.
    """

    last_host: str
    last_pid: int | None
    lease_seconds: float
    ended_seconds: float | None
    reason: str
    message: str
    forwarding: bool
    refused: bool
    generation: int
    said_seconds: float | None
    waiting: int
    oldest_seconds: float | None
    ring_bytes: int
    stopped_at: int
    parked: int | None
    skipped: int = 0
    captured: bool = True
    gaps: tuple[OpenGap, ...] = ()
    pooled: bool = False

    @property
    def host(self) -> str:
        """Of the listener that holds the lease now, "" where none does."""
        return self.last_host if self.lease_seconds > 0 else ""


@dataclass(frozen=True, slots=True)
class Undelivered:
    """Events that wait in the ring of a watcher, and events of it that were put aside."""

    waiting: int = 0
    parked: int = 0


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
        await connection.use({"statement_timeout": f"{_STATEMENT_SECONDS}s"})
        if not await installed(connection, [names]):
            return None
        lease = await connection.one(
            _LEASE.format(
                newest=newest(names, f"epoch, holder, {SECONDS_LEFT} AS seconds"),
                hash=literal(names.hash),
                schema=SCHEMA,
                said=_age("p.changed_at"),
            ),
        )
        waiting = await connection.one(_waiting(names))
        sizes = " + ".join(f"pg_catalog.pg_total_relation_size('{ours(name)}')" for name in names.rings)
        ring = await connection.one(
            f"SELECT ({sizes})::bigint AS ring_bytes, last_value AS stopped_at, {skipped(names.skips)} AS skipped,"
            f" pg_catalog.to_regprocedure('{ours(names.function)}()') IS NOT NULL AS captured"
            f" FROM {ours(names.stop)}",
        )
        parked, gaps = await _parked(connection, names), await _gaps(connection, names)
        return Standing(**lease, **waiting, **ring, parked=parked, gaps=gaps, pooled=connection.pooled)


async def undelivered(connection: Connection, names: WatcherNames) -> Undelivered | None:
    """What would be lost with the watcher; None: that cannot be counted, or not in some seconds."""
    try:
        async with connection.transaction():
            await connection.execute(f"SET LOCAL statement_timeout = '{_COUNT_SECONDS}s'")
            if not await installed(connection, [names]):
                return Undelivered()
            waiting = (await connection.one(_waiting(names)))["waiting"]
            return Undelivered(waiting, await _parked(connection, names) or 0)
    except psycopg.Error:
        if connection.closed:
            raise
        return None


async def surroundings(conninfo: str, names: WatcherNames) -> Surroundings:
    """What else there is on the server. Raises DatabaseError."""
    async with connected(conninfo) as connection:
        found = await connection.one(
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
    if not await _is_there(connection, "parked"):
        return None
    counted = f"SELECT pg_catalog.count(*) AS parked FROM {SCHEMA}.parked WHERE hash = {literal(names.hash)}"
    return int((await connection.one(counted))["parked"])


async def _gaps(connection: Connection, names: WatcherNames) -> tuple[OpenGap, ...]:
    if not await _is_there(connection, "gap"):
        return ()
    cursor = await connection.execute(
        f"SELECT reason, certain, since, until, told FROM {SCHEMA}.gap WHERE hash = %s ORDER BY until", [names.hash]
    )
    rows = await cursor.fetchall()
    waits_for = tuple(await writers(connection, names))[:_TOLD] if rows else ()
    return tuple(OpenGap(**row, waits_for=waits_for) for row in rows)


async def _is_there(connection: Connection, table: str) -> bool:
    found = await connection.one(f"SELECT pg_catalog.to_regclass('{SCHEMA}.{table}') IS NOT NULL AS there")
    return bool(found["there"])


def _waiting(names: WatcherNames) -> str:
    return (
        f"{with_undelivered(names, _EVENTS_LEFT)} SELECT coalesce(sum(number), 0)::bigint AS waiting,"
        f" {_age('min(at)')} AS oldest_seconds FROM undelivered"
    )


def _age(time: str) -> str:
    """Seconds since then, both SQL: 0 for a time that is still to come, as after the clock was set back."""
    now = "pg_catalog.clock_timestamp()"
    return f"CASE WHEN {time} > {now} THEN 0 ELSE extract(epoch FROM {now} - {time}) END::float8"


_LEASE = """
SELECT pg_catalog.split_part(l.holder, '/', 1) AS last_host,
       substring(pg_catalog.split_part(l.holder, '/', 4) FROM '^[0-9]{{1,9}}$')::integer AS last_pid,
       coalesce(greatest(l.seconds, 0), 0) AS lease_seconds,
       CASE WHEN l.seconds <= 0 THEN -l.seconds END AS ended_seconds,
       coalesce(p.reason, '') AS reason, coalesce(p.message, '') AS message,
       coalesce(p.forwarding, false) AS forwarding,
       -- By its name in a document: the table of an earlier version has no such column.
       coalesce((pg_catalog.to_jsonb(p) ->> 'refused')::boolean, false) AS refused,
       coalesce(p.spec_generation, 0) AS generation,
       {said} AS said_seconds
FROM ({newest}) AS l
LEFT JOIN {schema}.progress AS p ON p.hash = {hash} AND p.epoch = l.epoch
"""
# Of a chunk that was delivered in part, the rest.
_EVENTS_LEFT = (
    "r.at, CASE WHEN pg_catalog.pg_visible_in_snapshot(r.xid, p.cur) THEN least(r.number, r.last - p.after_id)"
    " ELSE r.number END AS number"
)
