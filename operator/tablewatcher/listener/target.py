"""One database that watchers share: its session, opened when first asked for and again after it broke."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from ..errors import TableWatcherError
from ..postgres.connection.unanswered import Patience
from ..postgres.database import Session, open_session

# A failure is not tried again by the next watcher within this time: one attempt serves all.
_FRESH_SECONDS = 0.5


class Target:
    """`conninfo()` is asked at every connection, so that a rotated password is used; it may raise."""

    def __init__(self, conninfo: Callable[[], str]) -> None:
        self._conninfo = conninfo
        self._session: Session | None = None
        self._lock = asyncio.Lock()
        self._failure: TableWatcherError | None = None
        self._failed_at = float("-inf")
        self._patience = Patience()

    async def session(self, *, since: float = float("-inf")) -> Session:
        """A session whose connections stand. Raises DatabaseError or SecretError.

        since: on the event loop's clock; what failed before it is tried again.
        """
        async with self._lock:
            if self._session is not None and self._session.alive:
                return self._session
            now = asyncio.get_running_loop().time()
            if self._failure is not None and self._failed_at >= max(since, now - _FRESH_SECONDS):
                raise self._failure
            await self._close()
            try:
                self._session = await open_session(self._conninfo(), self._patience)
            except TableWatcherError as error:
                self._failure, self._failed_at = error, now
                raise
            return self._session

    async def close(self) -> None:
        """Closes what is open."""
        async with self._lock:
            await self._close()

    async def _close(self) -> None:
        if self._session is not None:
            session, self._session = self._session, None
            await session.close()
