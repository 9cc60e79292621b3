"""Transaction ids are 64 bits wide wherever we keep or compare them: past 2^32, and on the way there."""

from __future__ import annotations

import asyncio
import os
import subprocess
from pathlib import Path

from psycopg import AsyncConnection

from tablewatcher.embedded import EmbeddedPostgres
from tablewatcher.embedded.account import server_account
from tablewatcher.postgres.connection.session import connect
from tablewatcher.postgres.install.apply import apply
from tablewatcher.postgres.ring.gaps import Gaps
from tablewatcher.postgres.ring.upkeep import Ring

from ..conftest import POSTGRES_SETTINGS, Database
from .capturing import Watched, names_of, spec_of, watch

EDGE = 1 << 32
# What became of transactions is kept in files of so many bytes, two bits each.
FILE = 256 * 1024
SPEC = spec_of()
NAMES = names_of(SPEC)


def set_next_id(server: EmbeddedPostgres, xid: int) -> None:
    """Of a server that is stopped, and has frozen all it has."""
    cluster, account = server.directory / "cluster", server_account()
    oldest = xid - 100_000
    done = subprocess.run(
        [server.bin / "pg_resetwal", "-x", str(xid), "-u", str(oldest), "-D", cluster],
        user=None if account is None else account.uid,
        group=None if account is None else account.gid,
        extra_groups=None if account is None else [],
        cwd=cluster,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for number in {(xid - 1) // (4 * FILE), oldest // (4 * FILE)}:
        path = cluster / "pg_xact" / f"{number:04X}"
        path.write_bytes(bytes(FILE))
        if account is not None:
            os.chown(path, account.uid, account.gid)


async def next_id(database: Database) -> int:
    ((found,),) = await database.execute("SELECT pg_current_xact_id()::text::bigint")
    return int(found)


async def keys(watched: Watched) -> list[str]:
    return [event.key for event in await watched.events()]


async def test_a_ring_that_passes_the_edge(server_directory: Path) -> None:
    """With transactions that were open before it, and one that is open over the turn of the ring after it."""
    server = EmbeddedPostgres(server_directory / "worn", 18, POSTGRES_SETTINGS)
    database = Database(server, "postgres")
    with server:
        await database.execute("VACUUM (FREEZE)")
    set_next_id(server, EDGE - 600)
    with server:
        await database.execute("CREATE TABLE t (id int PRIMARY KEY)")
        watched = await watch(database.dsn, SPEC)
        async with watched.reader, await database.connect() as early, await database.connect() as late:
            await early.execute("BEGIN; INSERT INTO t VALUES (1)")
            assert await next_id(database) < EDGE
            await database.execute("INSERT INTO t VALUES (2)")
            assert await keys(watched) == ["2"]
            await database.execute(
                "DO $$ BEGIN FOR n IN 1..1000 LOOP PERFORM pg_current_xact_id(); COMMIT; END LOOP; END $$"
            )
            assert await next_id(database) > EDGE
            await database.execute("INSERT INTO t SELECT generate_series(100, 199)")
            assert len(await keys(watched)) == 100
            await late.execute("BEGIN; INSERT INTO t VALUES (3)")
            await early.execute("COMMIT")
            assert await keys(watched) == ["1"]
            await go_on(database, watched, late)


async def go_on(database: Database, watched: Watched, late: AsyncConnection) -> None:
    """The ring is turned, and a gap is told when `late` has ended, which may have written without capture."""
    async with await connect(database.dsn) as connection:
        lock = asyncio.Lock()
        gaps = Gaps(connection, lock, NAMES)
        assert await Ring(connection, lock, NAMES).turn(0, watched.position.prev, keep_seconds=0) == 1
        await database.execute("INSERT INTO t VALUES (4)")
        assert await keys(watched) == ["4"]
        await database.execute(
            f"CREATE OR REPLACE FUNCTION tablewatcher.{NAMES.function}() RETURNS trigger"
            " LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'"
        )
        await apply(database.dsn, SPEC, NAMES)
        await gaps.announce(1)
        assert await watched.events() == []
        await late.execute("COMMIT")
        await gaps.announce(1)
        assert [event.op for event in await watched.events()] == ["i", "g"]
