"""Somebody who writes to a table while something is done to it, and how long that keeps a write waiting."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from ..conftest import Database, poll
from .running import running_time

# A try waits for 0.1 s, where each once waited for 0.5 s; the rest is for a busy machine.
SHORTLY = 0.45


@dataclass(slots=True)
class Waits:
    """longest: seconds that a write took, but for what the machine took away; longest_ever: with that."""

    longest: float = 0.0
    longest_ever: float = 0.0
    writes: int = 0


@asynccontextmanager
async def writing(database: Database, statement: str) -> AsyncIterator[Waits]:
    """Somebody who writes all the while, in a transaction for each statement."""
    found = Waits()

    async def write() -> None:
        async with await database.connect() as connection:
            while True:
                began = time.monotonic()
                async with running_time() as took:
                    await connection.execute(statement.encode())
                found.longest = max(found.longest, took.seconds)
                found.longest_ever = max(found.longest_ever, time.monotonic() - began)
                found.writes += 1

    writer = asyncio.create_task(write())
    try:
        await poll(lambda: found.writes)
        yield found
    finally:
        writer.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await writer
