"""Events of one watcher that are put aside, in table `parked`: written, read back, deleted by the owner of the lease.

A row holds all that is needed to send the event, so that cursor and ring move on. It is written before the cursor
passes its event; written once more it stays as it is, in its place.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from ..event import Event, body_of, parts_of
from ..naming import SCHEMA, WatcherNames, source, token
from ..spec.model import Format, WatcherSpec
from .connection.session import Connection, translating
from .ring.cursor_sql import not_superseded
from .routing import kept, route, words_of

# Read in pieces: a key that is hot may have gathered many.
PIECE_EVENTS = 500
PIECE_BYTES = 8 << 20
TABLE = f"{SCHEMA}.parked"


@dataclass(frozen=True, slots=True)
class Row:
    """An event put aside after `attempts` (0: it follows another of its key), and what was last said of it."""

    event: Event
    attempts: int = 0
    reason: str = ""
    message: str = ""


@dataclass(frozen=True, slots=True)
class Held:
    """So many events, with so many bytes of data."""

    events: int = 0
    bytes: int = 0

    def __add__(self, other: Held) -> Held:
        return Held(self.events + other.events, self.bytes + other.bytes)

    def __sub__(self, other: Held) -> Held:
        return Held(self.events - other.events, self.bytes - other.bytes)


class Parked:
    """The events put aside of one watcher, over a connection shared with others."""

    def __init__(self, connection: Connection, lock: asyncio.Lock, spec: WatcherSpec, names: WatcherNames) -> None:
        self._connection = connection
        self._lock = lock
        self._hash = names.hash
        self._structured = spec.format is Format.STRUCTURED
        self._columns = spec.routing_columns
        self._source = source(spec.namespace, spec.name)
        self._table = f"{token(spec.table.schema)}.{token(spec.table.name)}"
        self._insert = _INSERT.format(table=TABLE, not_superseded=not_superseded(names))

    @translating
    async def write(self, epoch: int, rows: Sequence[Row]) -> Held | None:
        """Writes rows, all or none: how much is there that was not; None: another epoch has taken over."""
        values = [self._values(row) | {"epoch": epoch} for row in rows]
        async with self._lock, self._connection.transaction(), self._connection.cursor() as cursor:
            await cursor.executemany(self._insert, values, returning=True)
            written, new = 0, Held()
            while True:
                for row in await cursor.fetchall():
                    written += 1
                    new += Held(1, row["size"]) if row["is_new"] else Held()
                if not cursor.nextset():
                    return new if written == len(rows) else None

    @translating
    async def keys(self) -> list[str]:
        """Every key that has events put aside."""
        return [row["key"] for row in await self._rows(_KEYS, {})]

    @translating
    async def held(self) -> Held:
        """How much is put aside now."""
        (row,) = await self._rows(_HELD, {})
        return Held(**row)

    @translating
    async def event_ids(self) -> frozenset[str]:
        """The ids of all events put aside."""
        return frozenset(row["event_id"] for row in await self._rows(_EVENT_IDS, {}))

    @translating
    async def lanes_of(self, keys: Iterable[str]) -> list[str]:
        """`keys`, and all that are bound to them by events that changed a key."""
        return [row["key"] for row in await self._rows(_LANES, {"keys": list(keys)})]

    @translating
    async def first(self, keys: Sequence[str], replay: int) -> tuple[list[Event], set[str]]:
        """The first events of `keys`, as part of `replay`, and those keys that have more behind them."""
        rows = await self._rows(_FIRST, {"keys": list(keys), "limit": PIECE_EVENTS + 1})
        events: list[Event] = []
        size = 0
        for row in rows[:PIECE_EVENTS]:
            size += len(row["data"])
            if events and size > PIECE_BYTES:
                break
            events.append(self._event(row, replay))
        if len(events) == len(rows):
            return events, set()
        left = await self._rows(_LEFT, {"keys": list(keys), "n": rows[len(events)]["n"]})
        return events, {row["key"] for row in left}

    @translating
    async def delete(self, events: Iterable[Event]) -> Held:
        """Forgets events that are delivered; how much of that was there.

        With that they count as done of the request that they came back for: whoever goes on with it after a kill
        finds both or neither.
        """
        found = list(events)
        parameters = {
            "ids": [event.ring_id for event in found],
            "events": [event.event_id for event in found],
            "replays": [event.replay for event in found],
        }
        (row,) = await self._rows(_DELETE, parameters)
        return Held(**row)

    async def _rows(self, query: str, parameters: dict[str, Any]) -> list[dict[str, Any]]:
        async with self._lock:
            cursor = await self._connection.execute(query.format(table=TABLE), parameters | {"hash": self._hash})
            return await cursor.fetchall()

    def _values(self, row: Row) -> dict[str, Any]:
        event = row.event
        time, sequence, data = parts_of(event, structured=self._structured)
        return {
            "hash": self._hash,
            "ring_id": event.ring_id,
            "event_id": event.event_id,
            "op": event.op,
            "key": event.key,
            "old_key": event.old_key,
            "time": time,
            "captured_at": event.captured_at,
            "sequence": sequence,
            "traceparent": event.traceparent,
            "data": data.decode(),
            "routing": kept(event.routing, self._columns),
            "attempts": row.attempts,
            "reason": row.reason,
            "message": row.message,
        }

    def _event(self, row: dict[str, Any], replay: int) -> Event:
        event = Event(
            row["ring_id"],
            row["event_id"],
            row["op"],
            row["key"],
            row["old_key"],
            row["time"],
            row["captured_at"],
            row["sequence"],
            row["traceparent"],
            b"",
            words_of(row["routing"], self._columns),
            replay,
        )
        data = row["data"].encode()
        event.body = body_of(event, data, structured=self._structured, source=self._source, table=self._table)
        return route(event, self._columns, structured=self._structured)


def of_key(meant: str, table: str = "") -> str:
    """A condition: an event put aside is of the key `meant`, SQL, before or after its change. table: alias and a dot.

    In the order of bytes, as the indexes on keys are.
    """
    return f'({table}key COLLATE "C" = {meant} OR {table}old_key COLLATE "C" = {meant})'


_COLUMNS = (
    "hash, ring_id, event_id, op, key, old_key, time, captured_at, sequence, traceparent, data, routing, attempts,"
    " reason, message"
)
# An event that came back and failed again keeps its place. A row of ours that stands counts as written.
_INSERT = (
    f"INSERT INTO {{table}} AS p ({_COLUMNS})"
    " SELECT %(hash)s, %(ring_id)s, %(event_id)s, %(op)s, %(key)s, %(old_key)s::text, %(time)s, %(captured_at)s,"
    " %(sequence)s, %(traceparent)s::text, %(data)s, %(routing)s::text[], %(attempts)s, %(reason)s, %(message)s"
    " WHERE {not_superseded}"
    " ON CONFLICT (hash, ring_id, event_id) DO UPDATE SET attempts = p.attempts + excluded.attempts,"
    " reason = CASE WHEN excluded.attempts > 0 THEN excluded.reason ELSE p.reason END,"
    " message = CASE WHEN excluded.attempts > 0 THEN excluded.message ELSE p.message END"
    # Only a row that was there before has been locked by us.
    " RETURNING p.xmax = 0 AS is_new, pg_catalog.octet_length(p.data) AS size"
)
_KEYS = (
    "SELECT key FROM {table} WHERE hash = %(hash)s"
    " UNION SELECT old_key FROM {table} WHERE hash = %(hash)s AND old_key IS NOT NULL"
)
_EVENT_IDS = "SELECT event_id FROM {table} WHERE hash = %(hash)s"
_SUM = "count(*) AS events, coalesce(sum(pg_catalog.octet_length(data)), 0)::bigint AS bytes"
_HELD = f"SELECT {_SUM} FROM {{table}} WHERE hash = %(hash)s"
_LANES = (
    "WITH RECURSIVE lane (key) AS (SELECT pg_catalog.unnest(%(keys)s::text[]) UNION"
    " SELECT v.key FROM lane AS l JOIN {table} AS p ON p.hash = %(hash)s AND p.old_key IS NOT NULL"
    f" AND {of_key('l.key', 'p.')} CROSS JOIN LATERAL (VALUES (p.key), (p.old_key)) AS v (key))"
    " SELECT key FROM lane"
)
_OF_KEYS = f"hash = %(hash)s AND {of_key('ANY (%(keys)s)')}"
_FIRST = f"SELECT n, {_COLUMNS} FROM {{table}} WHERE {_OF_KEYS} ORDER BY n LIMIT %(limit)s"
_LEFT = (
    f"SELECT key FROM {{table}} WHERE {_OF_KEYS} AND n >= %(n)s"
    f" UNION SELECT old_key FROM {{table}} WHERE {_OF_KEYS} AND n >= %(n)s AND old_key IS NOT NULL"
)
_DELETE = (
    "WITH gone AS (DELETE FROM {table} AS p USING ROWS FROM (pg_catalog.unnest(%(ids)s::bigint[]),"
    " pg_catalog.unnest(%(events)s::text[]), pg_catalog.unnest(%(replays)s::bigint[])) AS d (ring_id, event_id, replay)"
    " WHERE p.hash = %(hash)s AND p.ring_id = d.ring_id AND p.event_id = d.event_id RETURNING p.data, d.replay),"
    " counted AS (SELECT replay, count(*)::integer AS number FROM gone GROUP BY 1),"
    f" done AS (UPDATE {SCHEMA}.request AS r SET done = r.done + c.number,"
    " total = greatest(r.total, r.done + c.number) FROM counted AS c WHERE r.id = c.replay)"
    f" SELECT {_SUM} FROM gone"
)
