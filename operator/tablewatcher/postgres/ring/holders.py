"""Who keeps us waiting: transactions that hold a lock on a table of the ring, or on the watched one, and since when."""

from __future__ import annotations

import datetime
from dataclasses import dataclass

from ...naming import SCHEMA, WatcherNames
from ..connection.session import Connection
from ..quoting import ours
from ..sql import QUERIES


@dataclass(frozen=True, slots=True)
class Holder:
    """A session by `pid`, or a prepared transaction by `gid`. since: of its transaction; None where we may not see."""

    pid: int | None
    gid: str | None
    since: datetime.datetime | None
    application: str

    def __str__(self) -> str:
        who = f"prepared transaction {self.gid!r}" if self.pid is None else f"pid {self.pid}"
        named = f" ({self.application})" if self.application else ""
        begun = f", open since {self.since:%Y-%m-%d %H:%M:%S %Z}" if self.since else ""
        return f"{who}{named}{begun}"


@dataclass(frozen=True, slots=True)
class Contested:
    """What somebody wants to lock. tables: by oid; rings: relations of the ring, by name, where there are such.

    exclusive: whoever only reads is in the way too.
    """

    tables: tuple[int, ...]
    rings: tuple[str, ...] = ()
    exclusive: bool = False


async def holding(connection: Connection, contested: Contested) -> frozenset[str]:
    """The transactions in the way of such a lock, by a word for each. Every role may ask."""
    query = f"SELECT DISTINCT held.virtualtransaction AS word FROM pg_catalog.pg_locks AS held {_HELD}"
    cursor = await connection.execute(_contested(query, contested), [list(contested.tables), list(contested.rings)])
    return frozenset(row["word"] for row in await cursor.fetchall())


async def contenders(connection: Connection, contested: Contested) -> list[Holder]:
    """Who is in the way of such a lock, the longest first."""
    parameters = [list(contested.tables), list(contested.rings), 0.0]
    cursor = await connection.execute(_contested(_HOLDERS, contested), parameters)
    return [Holder(**row) for row in await cursor.fetchall()]


def _contested(query: str, contested: Contested) -> str:
    return query.format(modes="" if contested.exclusive else _LOCKING, relations=_CONTESTED)


async def holders(connection: Connection, names: WatcherNames, *, older_than: float = 5.0) -> list[Holder]:
    """Those that have held a lock on the ring of a watcher for longer than that many seconds, the longest first."""
    tables = [ours(name) for name in (*names.rings, *names.cursors)]
    cursor = await connection.execute(_HOLDERS.format(modes="", relations=_RING), [tables, older_than])
    return [Holder(**row) for row in await cursor.fetchall()]


async def writers(connection: Connection, names: WatcherNames) -> list[Holder]:
    """Transactions that may have written to the watched table and have not ended, the longest first."""
    cursor = await connection.execute(_HOLDERS.format(modes=_WRITING, relations=_WATCHED), [names.hash, 0.0])
    return [Holder(**row) for row in await cursor.fetchall()]


_RING = "SELECT pg_catalog.to_regclass(name)::oid FROM pg_catalog.unnest(%s::text[]) AS u (name)"
_WATCHED = f"""SELECT p.oid FROM (SELECT table_oid AS oid FROM {SCHEMA}.watcher WHERE hash = %s) AS root
    CROSS JOIN LATERAL ({QUERIES["partition_tree"]}) AS p"""
_CONTESTED = f"SELECT u.oid FROM pg_catalog.unnest(%s::oid[]) AS u (oid) UNION ALL {_RING}"
# What CREATE TRIGGER, which lets others read, has to wait for.
_LOCKING = "AND held.mode NOT IN ('AccessShareLock', 'RowShareLock')"
_WRITING = "AND held.mode IN ('RowExclusiveLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock')"
_HELD = """
WHERE held.locktype = 'relation' AND held.granted AND held.pid IS DISTINCT FROM pg_catalog.pg_backend_pid()
  {modes} AND held.relation IN ({relations})
  AND held.database = (SELECT d.oid FROM pg_catalog.pg_database AS d WHERE d.datname = pg_catalog.current_database())
"""
_HOLDERS = f"""
SELECT DISTINCT held.pid, p.gid, coalesce(a.xact_start, p.prepared) AS since,
       coalesce(a.application_name, '') AS application
FROM pg_catalog.pg_locks AS held
LEFT JOIN pg_catalog.pg_stat_activity AS a ON a.pid = held.pid
LEFT JOIN pg_catalog.pg_locks AS own
  ON held.pid IS NULL AND own.pid IS NULL AND own.virtualtransaction = held.virtualtransaction
  AND own.locktype = 'transactionid'
LEFT JOIN pg_catalog.pg_prepared_xacts AS p ON p.transaction = own.transactionid
{_HELD}
  AND (held.pid IS NOT NULL OR p.gid IS NOT NULL)
  AND coalesce(a.xact_start, p.prepared, '-infinity')
    < pg_catalog.clock_timestamp() - pg_catalog.make_interval(secs => %s::float8)
ORDER BY since NULLS LAST, 1
"""
