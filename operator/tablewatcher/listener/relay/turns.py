"""Turns, where only one may go on at a time: first come, first served; whoever gets nowhere can let others by."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Any

# So long without any progress, a request is stuck, and lets others by.
STUCK_SECONDS = 3.0


class Turns:
    """A turn, held by one task (`async with`)."""

    def __init__(self) -> None:
        self._lock = asyncio.Lock()
        self._waiting = 0
        self._holder: asyncio.Task[Any] | None = None

    @property
    def wanted(self) -> bool:
        """Whether somebody waits for the turn."""
        return self._waiting > 0

    async def pass_on(self) -> None:
        """Goes to the end of the queue, and returns when it is this task's turn again."""
        self._give()
        await self._take()

    async def __aenter__(self) -> None:
        await self._take()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Cancelled in `pass_on`, a task has no turn to give.
        if self._holder is asyncio.current_task():
            self._give()

    async def _take(self) -> None:
        self._waiting += 1
        try:
            await self._lock.acquire()
        finally:
            self._waiting -= 1
        self._holder = asyncio.current_task()

    def _give(self) -> None:
        self._holder = None
        self._lock.release()


class Stall:
    """Tells when something has stood still. `now`: seconds of one clock."""

    def __init__(self, now: float) -> None:
        self._seen: object = None
        self._since = now

    def lasts(self, seen: object, now: float) -> bool:
        """Whether `seen` has been the same for STUCK_SECONDS."""
        if seen != self._seen:
            self._seen, self._since = seen, now
        return now - self._since > STUCK_SECONDS
