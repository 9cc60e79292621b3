"""The log of a watcher's cursors inside generated SQL: `cursor_log.py` says what its rows mean. Pure."""

from __future__ import annotations

from collections.abc import Callable

from ...naming import WatcherNames
from ..quoting import ours
from .chunks import EVENTS, LAST_ID, TAKEN_AT
from .position import of_cursor

# For how many seconds a lease goes on, by its row; NULL: it was released.
SECONDS_LEFT = (
    "extract(epoch FROM CASE WHEN expires_at = '-infinity' THEN NULL"
    " ELSE expires_at - pg_catalog.clock_timestamp() END)::float8"
)

# What a row is made of: `ttl`, for how many seconds the lease goes on, NULL: it ends; snapshots as text.
ROW = ("epoch", "n", "holder", "ttl", "prev", "cur", "after")

# Of a ring that is new: above what a listener may still hold of an earlier ring of this watcher. Each lease takes one,
# and a thousand a second are never taken.
FIRST_EPOCH = "(extract(epoch FROM pg_catalog.clock_timestamp()) * 1000)::bigint"


def log(names: WatcherNames) -> str:
    """A query of all rows."""
    return " UNION ALL ".join(f"SELECT * FROM {ours(name)}" for name in names.cursors)


def newest(names: WatcherNames, columns: str) -> str:
    """A query of `columns` of the row that counts."""
    return f"SELECT {columns} FROM ({log(names)}) AS l ORDER BY epoch DESC, n DESC LIMIT 1"


def not_superseded(names: WatcherNames, epoch: str = "%(epoch)s") -> str:
    """A condition: no other listener has taken over from the one of `epoch`, SQL."""
    return f"NOT EXISTS (SELECT FROM ({log(names)}) AS l WHERE l.epoch > {epoch})"


def append(names: WatcherNames, slot: int, value: Callable[[str], str], source: str = "WHERE") -> str:
    """INSERT of a row into table `slot` of the log, unless superseded: a SELECT, whose condition is its end.

    value: the SQL of each of ROW, by its name; source: where these come from, up to the conditions.
    """
    epoch, n, holder, ttl, prev, cur, after = map(value, ROW)
    return (
        f"INSERT INTO {ours(names.cursors[slot])} (epoch, n, holder, expires_at, prev, cur, after_id)"
        f" SELECT {epoch}, {n}, {holder}, coalesce(pg_catalog.clock_timestamp()"
        f" + pg_catalog.make_interval(secs => {ttl}::float8), '-infinity'),"
        f" {prev}::text::pg_snapshot, {cur}::text::pg_snapshot, {after}"
        f" {source} {not_superseded(names, epoch)}"
    )


def free_cursor(names: WatcherNames, seen: str, epoch: str = FIRST_EPOCH, n: int = 0) -> str:
    """INSERT of a cursor that nobody holds, by the snapshot that shows what is delivered and by its epoch, both SQL.

    n: 0 in the first of a ring, and in no other. It ends in a SELECT without FROM, to which a condition may be added.
    """
    return (
        f"INSERT INTO {ours(names.cursors[0])} (epoch, n, holder, expires_at, prev, after_id)"
        f" SELECT {epoch}, {n:d}, '', '-infinity', {seen}, 0"
    )


def with_undelivered(names: WatcherNames, columns: str) -> str:
    """The WITH clause of a query: `undelivered`, `columns` of the rows r that the newest cursor p leaves.

    A row r has xid, at (when it was captured), number (of events) and last (the id of the last one).
    """
    rows = " UNION ALL ".join(_UNDELIVERED.format(columns=columns, ring=ours(ring)) for ring in names.rings)
    return f"WITH p AS MATERIALIZED ({newest(names, 'prev, cur, after_id')}), undelivered AS ({rows})"


# A row below the xmin of a snapshot is one it shows: the index on xid leaves only the newest to look at.
# A ring of an earlier version has neither chunks nor their columns: they are NULL then.
_UNDELIVERED = f"""
SELECT {{columns}} FROM p CROSS JOIN (SELECT NULL::timestamptz AS taken_at, NULL::text[] AS bodies) AS earlier
CROSS JOIN LATERAL (
    SELECT xid, {TAKEN_AT} AS at, {EVENTS} AS number, {LAST_ID} AS last FROM {{ring}}
    WHERE xid >= pg_catalog.pg_snapshot_xmin(p.prev)) AS r
WHERE NOT {of_cursor("p").delivered("r.xid", "r.last")}
"""
