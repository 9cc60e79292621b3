"""A ring that is dropped while its listener looks how large it is."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from tablewatcher.postgres.ring.upkeep import Gauge, Ring, Written

from ..conftest import Database, poll
from .capturing import names_of, spec_of, watch

_WAITING = "SELECT count(*) FROM pg_locks WHERE NOT granted"


@pytest.mark.parametrize("look", [lambda ring: ring.written(0), lambda ring: ring.gauge()])
async def test_there_is_no_size_of_it(database: Database, look: Callable[[Ring], Awaitable[object]]) -> None:
    """The next statement fails for what it is: no fault of ours is in the log."""
    await database.execute("CREATE TABLE t (id bigint PRIMARY KEY)")
    async with (await watch(database.dsn, spec_of())).reader as connection, await database.connect() as dropping:
        await dropping.execute("BEGIN")
        await dropping.execute(f"DROP TABLE tablewatcher.{names_of(spec_of()).rings[0]}".encode())
        asked = asyncio.ensure_future(look(Ring(connection, asyncio.Lock(), names_of(spec_of()))))

        async def waits() -> bool:
            return bool(await database.execute(f"{_WAITING}") != [(0,)])

        await poll(waits, 40)
        await dropping.execute("COMMIT")
        found = await asked
        assert isinstance(found, Written | Gauge)
