"""Upkeep of one ring: turning it, waking, and its size.

Only the owner of the lease does any of this.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import psycopg

from ...naming import RING_SLOTS, SCHEMA, WatcherNames
from ...spec.model import DeliveryPolicy
from ..connection.session import Connection, translating
from ..quoting import ours, skipped
from .arming import UNTIL
from .chunks import TAKEN_AT
from .holders import holders
from .position import Position
from .snapshot import Snapshot
from .unread import Unread, unread

# Of the bound: three slots of this share, with their indexes, stay within it.
_TURN_SHARE = 3 / 16
# A log of cursors that is so long goes on to the next slot if what is delivered in that may go; from the share on, or
# three times as long in a small ring, it does so for itself.
_LOG_BYTES = 1 << 20
_LOG_SHARE = 1 / 16
_STILL_NEEDED = "TW001"


@dataclass(frozen=True, slots=True)
class Gauge:
    """Sizes for metrics. last_id: the newest id drawn; slot: the one that is written; stopped_at: epoch seconds, 0
    while capture runs; gaps: that are over and not told yet; skipped: changes that their transactions asked not to
    capture, since the installation."""

    bytes: int
    last_id: int
    slot: int
    stopped_at: int
    gaps: int
    skipped: int


@dataclass(frozen=True, slots=True)
class Written:
    """Bytes of the slot that is written, without indexes: of changes, and of cursors."""

    ring: int
    log: int

    @property
    def is_long(self) -> bool:
        """Whether it is time to go on to the next for the cursors."""
        return self.log > _LOG_BYTES

    def is_full(self, room: int) -> bool:
        """Whether the next has to be written now, in a ring of `room` bytes, whatever it holds that is delivered."""
        return self.ring > room * _TURN_SHARE or self.log > max(room * _LOG_SHARE, 3 * _LOG_BYTES)


class Ring:
    """One watcher's ring, kept on a connection shared with others. bound: bytes, past which capture stops."""

    def __init__(
        self,
        connection: Connection,
        lock: asyncio.Lock,
        names: WatcherNames,
        *,
        bound: int = DeliveryPolicy().overflow_bytes,
    ) -> None:
        self._connection = connection
        self._lock = lock
        self._names = names
        self.bound = bound

    @translating
    async def turn(self, slot: int, delivered: Snapshot, *, keep_seconds: float) -> int | None:
        """Empties the next slot and makes it the one that is written; its number, or None if it cannot be emptied yet.

        Safe against everybody: TRUNCATE runs only under the table's exclusive lock, had within 50 ms, and only when an
        index look-up under that lock finds no row that `delivered` does not show. A writer that still holds an old slot
        number has either inserted (its lock keeps ours out) or will insert after us, into a table that is read all
        the same.
        """
        target = (slot + 1) % RING_SLOTS
        ring, cursor = ours(self._names.rings[target]), ours(self._names.cursors[target])
        needed = self._needed(ring, slot, delivered, keep_seconds)
        # One message to the server, so that a listener that freezes never sits on the lock.
        emptying = (
            f"SET LOCAL lock_timeout = 50; LOCK TABLE {ring}, {cursor} IN ACCESS EXCLUSIVE MODE;"
            f" DO $$ BEGIN IF {needed} THEN RAISE EXCEPTION USING ERRCODE = '{_STILL_NEEDED}'; END IF; END $$;"
            f" TRUNCATE {ring}, {cursor}"
        )
        async with self._lock:
            # Looked at before: what is wanted for a day would be an error in the server's log every few seconds.
            if (await self._connection.one(f"SELECT {needed} AS needed"))["needed"]:
                return None
            try:
                await self._connection.execute(emptying)
            except psycopg.errors.LockNotAvailable:
                return None
            except psycopg.Error as error:
                if error.sqlstate == _STILL_NEEDED:
                    return None
                raise
            await self._connection.execute(
                "SELECT pg_catalog.setval(%s::regclass, %s)", [ours(self._names.slot), target]
            )
        return target

    @translating
    async def written(self, slot: int) -> Written:
        """The size of the slot that is written."""
        sizes = [
            f"coalesce(pg_catalog.pg_relation_size('{ours(names[slot])}'), 0) AS {name}"
            for name, names in (("ring", self._names.rings), ("log", self._names.cursors))
        ]
        # Of what is dropped just now there is no size: the next statement says so.
        query = f"SELECT {', '.join(sizes)}"
        async with self._lock:
            found = await self._connection.one(query)
        return Written(**found)

    @translating
    async def gauge(self) -> Gauge:
        """The ring's size now."""
        sizes = " + ".join(
            f"coalesce(pg_catalog.pg_total_relation_size('{ours(name)}'), 0)" for name in self._names.rings
        )
        query = (
            f"SELECT ({sizes})::bigint AS bytes, i.last_value AS last_id, s.last_value AS stopped_at,"
            " t.last_value::integer AS slot,"
            f" {skipped(self._names.skips)} AS skipped,"
            f" (SELECT count(*)::integer FROM {SCHEMA}.gap WHERE hash = %s) AS gaps"
            f" FROM {ours(self._names.ids)} i, {ours(self._names.stop)} s, {ours(self._names.slot)} t"
        )
        async with self._lock:
            return Gauge(**await self._connection.one(query, [self._names.hash]))

    @translating
    async def unread(self, position: Position) -> Unread:
        """What waits behind `position`, about."""
        async with self._lock:
            return await unread(self._connection, self._names, position)

    @translating
    async def held_by(self, seconds: float) -> str:
        """Who keeps the ring from being emptied for so long already, for a person to read; "" where nobody does."""
        async with self._lock:
            found = await holders(self._connection, self._names, older_than=seconds)
        return str(found[0]) if found else ""

    @translating
    async def stop(self) -> None:
        """Stops capture, as the function does by itself where the ring alone passes its bound."""
        stop = ours(self._names.stop)
        async with self._lock:
            await self._connection.execute(
                f"SELECT pg_catalog.setval('{stop}',"
                " pg_catalog.date_part('epoch', pg_catalog.clock_timestamp())::bigint)"
                f" FROM {stop} WHERE last_value = 0"
            )

    @translating
    async def arm(self) -> None:
        """Asks writers to notify us, for WAKE_SECONDS at the most."""
        await self._set_wake(UNTIL)

    @translating
    async def disarm(self) -> None:
        """Tells writers not to: a NOTIFY in every commit takes most of their speed."""
        await self._set_wake("0")

    async def _set_wake(self, value: str) -> None:
        async with self._lock:
            await self._connection.execute(f"SELECT pg_catalog.setval('{ours(self._names.wake)}', {value})")

    def _needed(self, ring: str, slot: int, delivered: Snapshot, keep_seconds: float) -> str:
        """The condition under which `ring` must not be emptied. Numbers only, nothing to quote.

        The slot is looked at again: a paused owner may remember one that its successor has turned past. A clock that
        was wrong for a while may have left a time that is far ahead: rows are kept while it is near, on either side.
        """
        keep = f"pg_catalog.make_interval(secs => {float(keep_seconds)!r})"
        now = "pg_catalog.clock_timestamp()"
        running = ", ".join(f"'{xid}'" for xid in sorted(delivered.xip))
        return (
            f"(SELECT last_value FROM {ours(self._names.slot)}) <> {slot:d}"
            f" OR EXISTS (SELECT FROM {ring} WHERE xid >= '{delivered.xmax:d}'::xid8)"
            f" OR EXISTS (SELECT FROM {ring} WHERE xid = ANY (ARRAY[{running}]::xid8[]))"
            f" OR coalesce((SELECT {TAKEN_AT} > {now} - {keep} AND {TAKEN_AT} < {now} + {keep}"
            f" FROM {ring} ORDER BY xid DESC LIMIT 1), false)"
        )


def may_resume(gauge: Gauge, room: int) -> bool:
    """Whether a stopped capture may start again: half of the ring's room is free."""
    return gauge.stopped_at > 0 and gauge.bytes < room // 2
