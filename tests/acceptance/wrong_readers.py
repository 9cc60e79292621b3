"""Two readers of the same ring that seem right and are not. The checker must tell; the engine must differ.

`by_id` keeps the last id it has seen: a transaction that drew its ids early and commits late is passed over for good.
`by_horizon` waits until no older transaction runs and reads in order of transaction ids: it loses nothing, but the
order in which transactions began is not the order in which they changed a row.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Sequence
from typing import Any

import psycopg

from .arrivals import change_of
from .checker import Arrival

ACTIONS = {"i": "insert", "u": "update", "d": "delete"}
PAGE = 100
_RING = (
    "SELECT r.id + b.nth - 1 AS id, xid, op::text AS op, b.body AS data, context FROM tablewatcher.{name} AS r"
    " CROSS JOIN LATERAL unnest(coalesce(r.bodies, ARRAY[r.data])) WITH ORDINALITY AS b (body, nth)"
)
_BY_ID = "SELECT 0, id, op, data, context FROM ({ring}) AS r WHERE id > %(id)s AND %(xid)s = 0 ORDER BY id LIMIT {page}"
_BY_HORIZON = (
    "SELECT xid::text::bigint, id, op, data, context FROM ({ring}) AS r"
    " WHERE (xid, id) > (%(xid)s::text::xid8, %(id)s) AND xid < pg_snapshot_xmin(pg_current_snapshot())"
    " ORDER BY xid, id LIMIT {page}"
)


class WrongReader:
    """Polls the ring tables `rings`; `arrivals` is what its sink would have got."""

    def __init__(self, dsn: str, rings: Sequence[str], query: str) -> None:
        self._dsn = dsn
        self._query = query.format(ring=" UNION ALL ".join(_RING.format(name=name) for name in rings), page=PAGE)
        self.arrivals: list[Arrival] = []
        self.last_xid = 0
        self.last_id = 0

    @classmethod
    def by_id(cls, dsn: str, rings: Sequence[str]) -> WrongReader:
        """Loses late commits."""
        return cls(dsn, rings, _BY_ID)

    @classmethod
    def by_horizon(cls, dsn: str, rings: Sequence[str]) -> WrongReader:
        """Misorders."""
        return cls(dsn, rings, _BY_HORIZON)

    def has(self, key: str) -> bool:
        """Whether a change of `key` has arrived."""
        return any(arrival.key == key for arrival in self.arrivals)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """It reads inside. A fault of its own comes out at the end."""
        task = asyncio.create_task(self._run())
        try:
            yield
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def _run(self) -> None:
        async with await psycopg.AsyncConnection.connect(self._dsn, autocommit=True) as connection:
            while True:
                cursor = await connection.execute(self._query.encode(), {"xid": self.last_xid, "id": self.last_id})
                rows = await cursor.fetchall()
                for xid, ring_id, *row in rows:
                    self.last_xid, self.last_id = xid, ring_id
                    self.arrivals.append(_arrival(ring_id, *row))
                if len(rows) < PAGE:
                    await asyncio.sleep(0.01)


def _arrival(ring_id: int, op: str, data: str, context: str | None) -> Arrival:
    row: dict[str, Any] = json.loads("{" + data + "}")
    row |= {"action": ACTIONS[op], "context": json.loads(context or "{}")}
    return change_of(row, str(ring_id), data.encode())
