"""Gaps that are over, until they can be told: after every transaction that ran without capture has ended.

A gap event says "read the table again". Told while a transaction that was not captured is still open, it would be read
too early, and what that transaction commits afterwards would be missed in silence. Such a transaction holds a lock on
the watched table until its end, so nobody else is waited for, however long they run. Where such a wait is long, the gap
is told twice: that changes were missed, without an end, and once more when there is nothing left to wait for.
"""

from __future__ import annotations

import asyncio

from ...naming import RING_SLOTS, SCHEMA, WatcherNames
from ..connection.session import Connection, translating
from ..quoting import literal, ours
from ..sql import QUERIES
from .gap_sql import gap_events, note_gap

OVERFLOW = "overflow"
# A gap that has waited for so long is told as open.
PATIENCE_SECONDS = 30.0


class Gaps:
    """The open gaps of one watcher, on a connection shared with others. For the owner of the lease alone."""

    def __init__(self, connection: Connection, lock: asyncio.Lock, names: WatcherNames) -> None:
        self._connection = connection
        self._lock = lock
        self._names = names
        over, open_still = _OVER.format(stop=ours(names.stop)), _OPEN.format(stop=ours(names.stop))
        slots = range(RING_SLOTS)
        self._over = [over + gap_events(names, slot, _ENDED, "FROM over ORDER BY until") for slot in slots]
        self._open = [open_still + gap_events(names, slot, _UNENDED, "FROM open ORDER BY until") for slot in slots]

    @translating
    async def resume_capture(self, stopped_at: int) -> None:
        """Starts capture again after an overflow. stopped_at: epoch seconds."""
        # It was rounded to whole seconds, up or down: a gap may begin too early, never too late.
        since = f"pg_catalog.to_timestamp({stopped_at - 1:d})"
        async with self._lock:
            # First: ended in between, the gap is told twice rather than never.
            await self._connection.execute(note_gap(self._names, OVERFLOW, certain=True, since=since))
            await self._connection.execute("SELECT pg_catalog.setval(%s::regclass, 0)", [ours(self._names.stop)])
            await self._connection.execute(
                f"UPDATE {SCHEMA}.gap SET until = pg_catalog.clock_timestamp(),"
                " horizon = pg_catalog.pg_snapshot_xmax(pg_catalog.pg_current_snapshot())"
                f" WHERE hash = %s AND reason = {literal(OVERFLOW)}",
                [self._names.hash],
            )

    @translating
    async def announce(self, slot: int, *, patience: float = PATIENCE_SECONDS) -> None:
        """Writes a gap event into the ring for each gap that nobody is waited for any more, or has been for long."""
        async with self._lock, self._connection.transaction():
            # Written by `apply`, it could not say who would still run when its transaction was through.
            await self._connection.execute(
                f"UPDATE {SCHEMA}.gap SET horizon = pg_catalog.pg_snapshot_xmax(pg_catalog.pg_current_snapshot())"
                " WHERE hash = %s AND horizon IS NULL",
                [self._names.hash],
            )
            await self._connection.execute(self._over[slot], {"hash": self._names.hash})
            await self._connection.execute(self._open[slot], {"hash": self._names.hash, "patience": patience})


_MEMBERS = """'"reason":' || pg_catalog.to_json(reason)::text || ',"certain":' || certain::text
       || coalesce(',"from":' || pg_catalog.to_json(since)::text, '')"""
_ENDED = f"""{_MEMBERS} || ',"until":' || pg_catalog.to_json(until)::text"""
_UNENDED = f"""{_MEMBERS} || ',"open":true'"""
# A lock is compared by the 32 bits of its transaction's id: those that run now are few, and differ in these.
_OVER = f"""
WITH over AS (
    DELETE FROM {SCHEMA}.gap AS g WHERE hash = %(hash)s
      AND (reason <> '{OVERFLOW}' OR (SELECT last_value FROM {{stop}}) = 0)
      AND NOT EXISTS (
        SELECT FROM pg_catalog.pg_locks AS held
        JOIN pg_catalog.pg_locks AS own ON own.virtualtransaction = held.virtualtransaction
          AND own.locktype = 'transactionid' AND own.granted AND own.mode = 'ExclusiveLock'
        JOIN pg_catalog.pg_snapshot_xip(pg_catalog.pg_current_snapshot()) AS running (xid)
          ON running.xid::xid = own.transactionid
        WHERE running.xid < g.horizon AND held.locktype = 'relation' AND held.granted
          AND held.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())
          AND held.mode IN ('RowExclusiveLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock')
          AND held.relation IN (
            SELECT p.oid FROM (SELECT w.table_oid AS oid FROM {SCHEMA}.watcher AS w WHERE w.hash = g.hash) AS root
            CROSS JOIN LATERAL ({QUERIES["partition_tree"]}) AS p))
    RETURNING reason, certain, since, until)
"""
_OPEN = f"""
WITH open AS (
    UPDATE {SCHEMA}.gap SET told = true
    WHERE hash = %(hash)s AND NOT told AND (reason <> '{OVERFLOW}' OR (SELECT last_value FROM {{stop}}) = 0)
      AND until < pg_catalog.clock_timestamp() - pg_catalog.make_interval(secs => %(patience)s::float8)
    RETURNING reason, certain, since, until)
"""
