"""The command line's side of requests and of events put aside: ask, look, list. It never sends anything itself."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import cast

from psycopg.rows import class_row

from ..errors import DatabaseError, Reason, in_short
from ..event import ACTION_NAMES
from ..naming import WatcherNames
from .connection.session import Connection, connected
from .parked import TABLE as PARKED
from .parked import of_key
from .quoting import ours
from .requests import COLUMNS, TABLE, Kind, Request, request
from .ring.cursor_sql import newest
from .ring.history import extent

POLL_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class ParkedEvent:
    """An event put aside, as a list shows it. attempts: 0 for one that follows another of its key."""

    event_id: str
    key: str
    op: str
    captured_at: datetime
    attempts: int
    reason: str
    message: str
    parked_at: datetime

    @property
    def action(self) -> str:
        return ACTION_NAMES[self.op]


async def listed(
    conninfo: str, names: WatcherNames, limit: int, *, key: str | None = None, event_id: str | None = None
) -> tuple[list[ParkedEvent], int]:
    """The first events put aside (of `key`, or with the id `event_id`), as they would be sent, and how many there are.

    Raises DatabaseError.
    """
    async with connected(conninfo) as connection:
        await _require(connection, names)
        where, values = _meant(names, key, event_id)
        number = (await connection.one(f"SELECT count(*) AS number FROM {PARKED} WHERE {where}", values))["number"]
        async with connection.cursor(row_factory=class_row(ParkedEvent)) as cursor:
            await cursor.execute(
                "SELECT event_id, key, op, pg_catalog.to_timestamp(captured_at) AS captured_at, attempts, reason,"
                " message, parked_at"
                f" FROM {PARKED} WHERE {where} ORDER BY n LIMIT %s",
                [*values, limit],
            )
            return await cursor.fetchall(), number


async def ask(
    conninfo: str,
    names: WatcherNames,
    kind: Kind,
    *,
    since: datetime | timedelta | None = None,
    key: str | None = None,
    event_id: str | None = None,
) -> Request:
    """Writes a request. Raises DatabaseError, also where nothing is meant by it or the ring does not go back so far.

    since: a span is one on the database's clock, which the events have their times from. Ours may be another.
    """
    async with connected(conninfo) as connection:
        await _require(connection, names)
        begin = await _begin(connection, since)
        if kind is Kind.REPLAY:
            if refusal := (await extent(connection, names)).lacks(begin):
                raise DatabaseError(Reason.MANUAL_ACTION_REQUIRED, refusal)
        elif key is not None or event_id is not None:
            await _refuse_unknown(connection, names, key, event_id)
        row = await connection.one(
            f"INSERT INTO {TABLE} (hash, kind, since, key, event_id) VALUES (%s, %s, %s, %s, %s) RETURNING {COLUMNS}",
            [names.hash, str(kind), begin, key, event_id],
        )
        await connection.execute("SELECT pg_catalog.pg_notify(%s, '')", [names.channel])
        return request(row)


async def _begin(connection: Connection, since: datetime | timedelta | None) -> datetime | None:
    if not isinstance(since, timedelta):
        return since
    row = await connection.one("SELECT pg_catalog.clock_timestamp() - %s AS begin", [since])
    return cast("datetime", row["begin"])


async def followed(
    conninfo: str, names: WatcherNames, asked: Request, progress: Callable[[Request, bool], bool]
) -> Request:
    """Waits until a request is done. `progress` hears of every change, and whether a listener is active.

    It answers whether to go on waiting. Raises DatabaseError.
    """
    async with connected(conninfo) as connection:
        old = await _old(connection, names)
        while True:
            found = await connection.execute(f"SELECT {COLUMNS} FROM {TABLE} WHERE id = %s".encode(), [asked.id])
            row = await found.fetchone()
            if row is None:
                raise DatabaseError(Reason.MANUAL_ACTION_REQUIRED, "the request is gone: the watcher has been removed")
            asked = request(row)
            if not asked.is_open:
                await connection.execute(f"DELETE FROM {TABLE} WHERE id = ANY (%s)", [old])
            if not progress(asked, await _is_active(connection, names)) or not asked.is_open:
                return asked
            await asyncio.sleep(POLL_SECONDS)


async def _old(connection: Connection, names: WatcherNames) -> list[int]:
    """Requests that were done long ago: they have been read, or nobody waits for them. Others may end just now."""
    query = (
        f"SELECT id FROM {TABLE} WHERE hash = %s AND state IN ('done', 'failed')"
        " AND asked_at < pg_catalog.clock_timestamp() - interval '1 hour'"
    )
    return [row["id"] for row in await (await connection.execute(query, [names.hash])).fetchall()]


async def _require(connection: Connection, names: WatcherNames) -> None:
    there = await connection.one("SELECT pg_catalog.to_regclass(%s) IS NOT NULL AS there", [ours(names.ids)])
    if not there["there"]:
        raise DatabaseError(
            Reason.TRIGGERS_DRIFTED,
            f"nothing is applied here for {names.identity}; run `tablewatcher apply`, or give the --instance it has",
        )


async def _is_active(connection: Connection, names: WatcherNames) -> bool:
    query = newest(names, "expires_at > pg_catalog.clock_timestamp() AS active")
    row = await (await connection.execute(query.encode())).fetchone()
    return row is not None and bool(row["active"])


async def _refuse_unknown(connection: Connection, names: WatcherNames, key: str | None, event_id: str | None) -> None:
    where, values = _meant(names, key, event_id)
    found = await connection.execute(f"SELECT FROM {PARKED} WHERE {where} LIMIT 1", values)
    if await found.fetchone() is None:
        raise DatabaseError(
            Reason.MANUAL_ACTION_REQUIRED,
            f"nothing{of(key, event_id)} is parked; `tablewatcher parked list` shows what is",
        )


def of(key: str | None, event_id: str | None) -> str:
    """Which events put aside are meant, for a message; "" for all."""
    named = [f"{word} {in_short(given)}" for word, given in (("id", event_id), ("key", key)) if given is not None]
    return f" with {' and '.join(named)}" if named else ""


def _meant(names: WatcherNames, key: str | None, event_id: str | None) -> tuple[str, list[str | None]]:
    """A condition on the events put aside, and its parameters."""
    meant = f"(%s::text IS NULL OR {of_key('%s')}) AND (%s::text IS NULL OR event_id = %s)"
    return f"hash = %s AND {meant}", [names.hash, key, key, key, event_id, event_id]
