"""A ring that turns soon: much in it, and where it is."""

from __future__ import annotations

import contextlib
from pathlib import Path

import aiohttp

from ..conftest import Database, poll
from .arrivals import Endpoint
from .conftest import Forwarding
from .listeners import Listener, http_sink, write_manifest


async def delivered(manifest: Path, database: Database, endpoint: Endpoint, forwarding: Forwarding) -> Listener:
    """A listener of a ring of 6 MiB that has delivered 1,100 rows, and whose endpoint is down from then on."""
    sink, bound = http_sink(endpoint.url, max_events=100), {"maxBytes": 6 << 20}
    listener = await forwarding(write_manifest(manifest, sink, overflow=bound, retentionSeconds=120), database)
    await bulk(database, 1)
    await poll(lambda: has_delivered(listener, 1100), 40)
    await endpoint.die()
    return listener


async def is_replaying(database: Database) -> bool:
    """Whether those rows are being sent again."""
    return await database.execute("SELECT total FROM tablewatcher.request WHERE state = 'running'") == [(1100,)]


async def fill(database: Database, listener: Listener) -> None:
    """With other rows, but for the slot that holds the first."""
    await poll(lambda: writes_slot(database, 1), 40)
    await bulk(database, 2000)
    await poll(lambda: writes_slot(database, 2), 40)
    await bulk(database, 4000)
    await poll(lambda: has_seen(database, listener), 40)


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
