"""A watcher's cursor and lease in one insert-only log: every row is a commit of the cursor and a proof of the lease.

The newest row by (epoch, n) counts. A listener takes over by writing the next epoch; what an older one still writes
is never read again, so a zombie can cause repeats at most. Nothing is ever updated: an UPDATEd row would bloat while
somebody holds a transaction open. Times are the database's alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ...naming import WatcherNames
from ..connection.session import Connection, translating
from ..quoting import ours
from .cursor_sql import SECONDS_LEFT, append, newest
from .home import foreign_rows
from .position import Position
from .snapshot import Snapshot

# A lane starts no send later than this after the last proof of its lease.
LEASE_SECONDS = 5.0
# No lease lasts longer after its last proof: a request may take 300 s (spec.sink.http.timeoutSeconds).
LONGEST_SECONDS = LEASE_SECONDS + 300.0


class LeaseLost(Exception):
    """Another listener has taken over; nothing may be sent any more."""


@dataclass(frozen=True, slots=True)
class Lease:
    """Ours to deliver, as `epoch`, from `position` on. asked: since when it counts, on the event loop's clock."""

    epoch: int
    position: Position
    asked: float


@dataclass(frozen=True, slots=True)
class Held:
    """Somebody else's lease: who, and for how many more seconds at the most."""

    holder: str
    seconds: float


class CursorLog:
    """The log of one watcher on a connection shared with others. `holder` names this process.

    slot: the slot of the ring that is written now; only the owner of the lease turns the ring, and tells us.
    """

    def __init__(
        self, connection: Connection, lock: asyncio.Lock, names: WatcherNames, *, holder: str, sink_timeout: float
    ) -> None:
        self._connection = connection
        self._lock = lock
        self.names = names
        self._holder = holder
        # A new owner waits until the last send of the old one has certainly ended.
        self._ttl = LEASE_SECONDS + sink_timeout
        self._n = 0
        self._last: dict[str, Any] = {}
        # Somebody else's last proof, until when it is good, and when we last looked, on the event loop's clock.
        self._proof: tuple[int, int] | None = None
        self._good_until = self._looked = 0.0
        # For how long leases of that epoch last at the most, by its last proof that was new to us.
        self._lasts = LONGEST_SECONDS
        self.slot = 0
        ahead = " OR ".join(_AHEAD.format(ring=ours(name)) for name in names.rings)
        self._newest = newest(names, _COLUMNS.format(slot=ours(names.slot), ahead=ahead))
        self._append = [append(names, slot, "%({})s".format) + _DURABLY for slot in range(len(names.cursors))]

    @translating
    async def acquire(self, is_dead: Callable[[str], bool]) -> Lease | Held:
        """The lease, or who has it. `is_dead(holder)`: whether that process is known to have ended.

        Raises DatabaseError, also where the ring holds what another cluster has written.
        """
        async with self._lock, self._connection.transaction():
            await self._connection.execute("SET LOCAL synchronous_commit = local")
            await self._connection.execute(
                "SELECT pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtextextended(%s, 7))", [self.names.hash]
            )
            row = await self._read()
            if row["ahead"]:
                raise foreign_rows()
            seconds = self._left(row)
            if seconds > 0 and not is_dead(row["holder"]):
                return Held(row["holder"], seconds)
            self._n = 0
            cur = Snapshot.parse(row["cur"]) if row["cur"] else None
            position = Position(Snapshot.parse(row["prev"]), cur, row["after_id"])
            epoch, asked = row["epoch"] + 1, asyncio.get_running_loop().time()
            await self._insert(epoch, position, self._ttl, durable=True)
            return Lease(epoch, position, asked)

    def _left(self, row: dict[str, Any]) -> float:
        """For how many seconds, at the most, the lease of the newest row goes on without another proof.

        By our own clock, from when we first see the proof: the database's may be set meanwhile, back or forth, or be
        that of another server since a failover. And what was not there a look ago is no older than that look: so it is
        good for a while at least, and lasts no longer than the one before it, of which as much was known.
        """
        now, seconds, proof = asyncio.get_running_loop().time(), row["seconds"], (row["epoch"], row["n"])
        if self._proof != proof:
            if self._proof is None or self._proof[0] != proof[0]:
                self._lasts = LONGEST_SECONDS
            self._good_until = now + (0.0 if seconds is None else min(seconds, self._lasts))
            if self._proof is not None and seconds is not None:
                self._good_until = max(self._good_until, self._looked + LEASE_SECONDS)
                # One that has run out though it is new tells of a clock that was set.
                self._lasts = min(seconds + now - self._looked, LONGEST_SECONDS) if seconds > 0 else LONGEST_SECONDS
            self._proof = proof
        self._looked = now
        return float(self._good_until - now)

    @translating
    async def commit(self, epoch: int, position: Position, *, release: bool = False, durable: bool = False) -> bool:
        """Writes the cursor and renews the lease (or ends it). False: another epoch has taken over.

        durable: wait for the disk. Losing the last commits in a crash costs repeats only; but WAL of ours that nobody
        flushes keeps the reader waiting, which holds all WAL before its snapshot to be on disk.
        """
        async with self._lock:
            return await self._insert(epoch, position, None if release else self._ttl, durable=durable)

    @translating
    async def repeat(self) -> bool:
        """Writes the last row once more, into the slot that is written by now. False: another epoch has taken over."""
        async with self._lock:
            return await self._write(self.proof(), durable=False)

    def proof(self) -> dict[str, Any]:
        """The last row once more, which renews the lease, for whoever writes it next and has the connection's lock."""
        self._n += 1
        self._last["n"] = self._n
        return self._last

    async def _insert(self, epoch: int, position: Position, ttl: float | None, *, durable: bool) -> bool:
        self._n += 1
        self._last = {"epoch": epoch, "n": self._n, "holder": self._holder, "ttl": ttl, **position.parameters}
        return await self._write(self._last, durable=durable)

    async def _write(self, row: dict[str, Any], *, durable: bool) -> bool:
        parameters = {**row, "durability": "local" if durable else "off"}
        cursor = await self._connection.execute(self._append[self.slot], parameters)
        return cursor.rowcount == 1

    async def _read(self) -> dict[str, Any]:
        # The first cursor is written with the tables, and always copied on.
        row = await self._connection.one(self._newest)
        self.slot = row["slot"]
        return row


_NEXT = "pg_catalog.pg_snapshot_xmax(pg_catalog.pg_current_snapshot())"
_COLUMNS = (
    f"epoch, n, holder, prev::text AS prev, cur::text AS cur, after_id, {SECONDS_LEFT} AS seconds,"
    " (SELECT last_value::integer FROM {slot}) AS slot,"
    f" pg_catalog.pg_snapshot_xmax(prev) > {_NEXT} OR {{ahead}} AS ahead"
)
# No snapshot shows what a transaction writes that has yet to begin.
_AHEAD = f"EXISTS (SELECT FROM {{ring}} WHERE xid >= {_NEXT})"
# A condition that holds: it says when the statement is done.
_DURABLY = " AND pg_catalog.set_config('synchronous_commit', %(durability)s, true) IS NOT NULL"
