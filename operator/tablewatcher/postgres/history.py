"""How much of what was delivered a ring still holds."""

from __future__ import annotations

import asyncio
from datetime import datetime

from ..naming import SCHEMA, WatcherNames
from .chunks import TAKEN_AT, events_in
from .outbox import Position
from .quoting import ours
from .session import Connection, translating


class History:
    """The rows of one ring by the time of their capture. There is no index on that: each question reads them all."""

    def __init__(self, connection: Connection, lock: asyncio.Lock, names: WatcherNames) -> None:
        self._connection = connection
        self._lock = lock
        self._names = names
        self._rings = " UNION ALL ".join(
            f"SELECT id, xid, micros, op, key, old_key FROM ({events_in(ours(name))}) AS e" for name in names.rings
        )

    @translating
    async def since(self, moment: datetime | None, key: str | None, position: Position) -> tuple[int, int]:
        """The rows captured since `moment` (of that key token) and delivered, but for gap events.

        The lowest id, 0 for none, and how many there are.
        """
        query = (
            f"SELECT coalesce(min(id), 0) AS first, count(*) AS number FROM ({self._rings}) AS r"
            " WHERE op <> 'g' AND (%(moment)s::timestamptz IS NULL"
            " OR micros >= pg_catalog.date_part('epoch', %(moment)s::timestamptz) * 1000000)"
            f" AND (%(key)s::text IS NULL OR {SCHEMA}.token(key) = %(key)s OR {SCHEMA}.token(old_key) = %(key)s)"
            " AND (pg_catalog.pg_visible_in_snapshot(xid, %(prev)s::text::pg_snapshot) OR (id <= %(after)s"
            " AND coalesce(pg_catalog.pg_visible_in_snapshot(xid, %(cur)s::text::pg_snapshot), false)))"
        )
        place = {
            "prev": position.prev.text,
            "cur": None if position.cur is None else position.cur.text,
            "after": position.after_id,
        }
        async with self._lock:
            cursor = await self._connection.execute(query, {"moment": moment, "key": key, **place})
            row = await cursor.fetchone()
        assert row is not None  # noqa: S101 - an aggregate always has its one row
        return int(row["first"]), int(row["number"])

    @translating
    async def oldest(self) -> tuple[bool, datetime | None]:
        """As the function of this name."""
        async with self._lock:
            return await oldest(self._connection, self._names)


async def oldest(connection: Connection, names: WatcherNames) -> tuple[bool, datetime | None]:
    """Whether the ring still holds all since the watcher was made, and when its oldest row was captured."""
    rings = " UNION ALL ".join(f"SELECT min({TAKEN_AT}) AS at FROM {ours(name)}" for name in names.rings)
    # The first cursor is written with the ring, and goes when the slot it is in is emptied for the first time.
    cursor = await connection.execute(
        f"SELECT EXISTS (SELECT FROM {ours(names.cursors[0])} WHERE epoch = 0) AS complete,"
        f" (SELECT min(at) FROM ({rings}) AS r) AS oldest"
    )
    row = await cursor.fetchone()
    assert row is not None  # noqa: S101 - it always has its one row
    return bool(row["complete"]), row["oldest"]


def too_old(since: datetime | None, complete: bool, first: datetime | None) -> str:
    """Why a ring with the answer of `oldest` may not have all since then any more; "" where it has."""
    if complete or since is None:
        return ""
    if first is None:
        return "the ring holds no delivered events any more"
    if since < first:
        return (
            f"the ring holds events since {first.isoformat()}, none before: give --since that or later; raise"
            " spec.delivery.retentionSeconds to keep them longer"
        )
    return ""
