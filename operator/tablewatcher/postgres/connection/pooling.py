"""How a pooler that is in between hands out its connections to the server: for a session, or for a transaction."""

from __future__ import annotations

import secrets
from enum import StrEnum

from .pooled import Connection

_PID = "SELECT pg_catalog.pg_backend_pid() AS pid"
# A pooler that keeps sessions delivers in a blink. Taken for one that does not, it costs latency, and nothing else.
_PROOF_SECONDS = 1.0

# For people, where only one connection was looked at.
POOLED = (
    "the connection leads through a pooler (PoolerDetected); one that pools by transaction has the listener look for"
    " changes, 20 times a second, instead of being woken"
)


class Pooling(StrEnum):
    """NONE: no pooler is in between. TRANSACTION also where it cannot be proved that sessions are kept."""

    NONE = "none"
    SESSION = "session"
    TRANSACTION = "transaction"


async def pooling_of(first: Connection, second: Connection) -> Pooling:
    """What is so on the way of two connections to one place, neither in a transaction. Raises psycopg.Error."""
    if not (first.pooled or second.pooled):
        return Pooling.NONE
    if await _seem_kept(first, second) and await _are_kept(first, second):
        return Pooling.SESSION
    return Pooling.TRANSACTION


async def _seem_kept(first: Connection, second: Connection) -> bool:
    """Whether each has a process of its own. In a pool at rest this tells, and leaves no trace.

    The order is what tells: a pool that hands out the connection it got back last gives one to both, and one that goes
    round, whatever its length, gives the first another one.
    """
    ours, other, again, once_more = [await _pid(each) for each in (first, second, first, first)]
    return ours == again == once_more != other


async def _are_kept(first: Connection, second: Connection) -> bool:
    """Whether `first` hears of a notification while it does nothing: then a process of the server is kept for it."""
    channel = f"tablewatcher_{secrets.token_hex(8)}"
    await first.execute(f"LISTEN {channel}")
    try:
        await second.execute(f"NOTIFY {channel}")
        return bool([each async for each in first.notifies(timeout=_PROOF_SECONDS, stop_after=1)])
    finally:
        await first.execute(f"UNLISTEN {channel}")


async def _pid(connection: Connection) -> int:
    (row,) = await (await connection.execute(_PID)).fetchall()
    return int(row["pid"])
