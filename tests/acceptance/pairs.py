"""Two listeners of one watcher: one delivers, the other stands by."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from ..conftest import Database, HttpReceiver, poll
from .arrivals import Endpoint
from .conftest import MakeListener
from .listeners import Listener, apply, http_sink, write_manifest
from .writers import TABLES


@dataclass(slots=True)
class Pair:
    """Both of them, where they read and where they send to."""

    database: Database
    receiver: HttpReceiver
    endpoint: Endpoint
    manifest: Path
    active: Listener
    standby: Listener

    @classmethod
    async def made(
        cls,
        path: Path,
        database: Database,
        receiver: HttpReceiver,
        make_listener: MakeListener,
        sink_seconds: int,
        **delivery: Any,
    ) -> Self:
        """Started, on the writers' tables. sink_seconds: the timeout of the sink."""
        endpoint = Endpoint(receiver)
        manifest = write_manifest(path, http_sink(endpoint.url, sink_seconds), **delivery)
        await database.execute(TABLES)
        await apply(manifest, database.dsn)
        both = [make_listener(manifest, database.dsn) for _ in range(2)]
        # At once: which of them delivers is theirs to say.
        for listener in both:
            listener.start()
        active, standby = await poll(lambda: roles(both), 40)
        return cls(database, receiver, endpoint, manifest, active, standby)


async def roles(both: Sequence[Listener]) -> list[Listener] | None:
    """The one that delivers, then the other; None until both have said what they are."""
    forwards, stands_by = [
        [listener for listener, told in zip(both, await asyncio.gather(*asked), strict=True) if told]
        for asked in ([each.forwards() for each in both], [each.stands_by() for each in both])
    ]
    return forwards + stands_by if len(forwards) == len(stands_by) == 1 else None
