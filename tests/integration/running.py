"""Time as the thing under test has it: what a busy machine takes away is nobody's fault."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

_TURN = 0.01
_LONGEST = 0.05


@dataclass(slots=True)
class RunningTime:
    """Seconds so far."""

    seconds: float = 0.0


@asynccontextmanager
async def running_time() -> AsyncIterator[RunningTime]:
    """How long the block takes, but for what this process stood still.

    For what waits on this event loop: a timer that is too long counts in full, a loop that is not served hardly.
    """
    found = RunningTime()

    async def count() -> None:
        before = time.monotonic()
        while True:
            await asyncio.sleep(_TURN)
            now = time.monotonic()
            found.seconds += min(now - before, _LONGEST)
            before = now

    counting = asyncio.create_task(count())
    try:
        yield found
    finally:
        counting.cancel()
        await asyncio.gather(counting, return_exceptions=True)
