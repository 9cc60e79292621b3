"""Leases of watchers that have nothing to write down are proved together: one transaction, not one for each of them.

Each proof waits for the disk and takes a transaction id. Two hundred idle watchers took as many a second, and had the
database freeze its tables every few weeks for nothing.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg.rows import tuple_row

from ..connection.session import Connection, translating
from .cursor_log import CursorLog
from .cursor_sql import ROW, append

# A lease is good for five seconds.
PROOF_SECONDS = 1.5
# Every table of a statement is locked while it runs: this keeps them few.
PROOFS_A_STATEMENT = 64
_LATELY = 32


@dataclass(slots=True, eq=False)
class Kept:
    """A lease. at: when it was last proved, on the event loop's clock, by whomever; lost: another has taken over."""

    log: CursorLog
    at: float
    lost: bool = False


class Proofs:
    """The leases of one database, over a connection that others use too."""

    def __init__(self, connection: Connection, lock: asyncio.Lock) -> None:
        self._connection = connection
        self._lock = lock
        self._kept: dict[str, Kept] = {}
        # What ran lately, and what is prepared: each text by its hash.
        self._texts: deque[int] = deque(maxlen=_LATELY)
        self._prepared: set[int] = set()

    @contextmanager
    def kept(self, log: CursorLog, at: float) -> Iterator[Kept]:
        """While inside, the lease of `log`, last proved at `at`, is proved whenever nobody else has done it lately.

        If that can be: whoever sees it grow old has to do it alone, and hears what is wrong.
        """
        kept = self._kept[log.names.hash] = Kept(log, at)
        try:
            yield kept
        finally:
            del self._kept[log.names.hash]

    async def run(self) -> None:
        """Proves for as long as the connection stands. Raises DatabaseError."""
        while True:
            await asyncio.sleep(PROOF_SECONDS)
            # By name: the texts stay the same, and whoever removes several watchers has the same order.
            names = sorted(self._kept)
            for first in range(0, len(names), PROOFS_A_STATEMENT):
                await self._prove(names[first : first + PROOFS_A_STATEMENT])

    @translating
    async def _prove(self, names: Sequence[str]) -> None:
        try:
            async with self._lock:
                await self._prove_together(names)
        except psycopg.Error:
            # A watcher was removed, say.
            if self._connection.closed:
                raise

    async def _prove_together(self, names: Sequence[str]) -> None:
        now = asyncio.get_running_loop().time()
        # Whoever has gone is about to let go of its lease: no proof may follow that.
        kept = [self._kept[name] for name in names if name in self._kept]
        kept = [each for each in kept if now - each.at > PROOF_SECONDS / 2 and not each.lost]
        if not kept:
            return
        text = _statement([each.log for each in kept])
        # To plan it takes five times as long as to run it; but it is another one whenever a ring turns, or others are
        # idle, and need not be kept then. Through a pooler nothing is: it would be others' statements that are dropped.
        prepare = hash(text) in self._texts and not self._connection.pooled
        if prepare:
            await self._make_room_for(hash(text))
        rows = [each.log.proof() for each in kept]
        columns: dict[str, Any] = {name: [row[name] for row in rows] for name in ROW}
        async with self._connection.cursor(row_factory=tuple_row) as cursor:
            await cursor.execute(text, columns, prepare=prepare)
            proved = {nth for (nth,) in await cursor.fetchall()}
        self._texts.append(hash(text))
        for nth, each in enumerate(kept, start=1):
            if nth in proved:
                each.at = now
            else:
                each.lost = True

    async def _make_room_for(self, text: int) -> None:
        """Has the server forget what it has prepared, where that has become more than is asked again and again.

        One text of 64 watchers takes 5 MB of its memory, and a session would keep a hundred of them.
        """
        if text in self._prepared:
            return
        if len(self._prepared) >= 2 * math.ceil(len(self._kept) / PROOFS_A_STATEMENT):
            await self._connection.execute("DEALLOCATE ALL", prepare=False)
            self._prepared.clear()
        self._prepared.add(text)


def _statement(logs: Sequence[CursorLog]) -> str:
    """Appends a row to each of `logs`, and gives the places, from 1, of those that were not superseded."""
    parts = [
        append(log.names, log.slot, "a.{}".format, f"FROM asked AS a WHERE nth = {nth} AND")
        for nth, log in enumerate(logs, start=1)
    ]
    written = ", ".join(f"w{nth} AS ({part} RETURNING {nth} AS nth)" for nth, part in enumerate(parts, start=1))
    found = " UNION ALL ".join(f"SELECT nth FROM w{nth}" for nth in range(1, len(parts) + 1))
    return f"WITH asked AS MATERIALIZED ({_ASKED}), {written} {found}"


_TYPES = {"holder": "text", "ttl": "float8", "prev": "text", "cur": "text"}
_ARRAYS = ", ".join(f"pg_catalog.unnest(%({name})s::{_TYPES.get(name, 'bigint')}[])" for name in ROW)
_ASKED = (
    f"SELECT * FROM ROWS FROM ({_ARRAYS}) WITH ORDINALITY AS a ({', '.join(ROW)}, nth)"
    " WHERE pg_catalog.set_config('synchronous_commit', 'local', true) IS NOT NULL"
)
