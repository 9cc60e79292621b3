"""Reading a ring: the difference between two snapshots, in order of id, a page at a time.

Why a snapshot difference. Ids are drawn in one order and commits happen in another: a reader that keeps the last id
loses the rows of transactions that commit late; one that waits for the oldest running transaction stalls behind it,
and orders by transaction id, which is not the order in which a row was changed. What one snapshot shows and the one
before did not is exactly what was committed in between, and by id it is in order for every row: its second writer
had to wait for the first one's commit.

No transaction stays open while a sink is waited for: a big batch is divided into pages once, in a held cursor that
keeps for each the stretch of every slot its rows lie in (rows of an insert-only table do not move), and a page is then
read from that stretch.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from psycopg import AsyncClientCursor
from psycopg.rows import tuple_row

from ..event import Event
from ..naming import WatcherNames
from ..spec.model import WatcherSpec
from .ddl import ours
from .envelope import EVENT_COLUMNS, RAW_COLUMNS, event_rows
from .session import Connection, translating
from .snapshot import Snapshot, late_commits

PAGE_BYTES = 8 << 20
_FLUSH_WAITS = (0.0005, 0.001)


@dataclass(frozen=True, slots=True)
class Position:
    """How far a watcher has delivered: all that `prev` shows, and of the batch up to `cur` the ids to `after_id`."""

    prev: Snapshot
    cur: Snapshot | None = None
    after_id: int = 0


@dataclass(frozen=True, slots=True)
class Page:
    """Events in order of id, out of the batch between `prev` and `cur`. `last`: the batch ends here."""

    events: tuple[Event, ...]
    prev: Snapshot
    cur: Snapshot
    last: bool

    def position(self, undelivered: int | None) -> Position:
        """The position when every event before ring id `undelivered` is delivered (None: all of the page)."""
        if undelivered is None and self.last:
            return Position(self.cur)
        after = self.events[-1].ring_id if undelivered is None else undelivered - 1
        return Position(self.prev, self.cur, after)


class Outbox:
    """One watcher's ring, read through `connection`, which other watchers share: one statement at a time."""

    def __init__(
        self,
        connection: Connection,
        lock: asyncio.Lock,
        spec: WatcherSpec,
        names: WatcherNames,
        *,
        database: str,
        generation: int = 1,
        replay: int = 0,
    ) -> None:
        self._connection = connection
        self._lock = lock
        self._names = names
        self._held = f"batch_{names.hash}_{replay}"
        self._has_held = False
        self._ahead: list[tuple[Any, ...]] = []
        rows = event_rows(spec, names, database=database, generation=generation, replay=replay)
        self._poll = _POLL.format(raw=self._union(_POLL_BRANCH), rows=rows)
        self._poll_late = _POLL.format(raw=self._union(_POLL_BRANCH + _LATE_BRANCH), rows=rows)
        self._addresses = _ADDRESSES.format(held=self._held, raw=self._union(_BATCH_BRANCH))
        self._page = _PAGE.format(raw=self._union(_PAGE_BRANCH), rows=rows)
        self._batch: dict[str, Any] = {}
        self._again = partial(Outbox, connection, lock, spec, names, database=database, generation=generation)

    def for_replay(self, number: int) -> Outbox:
        """Another reader of the same ring, whose events carry the number of a replay."""
        return self._again(replay=number)

    @translating
    async def next_page(self, position: Position, limit: int) -> Page | None:
        """The next events after `position`, about `limit` at most; None: nothing new has committed.

        A page without events is the end of a batch that an earlier page had reached already.
        """
        async with self._lock:
            if position.cur is None:
                return await self._new_batch(position.prev, limit)
            if not self._has_held:
                await self._hold(position.prev, position.cur, position.after_id, limit)
            return await self._held_page(position.prev, position.cur, limit)

    @translating
    async def close(self) -> None:
        """Lets go of a batch that is not read to its end."""
        async with self._lock:
            await self._release()

    def _union(self, branches: str) -> str:
        return " UNION ALL ".join(
            branches.format(ring=ours(ring), slot=slot, raw=RAW_COLUMNS) for slot, ring in enumerate(self._names.rings)
        )

    async def _new_batch(self, prev: Snapshot, limit: int) -> Page | None:
        late = late_commits(prev)
        query = self._poll_late if late else self._poll
        parameters = {"xmax": str(prev.xmax), "late": [str(xid) for xid in late], "limit": limit + 1}
        rows = await self._rows(query, parameters)
        if not rows:
            return None
        text, lsn, flushed = rows[0][_WIDTH:]
        cur = Snapshot.parse(text)
        if not flushed:
            await self._await_flush(lsn)
        events = tuple(_event(row) for row in rows[:limit])
        if len(rows) > limit:
            # More than a page: the rest of this very batch is read by address, from where this page ends.
            await self._hold(prev, cur, events[-1].ring_id, limit)
        return Page(events, prev, cur, last=len(rows) <= limit)

    async def _hold(self, prev: Snapshot, cur: Snapshot, after_id: int, limit: int) -> None:
        await self._release()
        late = [str(xid) for xid in late_commits(prev, cur)]
        batch = {"xmax": str(prev.xmax), "end": str(cur.xmax), "cur": cur.text, "late": late, "after": after_id}
        self._batch = batch
        # Before the statement: cancelled in the middle of it, close() must still let go of what it may have made.
        self._has_held = True
        # A client-side cursor: DECLARE takes no parameters from the wire.
        async with AsyncClientCursor(self._connection) as cursor:
            await cursor.execute(self._addresses, {**batch, "limit": limit})

    async def _held_page(self, prev: Snapshot, cur: Snapshot, limit: int) -> Page:
        """The next page of the held batch, which is looked ahead by one to know its last."""
        found = await self._rows(f"FETCH {1 if self._ahead else 2} FROM {self._held}", None)
        pages = [*self._ahead, *found]
        self._ahead = pages[1:]
        if not pages:
            await self._release()
            return Page((), prev, cur, last=True)
        bounds = dict(zip(_BOUNDS, pages[0], strict=True))
        rows = await self._rows(self._page, {**self._batch, **bounds})
        if len(rows) != bounds["events"]:
            # Somebody rewrote a table of the ring (VACUUM FULL): addresses have changed. Divide what is left anew.
            await self._hold(prev, cur, self._batch["after"], limit)
            return await self._held_page(prev, cur, limit)
        self._batch["after"] = bounds["last"]
        if not self._ahead:
            await self._release()
        return Page(tuple(_event(row) for row in rows), prev, cur, last=not self._has_held)

    async def _release(self) -> None:
        if self._has_held:
            self._has_held, self._ahead = False, []
            await self._connection.execute(f"CLOSE {self._held}")

    async def _rows(self, query: str, parameters: dict[str, Any] | None) -> Sequence[tuple[Any, ...]]:
        async with self._connection.cursor(binary=True, row_factory=tuple_row) as cursor:
            await cursor.execute(query, parameters)
            return await cursor.fetchall()

    async def _await_flush(self, lsn: str) -> None:
        """Returns when everything visible so far is on disk.

        With synchronous_commit = off a row is seen before it is durable; sent then and lost in a crash, it would be
        an event for a change that never was. WAL that nobody waits for is flushed within 3 x wal_writer_delay; past
        a few looks we write a little ourselves and wait for that.
        """
        for wait in (*_FLUSH_WAITS, None):
            if wait is None:
                await self._flush()
            else:
                await asyncio.sleep(wait)
            rows = await self._rows(
                "SELECT pg_catalog.pg_current_wal_flush_lsn() >= %(lsn)s::text::pg_lsn", {"lsn": lsn}
            )
            if rows[0][0]:
                return
        raise AssertionError("a commit returned before its WAL was flushed")

    async def _flush(self) -> None:
        wake = ours(self._names.wake)
        async with self._connection.transaction():
            await self._connection.execute("SET LOCAL synchronous_commit = local")
            await self._connection.execute(f"SELECT pg_catalog.setval('{wake}', last_value) FROM {wake}")


def _event(row: Sequence[Any]) -> Event:
    return Event(*row[:_WIDTH])


_WIDTH = EVENT_COLUMNS.count(",") + 1
_POLL_BRANCH = "SELECT {raw} FROM {ring} WHERE xid >= %(xmax)s::text::xid8"
_LATE_BRANCH = " UNION ALL SELECT {raw} FROM {ring} WHERE xid = ANY (%(late)s::text[]::xid8[])"
# The statement's own snapshot is `cur`: just what it shows of the rows, pg_current_snapshot() names.
_POLL = """
WITH raw AS MATERIALIZED (SELECT * FROM ({raw}) AS u ORDER BY id LIMIT %(limit)s),
head AS MATERIALIZED (
    SELECT (SELECT min(id) FROM raw) AS first_id, pg_catalog.pg_current_snapshot()::text AS cur,
           pg_catalog.pg_current_wal_insert_lsn() AS lsn)
SELECT e.*, CASE WHEN e.id = h.first_id THEN h.cur END, CASE WHEN e.id = h.first_id THEN h.lsn::text END,
       CASE WHEN e.id = h.first_id THEN pg_catalog.pg_current_wal_flush_lsn() >= h.lsn END
FROM {rows} AS e CROSS JOIN head AS h ORDER BY e.id
"""
_IN_BATCH = (
    "xid >= %(xmax)s::text::xid8 AND xid < %(end)s::text::xid8"
    " AND pg_catalog.pg_visible_in_snapshot(xid, %(cur)s::text::pg_snapshot) AND id > %(after)s"
)
_LATE_IN_BATCH = "xid = ANY (%(late)s::text[]::xid8[]) AND id > %(after)s"
_BATCH_BRANCH = (
    "SELECT id, {slot} AS slot, ctid AS address FROM {ring} WHERE "
    f"{_IN_BATCH} UNION ALL SELECT id, {{slot}}, ctid FROM {{ring}} WHERE {_LATE_IN_BATCH}"
)
# A row a page: how many events, the last id, and the stretch of each slot that holds them.
_BOUNDS = ("events", "last", "from0", "to0", "from1", "to1", "from2", "to2")
_ADDRESSES = """
DECLARE {held} NO SCROLL CURSOR WITH HOLD FOR
SELECT count(*), max(id), min(address) FILTER (WHERE slot = 0)::text, max(address) FILTER (WHERE slot = 0)::text,
       min(address) FILTER (WHERE slot = 1)::text, max(address) FILTER (WHERE slot = 1)::text,
       min(address) FILTER (WHERE slot = 2)::text, max(address) FILTER (WHERE slot = 2)::text
FROM (SELECT id, slot, address, (pg_catalog.row_number() OVER (ORDER BY id) - 1) / %(limit)s AS page
      FROM ({raw}) AS u) AS p
GROUP BY page ORDER BY page
"""
_PAGE_BRANCH = (
    "SELECT {raw} FROM {ring} WHERE ctid >= %(from{slot})s::text::tid AND ctid <= %(to{slot})s::text::tid"
    f" AND id <= %(last)s AND (({_IN_BATCH}) OR ({_LATE_IN_BATCH}))"
)
_PAGE = "WITH raw AS MATERIALIZED ({raw}) SELECT e.* FROM {rows} AS e ORDER BY e.id"
