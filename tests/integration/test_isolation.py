"""Writers that are serializable, in a database where all are: what we read while they write is never why one fails."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest

from tablewatcher.postgres.database import open_session
from tablewatcher.postgres.install.apply import apply
from tablewatcher.postgres.ring.outbox import Outbox
from tablewatcher.postgres.standing import standing

from ..conftest import Database
from .capturing import FIRST, names_of, spec_of

SPEC = spec_of()
NAMES = names_of(SPEC)


async def read_as_a_listener(database: Database) -> None:
    session = await open_session(database.dsn)
    try:
        outbox = Outbox(session.reader, session.reader_lock, SPEC, NAMES, database=session.database)
        await outbox.next_page(FIRST, 10)
    finally:
        await session.close()


async def read_as_status_does(database: Database) -> None:
    assert await standing(database.dsn, NAMES) is not None


@pytest.mark.parametrize("read", [read_as_a_listener, read_as_status_does])
async def test_a_reader_of_the_ring_fails_no_writer(
    read: Callable[[Database], Awaitable[None]], any_database: Database
) -> None:
    """Serializable itself, it would see the second transaction and not the first, which must then have come before:
    PostgreSQL would have to end the first."""
    await any_database.execute(
        "CREATE TABLE t (id int PRIMARY KEY); CREATE TABLE day (n int); INSERT INTO day VALUES (1);"
        f" ALTER DATABASE {any_database.name} SET default_transaction_isolation = 'serializable'"
    )
    await apply(any_database.dsn, SPEC, NAMES)
    async with await any_database.connect() as writer:
        await writer.execute("BEGIN")
        await writer.execute("SELECT n FROM day")
        await any_database.execute("UPDATE day SET n = 2")
        await writer.execute("INSERT INTO t VALUES (1)")
        await read(any_database)
        await writer.execute("COMMIT")
    assert await any_database.execute("SELECT id FROM t") == [(1,)]
