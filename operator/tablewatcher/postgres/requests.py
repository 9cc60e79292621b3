"""What people ask of the active listener, in table `request`: to send events again, or to drop some.

The command line writes a row, the owner of the lease does it and says in the row how far it is: a request outlives
the command, the listener and its successor.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Any

from psycopg.rows import dict_row

from ..errors import in_short
from ..naming import SCHEMA, WatcherNames
from .connection.session import Connection, translating
from .parked import of_key
from .ring.cursor_log import LeaseLost
from .ring.cursor_sql import not_superseded

LOOK_SECONDS = 1.0
TABLE = f"{SCHEMA}.request"
# So many keys of what was dropped, or put aside again, are named in the message.
_NAMED = 10
# The message of a request that waits for this.
SUSPENDED = "the watcher is suspended: spec.suspend is true"
# The end of what a replay says that is open only because of these.
TRIED_ON = "not accepted yet and tried on"


class Kind(StrEnum):
    """replay: delivered rows of the ring. parked, skip: events put aside, to be sent or to be dropped."""

    REPLAY = "replay"
    PARKED = "parked"
    SKIP = "skip"


class State(StrEnum):
    """How far a request is."""

    ASKED = "asked"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Request:
    """One request. id: also the number of its replay. since: of a replay; key, event_id: what is meant, None: all.

    keys: of events put aside, those to send, once known; of a replay that is sent, those that are tried on. done of
    total events.
    """

    id: int
    kind: Kind
    since: datetime | None
    key: str | None
    event_id: str | None
    keys: Sequence[str] | None
    state: State
    total: int
    done: int
    message: str

    @property
    def is_open(self) -> bool:
        """Whether it still has to be done."""
        return self.state in (State.ASKED, State.RUNNING)

    @property
    def is_sent(self) -> bool:
        """Whether all of it has been sent, and what is not accepted yet is all that keeps it open, as it says."""
        return self.state is State.RUNNING and self.done == self.total and self.message.endswith(TRIED_ON)


@dataclass(frozen=True, slots=True)
class Dropped:
    """How many events were dropped, keys whose first is gone and that have more, and keys that have none left."""

    number: int
    freed: Sequence[str]
    empty: Sequence[str]


COLUMNS = "id, kind, since, key, event_id, keys, state, total, done, message"


def request(row: dict[str, Any]) -> Request:
    """A row of COLUMNS."""
    return Request(**row | {"kind": Kind(row["kind"]), "state": State(row["state"])})


class OpenRequests:
    """Which watchers of a database have open requests: asked once a second at the most, however many want to know."""

    def __init__(self, connection: Connection, lock: asyncio.Lock) -> None:
        self._connection = connection
        self._lock = lock
        self._asked = float("-inf")
        self._hashes: frozenset[str] = frozenset()

    @translating
    async def has(self, names: WatcherNames) -> bool:
        """Whether this watcher has one."""
        async with self._lock:
            now = asyncio.get_running_loop().time()
            if now - self._asked >= LOOK_SECONDS * 0.9:
                cursor = await self._connection.execute(
                    f"SELECT DISTINCT hash FROM {TABLE} WHERE state IN ('asked', 'running')"
                )
                self._hashes = frozenset(row["hash"] for row in await cursor.fetchall())
                self._asked = now
            return names.hash in self._hashes


class Requests:
    """The requests of one watcher, for the owner of its lease. epoch: what an earlier owner still writes is nothing.

    Else one that slept through its lease would open again, with its own numbers, what its successor has done.
    """

    def __init__(self, connection: Connection, lock: asyncio.Lock, names: WatcherNames, *, epoch: int) -> None:
        self._connection = connection
        self._lock = lock
        self._hash = names.hash
        self._epoch = epoch
        self._update = f"UPDATE {TABLE} SET {{}} WHERE id = %(id)s AND {not_superseded(names)}"

    @translating
    async def open(self) -> list[Request]:
        """Those that are to be done, oldest first."""
        async with self._lock, self._connection.cursor(row_factory=dict_row) as cursor:
            await cursor.execute(
                f"SELECT {COLUMNS} FROM {TABLE} WHERE hash = %s AND state IN ('asked', 'running') ORDER BY id",
                [self._hash],
            )
            return [request(row) for row in await cursor.fetchall()]

    @translating
    async def want_rows(self) -> bool:
        """Whether one is open that sends what is delivered: it is to stay in the ring, whoever does it and when."""
        async with self._lock:
            cursor = await self._connection.execute(
                f"SELECT FROM {TABLE} WHERE hash = %s AND kind = 'replay' AND state IN ('asked', 'running') LIMIT 1",
                [self._hash],
            )
            return await cursor.fetchone() is not None

    @translating
    async def update(self, asked: Request) -> None:
        """Writes down how far it is. Raises LeaseLost."""
        async with self._lock:
            await self._write(asked, "done", "total")

    @translating
    async def note(self, asked: Request) -> int:
        """As `update`, but for the numbers: how many are done, as `Parked.delete` has counted. Raises LeaseLost."""
        async with self._lock:
            return await self._write(asked)

    @translating
    async def selected(self, asked: Request) -> list[str]:
        """The keys of the events put aside that are meant."""
        async with self._lock:
            cursor = await self._connection.execute(_SELECTED, {"hash": self._hash, **_meant(asked)})
            return [row["key"] for row in await cursor.fetchall()]

    @translating
    async def drop(self, asked: Request) -> Dropped:
        """Drops the events put aside that are meant, and with that the request is done.

        What stood behind a first one of its key may be sent: that is a new request. Raises LeaseLost.
        """
        parameters = {"hash": self._hash, **_meant(asked)}
        async with self._lock, self._connection.transaction():
            cursor = await self._connection.execute(_DROP, parameters)
            rows = await cursor.fetchall()
            keys = sorted({row["key"] for row in rows})
            cursor = await self._connection.execute(_HEADS, {"hash": self._hash, "keys": keys})
            heads = {row["key"]: row["n"] for row in await cursor.fetchall()}
            first_dropped = {key: min(row["n"] for row in rows if row["key"] == key) for key in keys}
            freed = [key for key in keys if key in heads and first_dropped[key] < heads[key]]
            number, follow = len({row["n"] for row in rows}), 0
            if freed:
                cursor = await self._connection.execute(
                    f"INSERT INTO {TABLE} (hash, kind, keys) VALUES (%s, %s, %s) RETURNING id",
                    [self._hash, str(Kind.PARKED), freed],
                )
                follow = (await cursor.fetchall())[0]["id"]
            behind = f"; what was held behind that is sent by request {follow}" if follow else ""
            message = f"{number} dropped{f', of {named(keys)}' if keys else ': nothing is parked'}{behind}"
            found = replace(asked, state=State.DONE, done=number, total=number, message=message)
            await self._write(found, "done", "total")
        return Dropped(number, freed, [key for key in keys if key not in heads])

    async def _write(self, asked: Request, *numbers: str) -> int:
        columns = ("state", "keys", "message", *numbers)
        query = self._update.format(", ".join(f"{name} = %({name})s" for name in columns)) + " RETURNING done"
        values = {name: getattr(asked, name) for name in columns}
        values |= {"state": str(asked.state), "keys": None if asked.keys is None else list(asked.keys)}
        cursor = await self._connection.execute(query.encode(), values | {"id": asked.id, "epoch": self._epoch})
        row = await cursor.fetchone()
        if row is None:
            raise LeaseLost
        return int(row["done"])


def named(keys: Sequence[str]) -> str:
    """Which rows, for a message: `keys` has one at least."""
    more = f" and {len(keys) - _NAMED} more" if len(keys) > _NAMED else ""
    return f"key{'s' if len(keys) > 1 else ''} {', '.join(map(in_short, keys[:_NAMED]))}{more}"


def _meant(asked: Request) -> dict[str, Any]:
    return {"key": asked.key, "event_id": asked.event_id}


_MEANT = (
    f"hash = %(hash)s AND (%(key)s::text IS NULL OR {of_key('%(key)s')})"
    " AND (%(event_id)s::text IS NULL OR event_id = %(event_id)s)"
)
_SELECTED = (
    f"SELECT key FROM {SCHEMA}.parked WHERE {_MEANT}"
    f" UNION SELECT old_key FROM {SCHEMA}.parked WHERE {_MEANT} AND old_key IS NOT NULL"
)
_DROP = (
    f"WITH gone AS (DELETE FROM {SCHEMA}.parked WHERE {_MEANT} RETURNING n, key, old_key)"
    " SELECT n, v.key FROM gone CROSS JOIN LATERAL (VALUES (gone.key), (gone.old_key)) AS v (key)"
    " WHERE v.key IS NOT NULL"
)
_HEADS = (
    "SELECT k.key, min(p.n) AS n FROM pg_catalog.unnest(%(keys)s::text[]) AS k (key)"
    f" JOIN {SCHEMA}.parked AS p ON p.hash = %(hash)s AND {of_key('k.key', 'p.')} GROUP BY 1"
)
