"""Who waits, and for how long, while triggers come to a table that others write to."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from tablewatcher.errors import DatabaseError, Reason
from tablewatcher.postgres.connection.session import connected
from tablewatcher.postgres.install.apply import apply, destroy
from tablewatcher.postgres.install.lock_tries import LONGEST_STATEMENT_MS, LockTries
from tablewatcher.postgres.ring.holders import Contested

from ..conftest import POSTGRES_SETTINGS, Database, poll
from ..relay import Relay
from ..versions import newest_postgres
from .capturing import names_of, opened, plan, spec_of
from .writing import SHORTLY, writing

SPEC = spec_of(columns=("n",))
NAMES = names_of(SPEC)
# Of a transaction, in seconds, and how many of them overlap.
LENGTH = 0.2
CLIENTS = 6


@asynccontextmanager
async def overlapping(database: Database) -> AsyncIterator[None]:
    """Transactions that last to the end of their client's turn of LENGTH, and turns that are evenly apart.

    So the last of those that are open has always most of LENGTH to go, whoever held them up before.
    """
    open_now: set[int] = set()
    clock = asyncio.get_running_loop().time

    async def client(nth: int) -> None:
        async with await database.connect() as connection:
            while True:
                async with connection.transaction():
                    await connection.execute("INSERT INTO t (n) VALUES (1)")
                    open_now.add(nth)
                    await asyncio.sleep(LENGTH - (clock() + LENGTH * nth / CLIENTS) % LENGTH)

    clients = [asyncio.create_task(client(nth)) for nth in range(CLIENTS)]
    try:
        await poll(lambda: len(open_now) == CLIENTS)
        yield
    finally:
        for each in clients:
            each.cancel()
        await asyncio.gather(*clients, return_exceptions=True)


@pytest.fixture
async def database(any_database: Database) -> Database:
    await any_database.execute("CREATE TABLE t (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, n int)")
    return any_database


async def test_triggers_come_to_a_table_that_is_never_free_and_go(database: Database) -> None:
    async with overlapping(database):
        assert (await apply(database.dsn, SPEC, NAMES, patience=60)).plan
        assert not await plan(database.dsn, SPEC, NAMES)
        await destroy(database.dsn, SPEC, NAMES, patience=60)
    assert await database.execute("SELECT FROM pg_trigger WHERE NOT tgisinternal") == []


async def test_a_reader_is_in_the_way_of_removal_and_is_named(database: Database) -> None:
    await apply(database.dsn, SPEC, NAMES)
    async with await database.connect() as reader, reader.transaction():
        pid = reader.info.backend_pid
        await reader.execute("SET LOCAL application_name = 'report'; SELECT count(*) FROM t")
        async with writing(database, "INSERT INTO t (n) VALUES (1)") as waits:
            with pytest.raises(DatabaseError) as refused:
                await destroy(database.dsn, SPEC, NAMES, patience=1.0)
        # No obstacle where triggers are only added.
        other = spec_of(name="other")
        assert (await apply(database.dsn, other, names_of(other))).plan
    assert refused.value.reason is Reason.TABLE_LOCKED
    assert f"(pid {pid} (report), open since " in refused.value.message
    assert waits.longest < SHORTLY


async def test_a_ring_that_is_brought_up_waits_as_shortly(database: Database) -> None:
    await apply(database.dsn, SPEC, NAMES)
    await database.execute(
        "; ".join(f"ALTER TABLE tablewatcher.{ring} DROP COLUMN bodies, DROP COLUMN taken_at" for ring in NAMES.rings)
    )
    async with await database.connect() as blocker, blocker.transaction():
        pid = blocker.info.backend_pid
        await blocker.execute(f"LOCK TABLE tablewatcher.{NAMES.rings[2]} IN ROW EXCLUSIVE MODE")
        async with writing(database, f"SELECT count(*) FROM tablewatcher.{NAMES.rings[2]}") as waits:
            with pytest.raises(DatabaseError) as refused:
                await apply(database.dsn, SPEC, NAMES, patience=1.0)
    assert f"pid {pid}" in refused.value.message
    assert waits.longest < SHORTLY
    assert (await apply(database.dsn, SPEC, NAMES)).plan


async def test_the_waits_for_many_partitions_do_not_add_up(any_database: Database) -> None:
    """One after another is let go, each within the time that a try waits for it."""
    held = range(1, 31)
    await any_database.execute(
        "CREATE TABLE p (id int PRIMARY KEY) PARTITION BY RANGE (id);"
        + "".join(f"CREATE TABLE p{n} PARTITION OF p FOR VALUES FROM ({n}) TO ({n + 1});" for n in (0, *held))
    )
    spec = spec_of("p")
    async with AsyncExitStack() as blockers:
        holders = [await blockers.enter_async_context(await any_database.connect()) for _ in held]
        for nth, holder in zip(held, holders, strict=True):
            await holder.execute(f"BEGIN; INSERT INTO p{nth} VALUES ({nth})".encode())
        async with writing(any_database, "INSERT INTO p VALUES (0) ON CONFLICT DO NOTHING") as waits:
            applying = asyncio.create_task(apply(any_database.dsn, spec, names_of(spec)))
            await poll(lambda: any_database.execute("SELECT FROM pg_locks WHERE NOT granted AND mode LIKE 'ShareRow%'"))
            for holder in holders:
                await holder.execute("COMMIT")
                await asyncio.sleep(0.04)
            assert (await applying).plan
    assert waits.longest < 1.0  # 1.3 where they do


async def test_a_statement_that_takes_long_by_itself_is_given_the_time(database: Database) -> None:
    async with connected(database.dsn) as connection:
        tries = LockTries(connection, 60.0)
        tries.expect(Contested(()))
        given = []
        for _ in range(5):
            given += [int(found) for found in re.findall(r"statement_timeout = (\d+)", tries.bounds())]
            assert await tries.again(psycopg.errors.QueryCanceled())
        tries.bounds()
        assert await tries.again(psycopg.errors.LockNotAvailable())
        given += [int(found) for found in re.findall(r"statement_timeout = (\d+)", tries.bounds())]
    assert given == [500, 900, 1700, LONGEST_STATEMENT_MS, LONGEST_STATEMENT_MS, LONGEST_STATEMENT_MS]


async def test_a_far_away_apply_does_not_keep_the_lock_for_its_way(database: Database) -> None:
    """Each answer takes a fifth of a second, and three triggers have to be made."""
    way = 0.2

    class Far(Relay):
        async def passing(self, data: bytes, *, answer: bool) -> None:
            await asyncio.sleep(way if answer else 0)

    async with Far(database.server.port) as far, writing(database, "INSERT INTO t (n) VALUES (1)") as waits:
        dsn = database.dsn.replace(f":{database.server.port}/", f":{far.port}/")
        assert (await apply(dsn, SPEC, NAMES)).plan
    async with (await opened(database.dsn, SPEC)).reader:
        pass
    assert waits.longest_ever >= way
    assert waits.longest < 3 * way


async def test_a_standby_that_is_waited_for_is_not_waited_for_with_the_lock(server_directory: Path) -> None:
    """A commit has its locks until the standby answers: here never, elsewhere as long as a query there takes."""
    settings = POSTGRES_SETTINGS | {"synchronous_standby_names": "away"}
    with newest_postgres(server_directory / "alone", settings) as server:
        database = Database(server, "postgres")
        await database.execute("CREATE TABLE t (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, n int)")
        dsn = make_conninfo(database.dsn, options="-c synchronous_commit=remote_apply")
        async with writing(database, "INSERT INTO t (n) VALUES (1)") as waits, asyncio.timeout(10):
            assert (await apply(dsn, SPEC, NAMES)).plan
    assert waits.longest < SHORTLY


async def test_an_apply_in_the_midst_of_a_removal_has_no_writer_wait_for_it(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Capture is on again, so what is to be dropped is in use: writers queued, for half a second at each part of it."""
    await apply(database.dsn, SPEC, NAMES)
    async with await database.connect() as other:
        times: list[str] = []

        async def undelivered(*_: object) -> None:
            times.append("capture has stopped")
            if len(times) == 1:
                await apply(database.dsn, SPEC, NAMES)
                await other.execute("BEGIN; INSERT INTO t (n) VALUES (1)")
                asyncio.get_running_loop().call_later(2.0, lambda: ended.append(asyncio.create_task(end())))

        async def end() -> None:
            await other.execute("COMMIT")

        ended: list[asyncio.Task[None]] = []
        monkeypatch.setattr("tablewatcher.postgres.install.apply.undelivered", undelivered)
        async with writing(database, "INSERT INTO t (n) VALUES (1)") as waits:
            await destroy(database.dsn, SPEC, NAMES)
        await asyncio.gather(*ended)
    assert len(times) == 2
    assert waits.longest < SHORTLY
    assert await database.execute("SELECT FROM pg_namespace WHERE nspname = 'tablewatcher'") == []
