"""How much of what was delivered a ring still holds."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import psycopg
from psycopg.rows import tuple_row

from ...event import Event
from ...naming import SCHEMA, WatcherNames, key_parts
from ..connection.session import Connection, translating
from ..quoting import literal, ours, utf8
from .chunks import FIRST_COLUMN, IS_BY_COLUMN, TAKEN_AT, events_in
from .envelope import EVENT_COLUMNS
from .gap_sql import repaired_at
from .outbox import Outbox
from .position import GIVEN, Position
from .stray_bytes import may_have_been_said, said, sent_as_it_is, without

_STRETCH = "a_stretch_of_a_table"
_EVENTS = events_in(_STRETCH)
_OF_STRETCH = """
WITH head AS MATERIALIZED (
    SELECT pg_catalog.pg_relation_filenode('{ring}') AS file,
           pg_catalog.pg_relation_size('{ring}') / pg_catalog.current_setting('block_size')::bigint AS blocks)
SELECT head.*, found.* FROM head LEFT JOIN ({query}) AS found ON true
"""
# Of large rows no more than is meant to be kept.
_FOUND = """
WITH meant AS (
    SELECT * FROM ({events}) AS r WHERE {meant} ORDER BY id LIMIT %(most)s::bigint + 1),
raw AS (
    SELECT * FROM (SELECT *, sum(pg_catalog.octet_length(data)) OVER (ORDER BY id) AS size FROM meant) AS m
    WHERE size - pg_catalog.octet_length(data) <= %(most_bytes)s::bigint)
SELECT e.* FROM {rows} AS e
"""
_BODY = EVENT_COLUMNS.split(", ").index("body")
_Rows = list[tuple[Any, ...]]
# 2 MB of a table, which are read in some 20 ms: as long as a page of live delivery takes.
STRETCH_BLOCKS = 256


@dataclass(frozen=True, slots=True)
class Extent:
    """How far back a ring goes. complete: to when the watcher was made, as far as the turning of the ring goes; oldest:
    when its oldest row was captured; repaired: when a table of it was made again, with what was in it gone; made: when
    the watcher was, so that nothing was captured before."""

    complete: bool
    oldest: datetime | None
    repaired: datetime | None
    made: datetime | None = None

    def precedes(self, since: datetime | None) -> str:
        """The end of a message where `since` is before the watcher, "" where it is not: nothing of then is lost."""
        if since is None or self.made is None or since >= self.made:
            return ""
        return f"; the watcher was installed at {self.made.isoformat()}, and nothing was captured before"

    def lacks(self, since: datetime | None) -> str:
        """Why the ring may not have all since then any more; "" where it has."""
        if since is None:
            return ""
        if self.repaired is not None and since < self.repaired:
            return (
                f"a table of the ring was dropped, and made again at {self.repaired.isoformat()}; what it held is gone:"
                " give --since that or later"
            )
        if self.complete:
            return ""
        if self.oldest is None:
            return "the ring holds no delivered events any more"
        if since < self.oldest:
            return (
                f"the ring holds events since {self.oldest.isoformat()}, none before: give --since that or later; raise"
                " spec.delivery.retentionSeconds to keep them longer"
            )
        return ""


def _never(_: _Rows) -> bool:
    return False


def _size(rows: _Rows) -> int:
    return sum(len(row[_BODY]) for row in rows)


class History:
    """The rows of one ring by the time of their capture. There is no index on that: each question reads them all.

    A stretch at a time, for the connection is shared: whoever waits to read another ring has it in between.
    """

    def __init__(self, connection: Connection, lock: asyncio.Lock, names: WatcherNames) -> None:
        self._connection = connection
        self._lock = lock
        self._names = names

    @translating
    async def since(self, moment: datetime | None, key: str | None, position: Position) -> tuple[int, int]:
        """The rows captured since `moment` (of that key token) and delivered, but for gap events.

        The lowest id, 0 for none, and how many there are. Rows that go meanwhile may be missing in both.
        """
        parts = None if key is None else key_parts(key)
        if key is not None and parts is None:
            return 0, 0
        parameters = _parameters(moment, parts or (), position)
        meant = _meant(parts, self._connection.info.parameter_status("server_encoding"))
        query = f"SELECT coalesce(min(id), 0), count(*) FROM ({_EVENTS}) AS r WHERE {meant}"
        rows = _may_have(parts or ())
        found = [r for name in self._names.rings for r in await self._of_ring(name, query, parameters, rows=rows)]
        return min((first for first, _ in found if first), default=0), sum(number for _, number in found)

    @translating
    async def events(
        self, outbox: Outbox, moment: datetime | None, key: str, position: Position, *, most: int, most_bytes: int
    ) -> list[Event] | None:
        """The same rows as events, as `outbox` reads them, in order; None: there are more than `most`.

        Or they have more than `most_bytes`.
        """
        parts = key_parts(key)
        if parts is None:
            return []
        meant = _meant(parts, self._connection.info.parameter_status("server_encoding"))
        parameters = {**_parameters(moment, parts, position), "most": most, "most_bytes": most_bytes}
        rows = outbox.event_rows
        try:
            found = await self._events(_FOUND.format(events=_EVENTS, meant=meant, rows=rows), parameters, parts)
        except psycopg.errors.CharacterNotInRepertoire:
            query = _FOUND.format(events=without(_EVENTS), meant=meant, rows=rows)
            found = await self._events(query, parameters, parts)
        if len(found) > most or _size(found) > most_bytes:
            return None
        return list(outbox.events_of(sorted(found, key=lambda row: row[0])))

    async def _events(self, query: str, parameters: dict[str, Any], parts: Sequence[bytes]) -> _Rows:
        most, most_bytes = parameters["most"], parameters["most_bytes"]
        found: _Rows = []
        for name in self._names.rings:
            found += await self._of_ring(
                name,
                query,
                parameters,
                rows=_may_have(parts),
                enough=lambda rows: len(rows) > most or _size(rows) > most_bytes,
            )
        return found

    async def _of_ring(
        self, ring: str, query: str, parameters: dict[str, Any], *, rows: str, enough: Callable[[_Rows], bool] = _never
    ) -> _Rows:
        """The answers to `query`, which has _EVENTS, of the stretches of one of the tables.

        rows: a condition on those of the table; enough: whether no further stretch need be read.
        """
        ring = ours(ring)
        place = "ctid >= %(from)s::text::tid AND ctid < %(to)s::text::tid"
        stretch = f"(SELECT * FROM {ring} WHERE {place} AND {rows})"
        query = _OF_STRETCH.format(ring=ring, query=query.replace(_STRETCH, stretch))
        file, at, end = None, 0, 0
        found: _Rows = []
        while True:
            bounds = {"from": f"({at},0)", "to": f"({at + STRETCH_BLOCKS},0)"}
            async with self._lock, self._connection.cursor(binary=True, row_factory=tuple_row) as cursor:
                await cursor.execute(query.encode(), parameters | bounds)
                answer = await cursor.fetchall()
            there, blocks = answer[0][:2]
            if file not in (None, there):
                # Emptied meanwhile, or written anew (VACUUM FULL): what is there now is elsewhere in it.
                file, at, found = None, 0, []
                continue
            if file is None:
                # What is written later is not delivered at that position.
                file, end = there, blocks
            found += [row[2:] for row in answer if row[2] is not None]
            at += STRETCH_BLOCKS
            if at >= end or enough(found):
                return found

    @translating
    async def extent(self) -> Extent:
        """As the function of this name."""
        async with self._lock:
            return await extent(self._connection, self._names)


def _parameters(moment: datetime | None, parts: Sequence[bytes], position: Position) -> dict[str, Any]:
    return {"moment": moment, **position.parameters, **{f"part{nth}": part for nth, part in enumerate(parts)}}


def _may_have(parts: Sequence[bytes]) -> str:
    """A condition on rows of the ring: without what it leaves out, no chunk need be taken apart for a common key."""
    plain = [nth for nth, part in enumerate(parts) if re.fullmatch(rb"[0-9A-Za-z-]+", part)]
    if not plain:
        return "true"
    # A text of these signs stands in JSON as it is.
    nth = plain[0]
    part = f"pg_catalog.encode(%(part{nth})s::bytea, 'escape')"
    return (
        f"(bodies IS NULL OR CASE WHEN {IS_BY_COLUMN} THEN pg_catalog.strpos(bodies[{FIRST_COLUMN + nth}], {part}) > 0"
        f" ELSE {part} = ANY (key) END)"
    )


def _meant(parts: Sequence[bytes] | None, encoding: str | None) -> str:
    """A condition on RAW_COLUMNS. parts: of a key; compared as they are, since to make a token of each is slow."""
    lately = "micros >= pg_catalog.date_part('epoch', %(moment)s::timestamptz) * 1000000"
    conditions = [
        "op <> 'g'",
        f"(%(moment)s::timestamptz IS NULL OR {lately})",
        GIVEN.delivered("xid", "id"),
    ]
    if parts is not None:
        conditions.append(f"({_is_key('key', parts, encoding)} OR {_is_key('old_key', parts, encoding)})")
    return " AND ".join(conditions)


def _is_key(column: str, parts: Sequence[bytes], encoding: str | None) -> str:
    same = [_is_part(f"{column}[{nth + 1}]", part, f"%(part{nth})s::bytea", encoding) for nth, part in enumerate(parts)]
    return f"coalesce(pg_catalog.cardinality({column}) = {len(parts)} AND {' AND '.join(same)}, false)"


def _is_part(text: str, part: bytes, given: str, encoding: str | None) -> str:
    # As bytes: what the database's encoding has no character for would be an error as text.
    if part == b"_":
        return f"coalesce({text}, '') IN ('', '_')"
    if encoding != "UTF8":
        return f"{utf8(text, encoding=encoding)} = {given}"
    same = f"{sent_as_it_is(text)} = {given}"
    if may_have_been_said(part):
        shorter = f"pg_catalog.octet_length({text}) < {len(part)}"
        same += f" OR ({shorter} AND {utf8(said(text), encoding=encoding)} = {given})"
    return f"({same})"


async def extent(connection: Connection, names: WatcherNames) -> Extent:
    """How far back the ring goes."""
    part = f"SELECT min({TAKEN_AT}) AS at, {repaired_at()} AS repaired FROM"
    rings = " UNION ALL ".join(f"{part} {ours(name)}" for name in names.rings)
    # The first cursor, which nobody holds, is written with the ring and goes when the slot it is in is emptied for the
    # first time. Another such comes with an adoption, which drops what was delivered.
    row = await connection.one(
        f"SELECT (SELECT count(*) = 1 AND min(n) = 0 FROM {ours(names.cursors[0])} WHERE holder = '') AS complete,"
        " min(at) AS oldest, max(repaired) AS repaired,"
        f" (SELECT installed_at FROM {SCHEMA}.watcher WHERE hash = {literal(names.hash)}) AS made"
        f" FROM ({rings}) AS r"
    )
    return Extent(bool(row["complete"]), row["oldest"], row["repaired"], row["made"])
