"""Idle rings, asked together: has anything become visible in one of them? One query at a time for a whole database.

A notification that was lost, or that nobody was asked to send, costs latency only because of this. It asks for rows
that a snapshot does not show, by index, late commits included. Comparing what the sequence of ids says would be
cheaper and wrong: an id drawn by a transaction that still runs would count as seen, and its row would be lost.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import psycopg
from psycopg.rows import tuple_row

from ...naming import WatcherNames
from ..connection.session import Connection, translating
from ..quoting import ours
from .snapshot import Snapshot, late_commits

# Every table of a query is locked while it runs: this keeps them few.
RINGS_A_QUERY = 64
# Asking takes this part of the time at the most, however many rings there are.
_SHARE = 0.1
# Where it fails, it may have waited for a lock on one ring, which costs nothing: others do not wait ten times as long.
_LONGEST_AFTER_FAULT = 1.0


@dataclass(slots=True, eq=False)
class _Waiting:
    prev: Snapshot
    woken: asyncio.Event
    every: float
    asked: float


class IdleRings:
    """The idle rings of one database, over a connection that others use too."""

    def __init__(self, connection: Connection, lock: asyncio.Lock) -> None:
        self._connection = connection
        self._lock = lock
        self._known: dict[str, WatcherNames] = {}
        self._waiting: dict[str, _Waiting] = {}
        self._queries: list[tuple[tuple[str, ...], str]] = []
        self._more = asyncio.Event()

    @contextmanager
    def member(self, names: WatcherNames) -> Iterator[None]:
        """While a watcher is served its ring is part of the query, idle or not: the text stays the same."""
        self._known[names.hash] = names
        self._queries = []
        try:
            yield
        finally:
            del self._known[names.hash]
            self._waiting.pop(names.hash, None)
            self._queries = []

    async def wait(
        self, names: WatcherNames, prev: Snapshot, woken: asyncio.Event, *, every: float, at_most: float
    ) -> None:
        """Until `woken` is set, by a notification or because the ring has rows that `prev` does not show.

        every: seconds between two looks; at_most: seconds to wait.
        """
        self._waiting[names.hash] = _Waiting(prev, woken, every, asyncio.get_running_loop().time())
        self._more.set()
        try:
            # Not wait_for: before Python 3.12 it may swallow a cancellation, and the listener would never end.
            async with asyncio.timeout(at_most):
                await woken.wait()
        except TimeoutError:
            pass
        finally:
            self._waiting.pop(names.hash, None)

    async def run(self) -> None:
        """Asks for as long as the connection stands. Raises DatabaseError, after waking everybody to see it too."""
        loop = asyncio.get_running_loop()
        try:
            while True:
                due = min((each.asked + each.every for each in self._waiting.values()), default=None)
                if due is None or due > loop.time():
                    await self._sleep(None if due is None else due - loop.time())
                    continue
                began = loop.time()
                answered = await self._ask(began)
                pause = (loop.time() - began) / _SHARE
                await asyncio.sleep(pause if answered else min(pause, _LONGEST_AFTER_FAULT))
        finally:
            self._wake(self._waiting)

    async def _sleep(self, seconds: float | None) -> None:
        self._more.clear()
        try:
            async with asyncio.timeout(seconds):
                await self._more.wait()
        except TimeoutError:
            pass

    @translating
    async def _ask(self, now: float) -> bool:
        """One look at every ring that waits: those that are not due yet cost next to nothing more. False: it failed."""
        answered = True
        for hashes, query in self._texts():
            asked = {name: self._waiting.get(name) for name in hashes}
            if not any(asked.values()):
                continue
            for each in asked.values():
                if each is not None:
                    each.asked = now
            try:
                self._wake(await self._unseen(hashes, query, list(asked.values())))
            except psycopg.Error:
                # A watcher was removed, say: each looks for itself, and its own says what is missing.
                answered = False
                self._wake(hashes)
                if self._connection.closed:
                    raise
        return answered

    async def _unseen(self, hashes: Sequence[str], query: str, asked: Sequence[_Waiting | None]) -> list[str]:
        bounds = [None if each is None else str(each.prev.xmax) for each in asked]
        late = [None if each is None else _array(late_commits(each.prev)) for each in asked]
        async with self._lock, self._connection.cursor(row_factory=tuple_row) as cursor:
            await cursor.execute(query, {"bounds": bounds, "late": late})
            return [hashes[nth] for (nth,) in await cursor.fetchall()]

    def _wake(self, hashes: Sequence[str] | dict[str, _Waiting]) -> None:
        for name in hashes:
            if name in self._waiting:
                self._waiting[name].woken.set()

    def _texts(self) -> list[tuple[tuple[str, ...], str]]:
        if not self._queries:
            known = sorted(self._known)
            groups = [tuple(known[at : at + RINGS_A_QUERY]) for at in range(0, len(known), RINGS_A_QUERY)]
            self._queries = [(group, _query([self._known[name] for name in group])) for group in groups]
        return self._queries


def _query(watchers: Sequence[WatcherNames]) -> str:
    """The places (from 0) of those rings that have unseen rows. A ring without a bound is not looked at."""
    branches = []
    for nth, names in enumerate(watchers):
        bound, late = f"(%(bounds)s::text[])[{nth + 1}]", f"(%(late)s::text[])[{nth + 1}]"
        unseen = " OR ".join(
            f"EXISTS (SELECT FROM {ours(ring)} WHERE xid >= {bound}::xid8)"
            f" OR ({late} <> '{{}}' AND EXISTS (SELECT FROM {ours(ring)} WHERE xid = ANY ({late}::xid8[])))"
            for ring in names.rings
        )
        branches.append(f"SELECT {nth} WHERE {bound} IS NOT NULL AND ({unseen})")
    return " UNION ALL ".join(branches)


def _array(numbers: Sequence[int]) -> str:
    return "{" + ",".join(map(str, numbers)) + "}"
