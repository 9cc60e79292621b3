"""A ring that is full soon, and what happened while it was."""

from __future__ import annotations

import asyncio
import datetime
import time

from ..conftest import Database
from .arrivals import Endpoint
from .checker import Arrival, Change, History, Outcome
from .listeners import Listener
from .writers import Writers

BOUND = 1 << 20


async def flood(writers: Writers, rows: int) -> None:
    """One transaction of so many rows."""
    async with await writers.connect() as connection:
        transaction = writers.open(connection)
        await connection.execute("BEGIN")
        await transaction.put([f"flood-{nth}" for nth in range(rows)])
        await connection.execute("COMMIT")
        transaction.settle(Outcome.OK)


async def is_full(listener: Listener) -> bool:
    ready, reason, _ = await listener.state()
    return not ready and reason == "CaptureStopped"


async def within(database: Database, endpoint: Endpoint) -> set[Change]:
    """The changes of transactions that ran within a gap that was announced."""
    found: set[Change] = set()
    for gap in endpoint.gaps:
        since, until = (datetime.datetime.fromisoformat(gap[end]) for end in ("from", "until"))
        query = "SELECT key, version FROM truth WHERE noted >= %s AND began <= %s"
        found |= {(key, version) for key, version in await database.execute(query, since, until)}
    return found


async def all_accepted(database: Database, endpoint: Endpoint, history: History) -> tuple[list[Arrival], set[Change]]:
    """What was accepted, once all is there that no gap excuses, and what gaps excuse: so small a ring may be full more
    than once, and each gap is told behind all that came before it. After 60 s the checker tells what is missing."""
    deadline = time.monotonic() + 60
    while True:
        excused = await within(database, endpoint)
        missing = history.ok - excused - {found.change for found in endpoint.accepted}
        if not missing or time.monotonic() > deadline:
            assert endpoint.malformed == []
            return endpoint.accepted, excused
        await asyncio.sleep(0.1)
