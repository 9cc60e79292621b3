"""What a listener makes of the home of its watcher, before it reads: refuse a copy, count a failover."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from ...errors import DatabaseError, Reason
from ...naming import SCHEMA, WatcherNames
from ..connection.session import Connection, translating
from ..connection.sql_fault import REMOVED
from ..quoting import ours
from ..sql import QUERIES
from .chunks import IDS_A_ROW
from .gap_sql import insert_gap
from .home import Home, refusal


@dataclass(frozen=True, slots=True)
class Read:
    """How far this process has read: the highest ring id, and in which generation. Both 0: nothing yet.

    made: when the watcher was installed, as the database writes it; "" before it was looked at.
    """

    generation: int = 0
    ring_id: int = 0
    made: str = ""

    def is_ahead_of(self, newest_id: int) -> bool:
        """Whether it has read ids that, with `newest_id` as the last that was drawn, are still to come."""
        return newest_id + IDS_A_ROW <= self.ring_id


class Lineage:
    """The recorded home and generation of one watcher, on a connection shared with others."""

    def __init__(self, connection: Connection, lock: asyncio.Lock, names: WatcherNames) -> None:
        self._connection = connection
        self._lock = lock
        self._names = names
        # When the watcher was installed, once it was looked at.
        self.made = ""

    @translating
    async def refuse_copy(self) -> None:
        """Raises DatabaseError(CloneRefused) in a database that the watcher was not made in."""
        async with self._lock:
            here, recorded, _ = await self._look()
        if recorded is not None and here.is_copy_of(recorded):
            raise refusal(recorded, here)

    @translating
    async def generation(self, slot: int, read: Read = Read()) -> int:
        """The generation to send as. After a failover it is the next one, and a gap event says why; so it is where
        ids that we have `read` are drawn once more, as after the restore of a snapshot of the server's disks, and where
        the watcher was removed and made again under us: what was written in between is not known.

        For the owner of the lease; one that was paused and has lost it meanwhile waits for the new one, and finds it
        told. Both are written in one transaction and safely: a generation that was sent must not be forgotten.
        """
        async with self._lock, self._connection.transaction():
            await self._connection.execute("SET LOCAL synchronous_commit = local")
            here, recorded, generation = await self._look()
            set_back = read.is_ahead_of(await self._newest_id()) or read.made not in ("", self.made)
            if recorded is not None and (set_back or here.is_after_failover(recorded)):
                here, recorded, generation = await self._look(lock=" FOR UPDATE")
            # Whoever found it first has begun a generation: `apply`, where it was our ring alone.
            set_back = set_back and generation <= read.generation
            if recorded is not None and not (set_back or here.is_after_failover(recorded)):
                return generation
            if recorded is not None:
                generation = max(here.next_generation(generation), read.generation + 1)
                await self._connection.execute(insert_gap(self._names, slot, "failover").encode())
            await self._connection.execute(
                f"UPDATE {SCHEMA}.watcher SET generation = %s, system_identifier = %s, database_oid = %s, timeline = %s"
                " WHERE hash = %s",
                [generation, here.system_identifier, here.database_oid, here.timeline, self._names.hash],
            )
            return generation

    async def _newest_id(self) -> int:
        return int((await self._connection.one(f"SELECT last_value FROM {ours(self._names.ids)}"))["last_value"])

    async def _look(self, lock: str = "") -> tuple[Home, Home | None, int]:
        here = Home(**await self._connection.one(QUERIES["home"]))
        query = f"SELECT generation, {_MADE}, {_HOME} FROM {SCHEMA}.watcher WHERE hash = %s{lock}"
        row = await (await self._connection.execute(query, [self._names.hash])).fetchone()
        if row is None:
            # Removed since somebody looked whether it is installed, with its ring.
            raise DatabaseError(Reason.TRIGGERS_DRIFTED, REMOVED)
        generation, self.made = int(row.pop("generation")), str(row.pop("made"))
        # A watcher of an older version has none yet: the first look is taken for the truth.
        return here, Home(**row) if row["system_identifier"] is not None else None, generation


_MADE = "extract(epoch FROM installed_at)::text AS made"
_HOME = "system_identifier, database_oid::bigint AS database_oid, timeline"
