"""A ring that is full soon, and what happened while it was."""

from __future__ import annotations

import datetime

from ..conftest import Database
from .arrivals import Endpoint
from .checker import Change, Outcome
from .listeners import Listener
from .writers import Writers

BOUND = 1 << 20
# A change is noted in table `truth` a moment after it was made.
SLACK = datetime.timedelta(seconds=1)


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
    """The changes made within a gap that was announced."""
    found: set[Change] = set()
    for gap in endpoint.gaps:
        since, until = (datetime.datetime.fromisoformat(gap[end]) for end in ("from", "until"))
        query = "SELECT key, version FROM truth WHERE at BETWEEN %s AND %s"
        found |= {(key, version) for key, version in await database.execute(query, since, until + SLACK)}
    return found
