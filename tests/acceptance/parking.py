"""Events put aside, as the tests of them and of requests meet them: a watched table, commands, and what is where."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ..conftest import Database, poll
from .arrivals import Endpoint
from .commands import Answer, tablewatcher
from .listeners import Listener, apply, http_sink, write_manifest
from .writers import TABLES, put


async def watched(database: Database, endpoint: Endpoint, path: Path, **delivery: Any) -> Path:
    """The writers' tables, watched, with events given up after three refusals."""
    manifest = write_manifest(path, http_sink(endpoint.url), **{"maxAttempts": 3, **delivery})
    await database.execute(TABLES)
    await apply(manifest, database.dsn)
    return manifest


async def command(manifest: Path, database: Database, *words: str) -> Answer:
    return await tablewatcher(*words, "-f", manifest, "--dsn", database.dsn, "-o", "json")


async def parked(manifest: Path, database: Database, *words: str) -> dict[str, Any]:
    """What `parked list` tells."""
    answer = await command(manifest, database, "parked", "list", *words)
    assert answer.code == 0, answer.err
    (found,) = json.loads(answer.out)
    return dict(found)


def changes(endpoint: Endpoint) -> list[tuple[str, int]]:
    return [found.change for found in endpoint.accepted]


async def has_parked(listener: Listener) -> bool:
    ready, reason, _ = await listener.state()
    return ready and reason == "EventsParked"


async def is_aside(database: Database, *keys: str) -> bool:
    """Whether just these keys' events are aside. Asks the database: a command takes a second, too long to wait with."""
    found = await database.execute("SELECT key FROM tablewatcher.parked")
    return sorted(key for (key,) in found) == sorted(keys)


async def put_aside(database: Database, endpoint: Endpoint, *keys: str) -> None:
    """Each of `keys` has one event aside, or more."""
    endpoint.refused |= set(keys)
    await put(database, *keys)

    async def all_aside() -> bool:
        await put(database, "good")
        found = await database.execute("SELECT key FROM tablewatcher.parked")
        return {key for (key,) in found} >= set(keys)

    await poll(all_aside, 60)
