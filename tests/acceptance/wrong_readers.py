"""Three ways to read that seem right and are not. The checker must tell; the engine must differ.

`by_id` keeps the last id it has seen: a transaction that drew its ids early and commits late is passed over for good.
`by_horizon` waits until no older transaction runs and reads in order of transaction ids: it loses nothing, but the
order in which transactions began is not the order in which they changed a row, and it stands still for as long as
anybody keeps a transaction open that has nothing to do with it.
`SkipLocked` is a queue that workers take rows away from: they overtake one another, and what they took stays as dead
rows for as long as anybody keeps an old snapshot.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Coroutine, Sequence
from typing import Any

import psycopg

from tablewatcher.postgres.quoting import ours
from tablewatcher.postgres.ring.chunks import events_in

from .arrivals import change_of
from .checker import Arrival

ACTIONS = {"i": "insert", "u": "update", "d": "delete"}
PAGE = 100
_BY_ID = (
    "SELECT 0, id, op::text, data, context FROM ({ring}) AS r"
    " WHERE id > %(id)s AND %(xid)s = 0 ORDER BY id LIMIT {page}"
)
_BY_HORIZON = (
    "SELECT xid::text::bigint, id, op::text, data, context FROM ({ring}) AS r"
    " WHERE (xid, id) > (%(xid)s::text::xid8, %(id)s) AND xid < pg_snapshot_xmin(pg_current_snapshot())"
    " ORDER BY xid, id LIMIT {page}"
)


class WrongReader:
    """Polls the ring tables `rings`; `arrivals` is what its sink would have got."""

    def __init__(self, dsn: str, rings: Sequence[str], query: str) -> None:
        self._dsn = dsn
        self._query = query.format(ring=" UNION ALL ".join(events_in(ours(name)) for name in rings), page=PAGE)
        self.arrivals: list[Arrival] = []
        self.last_xid = 0
        self.last_id = 0
        self.looks = 0

    @classmethod
    def by_id(cls, dsn: str, rings: Sequence[str]) -> WrongReader:
        """Loses late commits."""
        return cls(dsn, rings, _BY_ID)

    @classmethod
    def by_horizon(cls, dsn: str, rings: Sequence[str]) -> WrongReader:
        """Misorders, and waits for whoever is there."""
        return cls(dsn, rings, _BY_HORIZON)

    def has(self, key: str) -> bool:
        """Whether a change of `key` has arrived."""
        return any(arrival.key == key for arrival in self.arrivals)

    def running(self) -> contextlib.AbstractAsyncContextManager[None]:
        """It reads inside. A fault of its own comes out at the end."""
        return _running(self._run())

    async def _run(self) -> None:
        async with await psycopg.AsyncConnection.connect(self._dsn, autocommit=True) as connection:
            while True:
                cursor = await connection.execute(self._query.encode(), {"xid": self.last_xid, "id": self.last_id})
                rows = await cursor.fetchall()
                for xid, ring_id, *row in rows:
                    self.last_xid, self.last_id = xid, ring_id
                    self.arrivals.append(_arrival(ring_id, *row))
                self.looks += 1
                if len(rows) < PAGE:
                    await asyncio.sleep(0.01)


# As Hasura and most outboxes have it: what a row trigger writes, and DELETE takes.
QUEUE = """
CREATE TABLE queue (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, body text NOT NULL);
CREATE FUNCTION enqueue() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    INSERT INTO queue (body) VALUES (json_build_object(
        'action', lower(TG_OP), 'key', json_build_object('key', coalesce(NEW.key, OLD.key)),
        'after', json_build_object('version', NEW.version),
        'context', nullif(current_setting('tablewatcher.context', true), '')::json)::text);
    RETURN NULL;
END $$;
CREATE TRIGGER enqueue AFTER INSERT OR UPDATE OR DELETE ON account FOR EACH ROW EXECUTE FUNCTION enqueue();
"""
_TAKE = """
DELETE FROM queue WHERE id IN (SELECT id FROM queue ORDER BY id LIMIT 100 FOR UPDATE SKIP LOCKED) RETURNING id, body
"""


class SkipLocked:
    """`count` workers on QUEUE; `arrivals` is what their sink would have got. Each commits when its page is sent."""

    def __init__(self, dsn: str, *, count: int = 2) -> None:
        self._dsn = dsn
        self._count = count
        self.arrivals: list[Arrival] = []
        self._slow: dict[str, asyncio.Event] = {}

    def slow_on(self, key: str) -> asyncio.Event:
        """The worker that takes the next change of `key` is slow to send it: it waits until the event is set."""
        return self._slow.setdefault(key, asyncio.Event())

    def is_slow_on(self, key: str) -> bool:
        """Whether no worker has taken that change yet."""
        return key in self._slow

    def has(self, key: str) -> bool:
        """Whether a change of `key` has arrived."""
        return any(arrival.key == key for arrival in self.arrivals)

    def running(self) -> contextlib.AbstractAsyncContextManager[None]:
        """They read inside. A fault of one comes out at the end."""
        return _running(*(self._run() for _ in range(self._count)))

    async def _run(self) -> None:
        async with await psycopg.AsyncConnection.connect(self._dsn) as connection:
            while True:
                async with connection.transaction():
                    rows = await (await connection.execute(_TAKE)).fetchall()
                    # RETURNING has no order of its own: this is not what they are caught for.
                    for queue_id, body in sorted(rows):
                        await self._send(change_of(json.loads(body), str(queue_id), body.encode()))
                if not rows:
                    await asyncio.sleep(0.01)

    async def _send(self, found: Arrival) -> None:
        if (released := self._slow.pop(found.key, None)) is not None:
            await released.wait()
        self.arrivals.append(found)


@contextlib.asynccontextmanager
async def _running(*runs: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    tasks = [asyncio.create_task(run) for run in runs]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        for task in tasks:
            with contextlib.suppress(asyncio.CancelledError):
                await task


def _arrival(ring_id: int, op: str, data: str, context: str | None) -> Arrival:
    row: dict[str, Any] = json.loads("{" + data + "}")
    row |= {"action": ACTIONS[op], "context": json.loads(context or "{}")}
    return change_of(row, str(ring_id), data.encode())
