"""How much of what was delivered a ring still holds."""

from __future__ import annotations

import asyncio
from datetime import datetime

from ..naming import SCHEMA, WatcherNames
from .quoting import ours
from .session import Connection, translating


class History:
    """The rows of one ring by the time of their capture. There is no index on that: each question reads them all."""

    def __init__(self, connection: Connection, lock: asyncio.Lock, names: WatcherNames) -> None:
        self._connection = connection
        self._lock = lock
        self._rings = " UNION ALL ".join(f"SELECT id, at, key, old_key FROM {ours(name)}" for name in names.rings)

    @translating
    async def since(self, moment: datetime | None, key: str | None) -> tuple[int, int]:
        """The rows captured since `moment` (of that key token): the lowest id, 0 for none, and how many there are."""
        query = (
            f"SELECT coalesce(min(id), 0) AS first, count(*) AS number FROM ({self._rings}) AS r"
            " WHERE (%(moment)s::timestamptz IS NULL OR at >= %(moment)s)"
            f" AND (%(key)s::text IS NULL OR {SCHEMA}.token(key) = %(key)s OR {SCHEMA}.token(old_key) = %(key)s)"
        )
        async with self._lock:
            cursor = await self._connection.execute(query, {"moment": moment, "key": key})
            row = await cursor.fetchone()
        assert row is not None  # noqa: S101 - an aggregate always has its one row
        return int(row["first"]), int(row["number"])


async def oldest(connection: Connection, names: WatcherNames) -> tuple[bool, datetime | None]:
    """Whether the ring still holds all since the watcher was made, and when its oldest row was captured."""
    rings = " UNION ALL ".join(f"SELECT min(at) AS at FROM {ours(name)}" for name in names.rings)
    # The first cursor is written with the ring, and goes when the slot it is in is emptied for the first time.
    cursor = await connection.execute(
        f"SELECT EXISTS (SELECT FROM {ours(names.cursors[0])} WHERE epoch = 0) AS complete,"
        f" (SELECT min(at) FROM ({rings}) AS r) AS oldest"
    )
    row = await cursor.fetchone()
    assert row is not None  # noqa: S101 - it always has its one row
    return bool(row["complete"]), row["oldest"]
