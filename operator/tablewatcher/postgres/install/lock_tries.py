"""The tries of one change for the locks it needs: how long each waits, and what is done between them."""

from __future__ import annotations

import asyncio
import random

import psycopg

from ..connection.session import Connection
from ..ring.holders import Contested, Holder, contenders, holding
from .lock_outlook import LockOutlook

# Seconds between two tries. Jitter, so that two of us do not meet again.
_PAUSE = (0.2, 0.6)
_LOOK_EVERY = 0.025
# lock_timeout is for each lock: on a table with many partitions the waits would add up. So a statement has a bound too,
# which leaves it so long for its own work. Where that is not enough, as with thousands of partitions, it is doubled.
_WORK_MS = 400
LONGEST_STATEMENT_MS = 3_000


class LockTries:
    """patience: seconds, after which no other try is begun."""

    def __init__(self, connection: Connection, patience: float) -> None:
        self._connection = connection
        self._loop = asyncio.get_running_loop()
        self._deadline = self._loop.time() + patience
        self._outlook = LockOutlook()
        self._contested: Contested | None = None
        self._work_ms = _WORK_MS

    def expect(self, contested: Contested) -> None:
        """These are the tables whose holders may be in the way."""
        self._contested = contested

    def bounds(self) -> str:
        """A try for their locks begins: the SQL that bounds what follows it in the transaction."""
        wait = round(self._outlook.next_try(self._loop.time()) * 1000)
        statement = min(wait + self._work_ms, LONGEST_STATEMENT_MS)
        return f"SET LOCAL lock_timeout = {wait}; SET LOCAL statement_timeout = {statement}"

    async def again(self, error: psycopg.Error) -> bool:
        """Waits until the next try is due, on a connection whose transaction has ended; False: there is to be none."""
        if self._loop.time() >= self._deadline:
            return False
        if isinstance(error, psycopg.errors.QueryCanceled):
            self._work_ms *= 2
        await self._pause()
        return True

    async def obstacles(self) -> list[Holder]:
        """Who is in the way now, the longest first."""
        return await contenders(self._connection, self._contested) if self._contested else []

    async def _pause(self) -> None:
        """Lets others at the table, and looks meanwhile: for a shorter time where a try promises something."""
        began, length = self._loop.time(), random.uniform(*_PAUSE)  # noqa: S311
        while (passed := self._loop.time() - began) < length:
            if self._contested is not None:
                now = self._loop.time()
                self._outlook.saw(await holding(self._connection, self._contested), now)
                if passed >= _PAUSE[0] and self._outlook.promising(now):
                    break
            await asyncio.sleep(min(_LOOK_EVERY, length - passed))
