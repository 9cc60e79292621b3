"""Databases that cannot be reached: tried again for a while, and given up on once, however many watchers they have."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from ..errors import Reason, TableWatcherError

UNREACHABLE_PATIENCE = 10.0
_PAUSE = 0.5
T = TypeVar("T")


def _never() -> float:
    return float("-inf")


class Reaching:
    """What one run of a command has found out about the databases it was led to, by connection string."""

    def __init__(self) -> None:
        self._given_up: dict[str, TableWatcherError] = {}

    async def once(self, conninfo: str, attempt: Callable[[], Awaitable[T]]) -> T:
        """What `attempt` gives. Raises its fault, or at once what was said of a database that is given up on."""
        return await self._within(0.0, conninfo, attempt)

    async def patiently(
        self, conninfo: str, attempt: Callable[[], Awaitable[T]], heard: Callable[[], float] = _never
    ) -> T:
        """As `once`; tries again while the database cannot be reached, for ten seconds.

        heard: when the database last said something to an attempt that takes long, on the monotonic clock: if it was
        there since an attempt failed, the ten seconds begin anew.
        """
        return await self._within(UNREACHABLE_PATIENCE, conninfo, attempt, heard)

    async def _within(
        self, seconds: float, conninfo: str, attempt: Callable[[], Awaitable[T]], heard: Callable[[], float] = _never
    ) -> T:
        if conninfo in self._given_up:
            raise self._given_up[conninfo]
        missed = time.monotonic()
        while True:
            try:
                return await attempt()
            except TableWatcherError as error:
                if error.reason is not Reason.DATABASE_UNREACHABLE:
                    raise
                now = time.monotonic()
                missed = now if heard() > missed else missed
                if now - missed >= seconds:
                    self._given_up[conninfo] = error
                    raise
                await asyncio.sleep(_PAUSE)
