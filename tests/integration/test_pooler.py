"""Through a real PgBouncer: what is in between is found out, and nothing of ours stays there."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import psycopg
import pytest

from tablewatcher.embedded import EmbeddedPostgres
from tablewatcher.errors import DatabaseError, Reason
from tablewatcher.event import Event
from tablewatcher.postgres.asking import listed
from tablewatcher.postgres.connection.pooling import Pooling
from tablewatcher.postgres.connection.session import connect, connected
from tablewatcher.postgres.database import Session, open_session
from tablewatcher.postgres.install.apply import apply, destroy
from tablewatcher.postgres.install.survey import survey
from tablewatcher.postgres.ring.cursor_log import CursorLog, Lease
from tablewatcher.postgres.ring.outbox import Outbox
from tablewatcher.postgres.standing import standing

from ..conftest import Database
from ..pgbouncer import PgBouncer
from .capturing import names_of, spec_of

# Settings that a program might leave behind on the connections of others.
LEFT_BEHIND = (
    "SET search_path = nowhere; SET datestyle = German; SET bytea_output = escape; SET statement_timeout = 60000;"
    " SET default_transaction_isolation = serializable; SET quote_all_identifiers = on"
)
SPEC = spec_of(columns=("*",))
NAMES = names_of(SPEC)
Through = Callable[..., str]


@pytest.fixture
def through(database: Database, server_directory: Path) -> Iterator[Through]:
    """`through(mode)`: the DSN of `database` by way of a pooler of that mode."""
    made: list[PgBouncer] = []

    def make(mode: str, size: int = 4, on_connect: str = "") -> str:
        pooler = PgBouncer(server_directory / mode, database.server, mode, size=size, on_connect=on_connect)
        made.append(pooler.start())
        return pooler.dsn(database.name, database.server.password)

    yield make
    for pooler in made:
        pooler.stop()


@asynccontextmanager
async def session(dsn: str) -> AsyncIterator[Session]:
    opened = await open_session(dsn)
    try:
        yield opened
    finally:
        await opened.close()


async def settings(dsn: str) -> set[tuple[str, str]]:
    """What differs from the server's own settings on a connection that a pooler hands out."""
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True, prepare_threshold=None) as connection:
        found = await connection.execute(
            "SELECT name, setting FROM pg_settings WHERE source = 'session'"
            " AND name NOT IN ('application_name', 'client_encoding', 'transaction_isolation')"
        )
        return {(str(name), str(setting)) for name, setting in await found.fetchall()}


async def channels(dsn: str) -> list[tuple[str]]:
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True, prepare_threshold=None) as connection:
        return await (await connection.execute("SELECT pg_listening_channels()")).fetchall()


async def test_what_is_in_between(database: Database, through: Through) -> None:
    async with session(database.dsn) as direct:
        assert direct.pooling is Pooling.NONE
        assert not direct.reader.pooled
    async with session(through("transaction")) as pooled:
        assert pooled.pooling is Pooling.TRANSACTION
        assert not await pooled.wakeup.usable()


async def test_a_pooler_by_session_is_like_none(through: Through) -> None:
    async with session(through("session")) as found:
        assert found.pooling is Pooling.SESSION
        assert await found.wakeup.usable()
        woken = await found.wakeup.subscribe("tw_probe")
        await found.writer.execute("NOTIFY tw_probe")
        async with asyncio.timeout(30):
            await woken.wait()


async def test_a_pooler_by_statement_is_refused(through: Through) -> None:
    with pytest.raises(DatabaseError, match="pool_mode to transaction or session") as refused:
        await apply(through("statement"), SPEC, NAMES)
    assert refused.value.reason is Reason.POOLER_DETECTED


async def test_parameters_of_the_startup_packet_are_refused_in_words(through: Through) -> None:
    with pytest.raises(DatabaseError, match="ignore_startup_parameters") as refused:
        await connect(f"{through('transaction')}?options=-cwork_mem%3D1MB")
    assert refused.value.reason is Reason.POOLER_DETECTED


@pytest.mark.parametrize("size", [1, 4])
async def test_a_whole_life_leaves_nothing_on_the_connections_of_others(
    database: Database, through: Through, size: int
) -> None:
    """One server connection is enough, and everybody shares it."""
    dsn = through("transaction", size)
    await database.execute("CREATE TABLE t (id int PRIMARY KEY, v bytea)")
    assert (await apply(dsn, SPEC, NAMES)).pooled
    assert not (await apply(dsn, SPEC, NAMES)).plan
    found = await survey(dsn, SPEC, NAMES)
    assert (found.faults, found.pooling) == ((), Pooling.TRANSACTION)
    async with session(dsn) as opened:
        await database.execute("INSERT INTO t SELECT n, '\\x00ff' FROM generate_series(1, 50) AS n")
        assert [event.key for event in await delivered(opened)] == [str(n) for n in range(1, 51)]
        assert await standing(dsn, NAMES) is not None
        assert await listed(dsn, NAMES, 10) == ([], 0)
        assert await settings(dsn) == set()
        assert await channels(dsn) == []
    assert await destroy(dsn, SPEC, NAMES)
    assert await settings(dsn) == set()
    assert await database.execute("SELECT count(*) FROM pg_namespace WHERE nspname = 'tablewatcher'") == [(0,)]


async def test_what_others_leave_behind_changes_nothing(database: Database, through: Through) -> None:
    dsn = through("transaction", 4, LEFT_BEHIND)
    await database.execute("CREATE TABLE t (id int PRIMARY KEY, v bytea)")
    await apply(dsn, SPEC, NAMES)
    # Seen from a direct connection all is as it should be.
    assert not (await apply(database.dsn, SPEC, NAMES)).plan
    assert not (await apply(dsn, SPEC, NAMES)).plan
    await database.execute("INSERT INTO t VALUES (1, '\\x00ff')")
    async with session(dsn) as pooled:
        (seen,) = await delivered(pooled)
        assert ("DateStyle", "German, DMY") in await settings(dsn)
    async with session(database.dsn) as direct:
        _, lease = await take_lease(direct)
        page = await outbox(direct).next_page(lease.position, 10)
        assert page is not None
        assert [(event.event_id, event.body) for event in page.events] == [(seen.event_id, seen.body)]


async def test_no_limit_of_the_database_ends_our_statements(database: Database, through: Through) -> None:
    limits = ["statement_timeout", *(["transaction_timeout"] if database.server.version >= 17 else [])]
    for name in limits:
        await database.execute(f"ALTER DATABASE {database.name} SET {name} = '2s'")
    async with connected(through("transaction")) as connection:
        await connection.execute("SELECT pg_catalog.pg_sleep(2.5)")
        async with connection.transaction():
            await connection.execute("SELECT pg_catalog.pg_sleep(2.5)")


async def test_a_server_that_was_started_again_ends_the_session(server_directory: Path) -> None:
    """Or another one in its place: what was read may be none there, and through a pooler no connection breaks."""
    with (
        EmbeddedPostgres(server_directory / "postgres", 18, {"fsync": "off"}) as server,
        PgBouncer(server_directory / "pooler", server, "transaction") as pooler,
    ):
        async with session(pooler.dsn("postgres", server.password)) as opened:
            assert opened.alive
            await asyncio.to_thread(server.stop)
            await asyncio.to_thread(server.start)
            for connection in (opened.reader, opened.writer):
                with pytest.raises(psycopg.OperationalError, match="another server"):
                    await connection.execute("CREATE TABLE made (id int)")
            assert not opened.alive
        assert await Database(server, "postgres").execute("SELECT to_regclass('made')") == [(None,)]


async def take_lease(opened: Session) -> tuple[CursorLog, Lease]:
    cursor = CursorLog(opened.writer, opened.writer_lock, NAMES, holder="h", sink_timeout=1)
    found = await cursor.acquire(lambda _: True)
    assert isinstance(found, Lease)
    return cursor, found


def outbox(opened: Session) -> Outbox:
    return Outbox(opened.reader, opened.reader_lock, SPEC, NAMES, database="test")


async def delivered(opened: Session) -> list[Event]:
    """All there is, read under a lease, in pages of seven; the cursor stays where it is."""
    cursor, lease = await take_lease(opened)
    found: list[Event] = []
    reading, position = outbox(opened), lease.position
    while (page := await reading.next_page(position, 7)) is not None:
        found += page.events
        position = page.position(None)
    assert await cursor.commit(lease.epoch, lease.position)
    assert not await cursor.commit(lease.epoch - 1, lease.position)
    return found
