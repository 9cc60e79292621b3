"""A ring that turns soon: much in it, and where it is."""

from __future__ import annotations

import contextlib

import aiohttp

from ..conftest import Database
from .listeners import Listener


async def bulk(database: Database, first: int, number: int = 1100) -> None:
    """So many rows with keys of 300 characters, in one transaction: about a kilobyte each in the ring, one by one."""
    await database.execute(
        f"DO $$ BEGIN FOR nth IN {first}..{first + number - 1} LOOP"
        " INSERT INTO account (key, version) VALUES (repeat('x', 300) || nth, 1); END LOOP; END $$"
    )


async def ring_sizes(database: Database) -> list[int]:
    """The bytes of each slot."""
    found = await database.execute(
        "SELECT pg_relation_size(oid) FROM pg_class WHERE relname ~ '^ring_.*_[012]$' AND relkind = 'r'"
    )
    return [size for (size,) in found]


async def writes_slot(database: Database, slot: int) -> bool:
    return await database.execute("SELECT last_value FROM pg_sequences WHERE sequencename ~ '^slot_'") == [(slot,)]


async def has_delivered(listener: Listener, number: int) -> bool:
    with contextlib.suppress(aiohttp.ClientError):  # it has only begun
        return await listener.delivered() >= number
    return False


async def has_seen(database: Database, listener: Listener) -> bool:
    """Whether the listener has looked at the ring since it was written to."""
    with contextlib.suppress(aiohttp.ClientError):
        return await listener.metric("ring_bytes") > sum(await ring_sizes(database))
    return False
