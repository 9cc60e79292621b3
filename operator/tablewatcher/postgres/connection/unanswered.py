"""A server process that hangs while others of its server answer: its connection is given up, and another is made.

Nobody cuts off a statement because it takes long: it would be begun again and again, and never come to its end. But a
process that was asked something seconds ago, and is idle by what the server says of it, has not even begun, and is not
going to. Of one that had begun before it hung nobody can tell so: it has as long as `Patience` says, and twice as long
each time that it was in vain, so that what really takes so long comes to its end.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from ...errors import DatabaseError, Reason
from .pooled import Connection
from .session import translating

# Of these process ids those that do nothing, by what the server says of them.
Idle = Callable[[Sequence[int]], Awaitable[Collection[int]]]

LOOK_SECONDS = 2.5
PATIENCE_SECONDS = 120.0


@dataclass(slots=True)
class Patience:
    """How long a statement may take, in seconds: for all sessions with a database, one after the other."""

    seconds: float = PATIENCE_SECONDS


class Over:
    """Asks over one connection, which others use too, which processes are idle."""

    def __init__(self, connection: Connection, lock: asyncio.Lock) -> None:
        self._connection = connection
        self._lock = lock

    @translating
    async def idle(self, pids: Sequence[int]) -> Collection[int]:
        """As `Idle`."""
        query = "SELECT pid FROM pg_catalog.pg_stat_activity WHERE pid = ANY (%s) AND state LIKE 'idle%%'"
        async with self._lock:
            found = await self._connection.execute(query, [list(pids)])
            return {row["pid"] for row in await found.fetchall()}


class Unanswered:
    """Looks after connections, each with whom to ask about it: over another one than itself."""

    def __init__(self, connections: Mapping[Connection, Idle], patience: Patience) -> None:
        self._connections = connections
        self._patience = patience

    async def watch(self) -> None:
        """Runs until something is not going to be answered, and hangs up then. Raises DatabaseError."""
        loop = asyncio.get_running_loop()
        opened = loop.time()
        suspects: set[tuple[Connection, float]] = set()
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            waiting = self._waiting(loop.time() - LOOK_SECONDS)
            # Twice: where the whole machine stood still, the one that is asked may be the first to go on.
            idle = await self._not_begun(waiting)
            self._give_up(idle & suspects)
            suspects = idle
            self._give_up(self._waiting(loop.time() - self._patience.seconds), patience=2 * self._patience.seconds)
            if not waiting and loop.time() - opened > 2 * self._patience.seconds:
                self._patience.seconds = PATIENCE_SECONDS

    def _waiting(self, since: float) -> set[tuple[Connection, float]]:
        """Connections with a statement that was sent before then, and when."""
        asked = ((each, each.asked) for each in self._connections)
        return {(each, at) for each, at in asked if at is not None and at < since}

    async def _not_begun(self, waiting: set[tuple[Connection, float]]) -> set[tuple[Connection, float]]:
        found: set[tuple[Connection, float]] = set()
        for ask in dict.fromkeys(self._connections.values()):
            # A pooler gives out process ids of its own.
            meant = {(each, at) for each, at in waiting if self._connections[each] == ask and not each.pooled}
            idle = await ask(sorted(each.info.backend_pid for each, _ in meant)) if meant else ()
            found |= {(each, at) for each, at in meant if each.info.backend_pid in idle}
        return {(each, at) for each, at in found if each.asked == at}

    def _give_up(self, silent: set[tuple[Connection, float]], *, patience: float | None = None) -> None:
        if not silent:
            return
        self._patience.seconds = patience or self._patience.seconds
        # All of them: who sleeps would not need the one that is given up for a minute, and go on without it.
        for connection in self._connections:
            connection.hang_up()
        raise DatabaseError(Reason.DATABASE_UNREACHABLE, "a server process does not answer; connecting again")
