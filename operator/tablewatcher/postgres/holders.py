"""Who keeps a ring from being emptied: transactions that hold a lock on one of its tables, and since when."""

from __future__ import annotations

import datetime
from dataclasses import dataclass

from ..naming import WatcherNames
from .quoting import ours
from .session import Connection


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


async def holders(connection: Connection, names: WatcherNames, *, older_than: float = 5.0) -> list[Holder]:
    """Those that have held a lock on the ring of a watcher for longer than that many seconds, the longest first."""
    tables = [ours(name) for name in (*names.rings, *names.cursors)]
    cursor = await connection.execute(_HOLDERS, [tables, older_than])
    return [Holder(**row) for row in await cursor.fetchall()]


_HOLDERS = """
SELECT DISTINCT held.pid, p.gid, coalesce(a.xact_start, p.prepared) AS since,
       coalesce(a.application_name, '') AS application
FROM pg_catalog.pg_locks AS held
LEFT JOIN pg_catalog.pg_stat_activity AS a ON a.pid = held.pid
LEFT JOIN pg_catalog.pg_locks AS own
  ON held.pid IS NULL AND own.pid IS NULL AND own.virtualtransaction = held.virtualtransaction
  AND own.locktype = 'transactionid'
LEFT JOIN pg_catalog.pg_prepared_xacts AS p ON p.transaction = own.transactionid
WHERE held.locktype = 'relation' AND held.granted AND held.pid IS DISTINCT FROM pg_catalog.pg_backend_pid()
  AND held.relation IN (SELECT pg_catalog.to_regclass(name)::oid FROM pg_catalog.unnest(%s::text[]) AS u (name))
  AND held.database = (SELECT d.oid FROM pg_catalog.pg_database AS d WHERE d.datname = pg_catalog.current_database())
  AND (held.pid IS NOT NULL OR p.gid IS NOT NULL)
  AND coalesce(a.xact_start, p.prepared, '-infinity')
    < pg_catalog.clock_timestamp() - pg_catalog.make_interval(secs => %s::float8)
ORDER BY since NULLS LAST, 1
"""
