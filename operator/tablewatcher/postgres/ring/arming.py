"""Writers of idle rings are asked together to go on notifying: one transaction, not one for each ring.

What a ring asks of its writers ends by itself within WAKE_SECONDS, so that a listener that dies leaves nothing behind
for long. Whoever sleeps has it renewed here before that, and need not look at its ring for it: it was never unasked.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import psycopg
from psycopg.rows import tuple_row

from ...naming import WatcherNames
from ..connection.session import Connection, translating
from ..quoting import ours
from .wakeup import NoWakeup, Wakeup

# Longer than any sane listener sleeps between two looks: a listener that died leaves writers notifying for this long.
WAKE_SECONDS = 10
# How often those who sleep are looked through, and from what age on their wish is renewed.
_LOOK_SECONDS = 1.0
_RENEW_SECONDS = 5.0


@dataclass(slots=True, eq=False)
class Wish:
    """What a sleeping ring has asked: `asked`, when, on the event loop's clock."""

    names: WatcherNames
    woken: asyncio.Event
    asked: float


class Arming:
    """The sleeping rings of one database, over a connection that others use too."""

    def __init__(self, connection: Connection, lock: asyncio.Lock, wakeup: Wakeup | NoWakeup) -> None:
        self._connection = connection
        self._lock = lock
        self._wakeup = wakeup
        self._wishes: set[Wish] = set()

    @contextmanager
    def kept(self, names: WatcherNames, woken: asyncio.Event, asked: float) -> Iterator[Wish]:
        """While inside, what was asked of writers at `asked` holds; where it no longer can, `woken` is set."""
        wish = Wish(names, woken, asked)
        self._wishes.add(wish)
        try:
            yield wish
        finally:
            self._wishes.discard(wish)

    async def run(self) -> None:
        """Renews for as long as the connection stands. Raises DatabaseError, after waking everybody to see it too."""
        try:
            while True:
                await asyncio.sleep(_LOOK_SECONDS)
                await self._renew()
        finally:
            _wake(self._wishes)

    @translating
    async def _renew(self) -> None:
        now = asyncio.get_running_loop().time()
        if not any(now - wish.asked > _RENEW_SECONDS for wish in self._wishes):
            return
        # All of them: then they are due together.
        asked = set(self._wishes)
        try:
            if await self._wakeup.usable():
                await self._ask(asked)
                return
        except psycopg.Error:
            # A watcher was removed, say: each asks for itself, and its own says what is missing.
            if self._connection.closed:
                raise
        _wake(asked)

    async def _ask(self, asked: set[Wish]) -> None:
        async with self._lock, self._connection.cursor(row_factory=tuple_row) as cursor:
            # Who has woken up meanwhile may have told its writers not to.
            still = asked & self._wishes
            now = asyncio.get_running_loop().time()
            await cursor.execute(_ASK, {"wakes": [ours(wish.names.wake) for wish in still]})
        for wish in still:
            wish.asked = now


def _wake(wishes: set[Wish]) -> None:
    for wish in wishes:
        wish.woken.set()


# SQL: until when writers are asked, from now.
UNTIL = f"pg_catalog.floor(pg_catalog.date_part('epoch', pg_catalog.clock_timestamp()))::bigint + {WAKE_SECONDS}"
_ASK = f"SELECT pg_catalog.setval(wake::regclass, {UNTIL}) FROM pg_catalog.unnest(%(wakes)s::text[]) AS wake"
