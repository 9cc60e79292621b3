"""Idle rings asked together: each is woken by its own rows, whenever they commit, and by nobody else's."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack

import pytest

from tablewatcher.errors import DatabaseError
from tablewatcher.postgres.connection.session import Connection, connect
from tablewatcher.postgres.ring.idle import RINGS_A_QUERY, IdleRings
from tablewatcher.postgres.ring.snapshot import Snapshot

from ..conftest import Database
from .capturing import Watched, spec_of, watch

LOOK = 0.05
# A question that takes long, on a machine that stands still, is asked again after ten times as long.
PATIENCE = 60.0


@pytest.fixture
async def watched(any_database: Database) -> AsyncIterator[list[Watched]]:
    """Two watchers, each of a table of its own."""
    found = []
    for table in ("a", "b"):
        await any_database.execute(f"CREATE TABLE {table} (id int PRIMARY KEY)")
        found.append(await watch(any_database.dsn, spec_of(table, name=table)))
    yield found
    for each in found:
        await each.reader.close()


@pytest.fixture
async def connection(any_database: Database) -> AsyncIterator[Connection]:
    found = await connect(any_database.dsn)
    yield found
    await found.close()


@pytest.fixture
async def idle(connection: Connection, watched: list[Watched]) -> AsyncIterator[IdleRings]:
    rings = IdleRings(connection, asyncio.Lock())
    with members(rings, watched):
        asking = asyncio.create_task(rings.run())
        yield rings
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)


@contextlib.contextmanager
def members(rings: IdleRings, watched: list[Watched]) -> Iterator[None]:
    with ExitStack() as stack:
        for each in watched:
            stack.enter_context(rings.member(each.names))
        yield


async def now(database: Database) -> Snapshot:
    ((text,),) = await database.execute("SELECT pg_current_snapshot()::text")
    return Snapshot.parse(text)


class Sleeper:
    """One watcher waiting for rows that `prev` does not show."""

    def __init__(self, rings: IdleRings, watched: Watched, prev: Snapshot, *, at_most: float = PATIENCE) -> None:
        self.woken = asyncio.Event()
        self.task = asyncio.create_task(
            rings.wait(watched.names, prev, self.woken, every=LOOK, at_most=at_most), name=watched.spec.name
        )

    async def wakes(self) -> bool:
        await self.task
        return self.woken.is_set()


async def test_only_the_ring_with_new_rows_is_woken(
    any_database: Database, watched: list[Watched], idle: IdleRings
) -> None:
    prev = await now(any_database)
    first, second = Sleeper(idle, watched[0], prev), Sleeper(idle, watched[1], prev, at_most=10 * LOOK)
    await any_database.execute("INSERT INTO a VALUES (1)")
    assert await first.wakes()
    assert not await second.wakes()


async def test_rows_that_a_snapshot_shows_wake_nobody(
    any_database: Database, watched: list[Watched], idle: IdleRings
) -> None:
    await any_database.execute("INSERT INTO a VALUES (1)")
    assert not await Sleeper(idle, watched[0], await now(any_database), at_most=10 * LOOK).wakes()


async def test_a_transaction_that_was_running_wakes_when_it_commits(
    any_database: Database, watched: list[Watched], idle: IdleRings
) -> None:
    """Its id is drawn and its transaction number is old: neither a sequence nor a highest number would tell."""
    async with await any_database.connect() as late:
        await late.execute("BEGIN; INSERT INTO a VALUES (1)")
        await any_database.execute("INSERT INTO a VALUES (2)")
        prev = await now(any_database)
        assert prev.xip
        waiting = Sleeper(idle, watched[0], prev)
        assert not await Sleeper(idle, watched[1], prev, at_most=10 * LOOK).wakes()
        assert not waiting.task.done()
        await late.execute("COMMIT")
        assert await waiting.wakes()


async def test_a_ring_that_is_gone_wakes_everybody_to_look_for_themselves(
    any_database: Database, watched: list[Watched], idle: IdleRings
) -> None:
    prev = await now(any_database)
    await any_database.execute(f"DROP TABLE tablewatcher.{watched[0].names.rings[0]}")
    waiting = [Sleeper(idle, each, prev) for each in watched]
    assert all([await each.wakes() for each in waiting])


async def test_a_lost_connection_ends_it_and_wakes_everybody(
    any_database: Database, watched: list[Watched], connection: Connection
) -> None:
    rings = IdleRings(connection, asyncio.Lock())
    with members(rings, watched):
        asking = asyncio.create_task(rings.run())
        waiting = Sleeper(rings, watched[0], await now(any_database))
        await any_database.execute("SELECT pg_terminate_backend(%s)", connection.info.backend_pid)
        with pytest.raises(DatabaseError):
            await asking
        assert await waiting.wakes()


async def test_more_rings_than_fit_one_query(any_database: Database, connection: Connection) -> None:
    count = RINGS_A_QUERY + 2
    await any_database.execute("CREATE TABLE t (id int PRIMARY KEY)")
    watched = [await watch(any_database.dsn, spec_of(name=f"w{nth}")) for nth in range(count)]
    rings = IdleRings(connection, asyncio.Lock())
    with members(rings, watched):
        prev = await now(any_database)
        asking = asyncio.create_task(rings.run())
        waiting = [Sleeper(rings, each, prev) for each in watched]
        await any_database.execute("INSERT INTO t VALUES (1)")
        assert all([await each.wakes() for each in waiting])
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
    for each in watched:
        await each.reader.close()
