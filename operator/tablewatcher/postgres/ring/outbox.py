"""Reading a ring: the difference between two snapshots, in order of id, a page at a time.

Why a snapshot difference. Ids are drawn in one order and commits happen in another: a reader that keeps the last id
loses the rows of transactions that commit late; one that waits for the oldest running transaction stalls behind it,
and orders by transaction id, which is not the order in which a row was changed. What one snapshot shows and the one
before did not is exactly what was committed in between, and by id it is in order for every row: its second writer
had to wait for the first one's commit.

No transaction stays open while a sink is waited for: a big batch is divided into pages once, and for each is kept the
stretch of every slot its rows lie in (rows of an insert-only table do not move); a page is then read from that stretch.
A page is bounded in events and in bytes, so that large rows after small ones do not fill the memory.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from functools import partial
from typing import Any

import psycopg
from psycopg.rows import tuple_row

from ...errors import DatabaseError, Reason
from ...event import Event
from ...naming import SCHEMA, WatcherNames
from ...spec.model import Format, WatcherSpec
from ..connection.session import Connection, translating
from ..quoting import ours
from ..routing import route
from .chunks import EVENTS, IS_OF_LATER_FORM, LAST_ID, SIZE, STORED_COLUMNS, events_in, rows_in
from .envelope import EVENT_COLUMNS, event_rows
from .home import foreign_rows, later_form
from .position import Page, Position, Rest
from .snapshot import Snapshot, late_commits
from .stray_bytes import without

PAGE_BYTES = 8 << 20
_FLUSH_WAITS = (0.0005, 0.001)
# With rows, after the last that had a chunk among them.
_LOOKS_FOR_CHUNKS = 20


class Outbox:
    """One watcher's ring, read through `connection`, which other watchers share: one statement at a time.

    event_rows: as `envelope` makes it.
    """

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
        self._generation = generation
        self._columns, self._structured = spec.routing_columns, spec.format is Format.STRUCTURED
        encoding = connection.info.parameter_status("server_encoding")
        rows = event_rows(spec, names, database=database, encoding=encoding, generation=generation, replay=replay)
        self.event_rows = rows
        # By what they look for, put together when first asked for: most watchers never need all.
        self._polls: dict[tuple[bool, bool], str] = {}
        self._looks_for_chunks = 0
        self._bounds = _PAGES.format(stored=self._union(_BATCH_BRANCH))
        self._page = self._of_page(_EVENTS)
        # Known once a page has had some: to look for them takes long.
        self._has_stray_bytes = False
        # What is left of a big batch: its parameters, and the bounds of each page.
        self._batch: dict[str, Any] = {}
        self._left: deque[dict[str, Any]] = deque()
        self._again = partial(Outbox, connection, lock, spec, names, database=database, generation=generation)

    def for_replay(self, number: int) -> Outbox:
        """Another reader of the same ring, whose events carry the number of a replay."""
        return self._again(replay=number)

    @translating
    async def next_page(self, position: Position, limit: int) -> Page | None:
        """The next events after `position`, about `limit`: a chunk is not divided; None: nothing new has committed.

        A page without events is the end of a batch that an earlier page had reached already. Raises DatabaseError, also
        where another generation has begun.
        """
        async with self._lock:
            try:
                return await self._next(position, limit)
            except psycopg.errors.CharacterNotInRepertoire:
                if self._has_stray_bytes:
                    raise
            self._has_stray_bytes = True
            self._polls = {}
            self._page = self._of_page(without(_EVENTS))
            return await self._next(position, limit)

    async def _next(self, position: Position, limit: int) -> Page | None:
        if position.cur is None:
            return await self._new_batch(position.prev, limit)
        if not self._left:
            await self._divide(position.prev, position.cur, position.after_id, limit)
        return await self._page_of_batch(position.prev, position.cur, limit)

    def _of_page(self, raw: str) -> str:
        return _PAGE.format(stored=self._union(_PAGE_BRANCH), raw=raw, rows=self.event_rows)

    def _union(self, branches: str) -> str:
        return " UNION ALL ".join(
            branches.format(ring=ours(ring), slot=slot, stored=STORED_COLUMNS)
            for slot, ring in enumerate(self._names.rings)
        )

    async def _new_batch(self, prev: Snapshot, limit: int) -> Page | None:
        rows = await self._look(prev, limit)
        if not rows:
            return None
        text, seen, lsn, flushed, generation, foreign, later = rows[0][_WIDTH]
        if generation is not None and int(generation) > self._generation:
            # Begun by `apply`, together with the first rows that this very snapshot shows: they go out as part of it.
            raise DatabaseError(Reason.RECONCILING, "a new generation has begun in the database; starting anew")
        cur = Snapshot.parse(text)
        if foreign == _TRUE or text == prev.text:
            raise foreign_rows()  # what it shows and the one before did not is nothing
        if later == _TRUE:
            raise later_form()
        if flushed != _TRUE:
            await self._await_flush(lsn)
        events = self.events_of(rows)
        if int(seen) == len(events):
            return Page(events, prev, cur)
        # More than a page: the rest of this very batch is read by address, from where this page ends.
        await self._divide(prev, cur, events[-1].ring_id, limit)
        return Page(events, prev, cur, self._rest())

    async def _look(self, prev: Snapshot, limit: int) -> Sequence[tuple[Any, ...]]:
        """Events of what was not to be seen at `prev`, the first with what is said of all.

        A query that finds events in chunks, too, takes the server half as long again to set up, and to plan, as it does
        anew at each look where a pooler is in between. So it is asked where chunks have been seen lately.
        """
        late = late_commits(prev)
        parameters = {
            "xmax": str(prev.xmax),
            "late": [str(xid) for xid in late],
            "limit": limit,
            "bytes": PAGE_BYTES,
            "hash": self._names.hash,
        }
        has_late = bool(late)
        rows = await self._rows(self._poll(has_late, bool(self._looks_for_chunks)), parameters)
        chunks = bool(rows) and rows[0][_WIDTH][-1] is not None
        if chunks and not self._looks_for_chunks:
            # These were rows of the ring and no events. The next look is another batch, which these are part of.
            rows = await self._rows(self._poll(has_late, True), parameters)
        self._looks_for_chunks = _LOOKS_FOR_CHUNKS if chunks else max(self._looks_for_chunks - 1, 0)
        return rows

    def _poll(self, late: bool, chunks: bool) -> str:
        found = self._polls.get((late, chunks))
        if found is None:
            stored = self._union(_POLL_BRANCH + _LATE_BRANCH if late else _POLL_BRANCH)
            raw = _EVENTS if chunks else _ROWS
            raw = without(raw) if self._has_stray_bytes else raw
            found = _POLL.format(stored=stored, raw=raw, rows=self.event_rows)
            self._polls[late, chunks] = found
        return found

    async def _divide(self, prev: Snapshot, cur: Snapshot, after_id: int, limit: int) -> None:
        late = [str(xid) for xid in late_commits(prev, cur)]
        self._batch = {"xmax": str(prev.xmax), "end": str(cur.xmax), "cur": cur.text, "late": late, "after": after_id}
        rows = await self._rows(self._bounds, {**self._batch, "limit": limit, "bytes": PAGE_BYTES})
        if any(row[-1] for row in rows):
            raise later_form()
        self._left = deque(dict(zip(_BOUNDS, row, strict=False)) for row in rows)

    async def _page_of_batch(self, prev: Snapshot, cur: Snapshot, limit: int) -> Page:
        if not self._left:
            return Page((), prev, cur)
        bounds = self._left[0]
        rows = await self._rows(self._page, {**self._batch, **bounds})
        if len(rows) != bounds["events"]:
            # Somebody rewrote a table of the ring (VACUUM FULL): addresses have changed. Divide what is left anew.
            await self._divide(prev, cur, self._batch["after"], limit)
            return await self._page_of_batch(prev, cur, limit)
        self._batch["after"] = bounds["last"]
        self._left.popleft()
        return Page(self.events_of(rows), prev, cur, self._rest())

    def _rest(self) -> Rest | None:
        """What is left of the batch behind what has been read of it."""
        if not self._left:
            return None
        last = self._left[-1]
        begin = self._left[-2]["last"] if len(self._left) > 1 else self._batch["after"]
        return Rest(sum(page["events"] for page in self._left), last["last"], last["events"] / (last["last"] - begin))

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

    def events_of(self, rows: Sequence[Sequence[Any]]) -> tuple[Event, ...]:
        """The events that rows of `event_rows` are."""
        made, columns = (Event(*row[:_WIDTH]) for row in rows), self._columns
        return tuple(route(each, columns, structured=self._structured) for each in made) if columns else tuple(made)

    async def _flush(self) -> None:
        wake = ours(self._names.wake)
        async with self._connection.transaction():
            await self._connection.execute("SET LOCAL synchronous_commit = local")
            await self._connection.execute(f"SELECT pg_catalog.setval('{wake}', last_value) FROM {wake}")


_WIDTH = EVENT_COLUMNS.count(",") + 1
_ROWS, _EVENTS = rows_in("page"), events_in("page")
_TRUE = "true"
_POLL_BRANCH = "SELECT {stored} FROM {ring} WHERE xid >= %(xmax)s::text::xid8"
_LATE_BRANCH = " UNION ALL SELECT {stored} FROM {ring} WHERE xid = ANY (%(late)s::text[]::xid8[])"
# The statement's own snapshot is `cur`: just what it shows of the rows, pg_current_snapshot() names.
_POLL = f"""
WITH seen AS MATERIALIZED (SELECT * FROM ({{stored}}) AS u ORDER BY id LIMIT %(limit)s::bigint + 1),
page AS MATERIALIZED (
    SELECT * FROM (SELECT *, sum({SIZE}) OVER so_far AS size, sum({EVENTS}) OVER so_far AS number FROM seen
                   WINDOW so_far AS (ORDER BY id ROWS UNBOUNDED PRECEDING)) AS s
    WHERE size - {SIZE} < %(bytes)s::bigint AND number - {EVENTS} < %(limit)s::bigint),
raw AS ({{raw}}),
head AS MATERIALIZED (
    SELECT (SELECT min(id) FROM seen) AS first_id, pg_catalog.pg_current_snapshot()::text AS cur,
           (SELECT sum({EVENTS})::bigint FROM seen) AS seen, pg_catalog.pg_current_wal_insert_lsn() AS lsn,
           (SELECT generation FROM {SCHEMA}.watcher WHERE hash = %(hash)s) AS generation,
           -- Rows of transactions that are still to come: they would be new to every look, until these have passed.
           EXISTS (SELECT FROM seen WHERE xid >= (SELECT pg_catalog.pg_snapshot_xmax(pg_catalog.pg_current_snapshot())))
             AS foreign_rows)
SELECT e.*, CASE WHEN e.id = (SELECT first_id FROM head) THEN (
    SELECT ARRAY[cur, seen::text, lsn::text, (pg_catalog.pg_current_wal_flush_lsn() >= lsn)::text, generation::text,
                 foreign_rows::text,
                 -- NULL: there is no chunk.
                 (SELECT bool_or({IS_OF_LATER_FORM})::text FROM page WHERE bodies IS NOT NULL)] FROM head) END
FROM {{rows}} AS e ORDER BY e.id
"""
_IN_BATCH = (
    "xid >= %(xmax)s::text::xid8 AND xid < %(end)s::text::xid8"
    f" AND pg_catalog.pg_visible_in_snapshot(xid, %(cur)s::text::pg_snapshot) AND {LAST_ID} > %(after)s"
)
_LATE_IN_BATCH = f"xid = ANY (%(late)s::text[]::xid8[]) AND {LAST_ID} > %(after)s"
# Of a chunk that was delivered in part, the rest.
_REST = f"least({EVENTS}, {LAST_ID} - %(after)s)"
_PLACE = (
    f"SELECT id, {{slot}} AS slot, ctid AS address, {_REST} AS number, {LAST_ID} AS last, {SIZE} AS size,"
    f" {IS_OF_LATER_FORM} AS later FROM {{ring}}"
)
_BATCH_BRANCH = f"{_PLACE} WHERE {_IN_BATCH} UNION ALL {_PLACE} WHERE {_LATE_IN_BATCH}"
# A row a page: how many events, the last id, the stretch of each slot that holds them; whether any is of a later form.
_BOUNDS = ("events", "last", "from0", "to0", "from1", "to1", "from2", "to2")
_PAGES = """
SELECT sum(number)::bigint, max(last),
       min(address) FILTER (WHERE slot = 0)::text, max(address) FILTER (WHERE slot = 0)::text,
       min(address) FILTER (WHERE slot = 1)::text, max(address) FILTER (WHERE slot = 1)::text,
       min(address) FILTER (WHERE slot = 2)::text, max(address) FILTER (WHERE slot = 2)::text, bool_or(later)
FROM (SELECT *, (sum(number) OVER so_far - number)::bigint / %(limit)s::bigint
                + (sum(size) OVER so_far - size)::bigint / %(bytes)s::bigint AS page
      FROM ({stored}) AS u WINDOW so_far AS (ORDER BY id ROWS UNBOUNDED PRECEDING)) AS p
GROUP BY page ORDER BY page
"""
_PAGE_BRANCH = (
    "SELECT {stored} FROM {ring} WHERE ctid >= %(from{slot})s::text::tid AND ctid <= %(to{slot})s::text::tid"
    f" AND id <= %(last)s AND (({_IN_BATCH}) OR ({_LATE_IN_BATCH}))"
)
_PAGE = """
WITH page AS MATERIALIZED ({stored}), raw AS (SELECT * FROM ({raw}) AS r WHERE id > %(after)s)
SELECT e.* FROM {rows} AS e ORDER BY e.id
"""
