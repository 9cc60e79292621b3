"""Dumps that are restored over a watched table, or over its whole database: never in silence."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tablewatcher.embedded import EmbeddedPostgres
from tablewatcher.errors import DatabaseError, Reason
from tablewatcher.postgres.connection.session import connect
from tablewatcher.postgres.drift import Drift
from tablewatcher.postgres.install.apply import apply, destroy

from ..conftest import POSTGRES_SETTINGS, Database
from ..versions import newest_postgres
from .capturing import Watched, names_of, plan, spec_of, watch, watching
from .test_home import delivered, sequence, told

SPEC = spec_of()
NAMES = names_of(SPEC)


@pytest.fixture
async def watched(database: Database) -> AsyncIterator[Watched]:
    async with watching(
        database, "CREATE TABLE t (id int PRIMARY KEY, n int); INSERT INTO t VALUES (1)", SPEC
    ) as found:
        yield found


async def dumped(database: Database, *options: str) -> bytes:
    """What pg_dump writes of it."""
    command = [database.server.bin / "pg_dump", *options, database.dsn]
    found: subprocess.CompletedProcess[bytes]
    found = await asyncio.to_thread(subprocess.run, command, check=True, capture_output=True)
    return found.stdout


async def restored(database: Database, dump: bytes) -> None:
    """Runs a dump there, in one transaction."""
    command = [database.server.bin / "psql", "-v", "ON_ERROR_STOP=1", "-1", "-q", database.dsn]
    await asyncio.to_thread(subprocess.run, command, input=dump, check=True, capture_output=True)


async def drift(database: Database) -> str:
    async with await connect(database.dsn) as connection:
        return await Drift(connection, asyncio.Lock(), NAMES, SPEC).look()


async def test_data_that_are_loaded_past_the_triggers(database: Database, watched: Watched, tmp_path: Path) -> None:
    """`pg_restore --disable-triggers` turns ours off and on again."""
    (tmp_path / "dump").write_bytes(await dumped(database, "-Fc", "-t", "t"))
    await database.execute("TRUNCATE t")
    assert [event.op for event in await watched.events()] == ["t"]
    command = [database.server.bin / "pg_restore", "--data-only", "--disable-triggers", "-d", database.dsn]
    await asyncio.to_thread(subprocess.run, [*command, tmp_path / "dump"], check=True, capture_output=True)
    assert await database.execute("SELECT id FROM t") == [(1,)]
    assert "for a while" in await drift(database)
    assert (await apply(database.dsn, SPEC, NAMES)).plan
    assert told(await watched.events()) == ["triggerRepaired"]
    assert not await plan(database.dsn, SPEC, NAMES)
    assert await drift(database) == ""


async def test_a_dump_without_what_is_ours(database: Database, watched: Watched, tmp_path: Path) -> None:
    """As the documentation has it: our triggers are left out of what is restored."""
    dump, wanted, pg_restore = tmp_path / "dump", tmp_path / "wanted", database.server.bin / "pg_restore"
    dump.write_bytes(await dumped(database, "-Fc", "--exclude-schema=tablewatcher"))
    listed: subprocess.CompletedProcess[bytes]
    listed = await asyncio.to_thread(subprocess.run, [pg_restore, "--list", dump], check=True, capture_output=True)
    lines = listed.stdout.decode().splitlines(keepends=True)
    wanted.write_text("".join(line for line in lines if "00_tablewatcher_" not in line))
    assert len(wanted.read_text().splitlines()) < len(lines)
    await database.execute("DROP SCHEMA tablewatcher CASCADE; DROP TABLE t")
    command = [pg_restore, "--single-transaction", "--use-list", wanted, "-d", database.dsn, dump]
    await asyncio.to_thread(subprocess.run, command, check=True, capture_output=True)
    assert await database.execute("SELECT id FROM t") == [(1,)]


async def test_a_table_that_a_dump_has_made_again(database: Database, watched: Watched) -> None:
    """Its trigger comes last, so that the rows are not seen; from then on all is as before."""
    dump = await dumped(database, "--clean", "-t", "t")
    await database.execute("UPDATE t SET n = 1; INSERT INTO t VALUES (2)")
    assert told(await watched.events()) == ["1", "2"]
    await restored(database, dump)
    await database.execute("INSERT INTO t VALUES (3)")
    assert "another table" in await drift(database)
    await apply(database.dsn, SPEC, NAMES)
    await database.execute("INSERT INTO t VALUES (4)")
    assert told(await watched.events()) == ["3", "triggerRepaired", "4"]
    assert not await plan(database.dsn, SPEC, NAMES)


async def test_a_database_that_is_restored_where_it_was(database: Database, watched: Watched) -> None:
    """The ids of its ring are drawn once more, and what compares by them must go on."""
    await database.execute("INSERT INTO t VALUES (2)")
    assert told(await delivered(database.dsn, generation=1)) == ["2"]
    await watched.reader.close()
    dump = await dumped(database, "--clean")
    await database.execute("INSERT INTO t VALUES (3); UPDATE t SET n = 3 WHERE id = 3; DELETE FROM t WHERE id = 1")
    before = await delivered(database.dsn, generation=1)
    await restored(database, dump)
    assert await database.execute("SELECT id FROM t ORDER BY id") == [(1,), (2,)]
    await apply(database.dsn, SPEC, NAMES)
    await database.execute("INSERT INTO t VALUES (3)")
    after = await delivered(database.dsn, generation=2)
    assert told(after) == ["triggerRepaired", "3"]
    assert min(map(sequence, after)) > max(map(sequence, before))
    assert {event.event_id for event in after}.isdisjoint(event.event_id for event in before)
    assert not await plan(database.dsn, SPEC, NAMES)


@pytest.fixture
def young_server(server_directory: Path) -> Iterator[EmbeddedPostgres]:
    with newest_postgres(server_directory / "young", POSTGRES_SETTINGS) as server:
        yield server


@pytest.mark.parametrize("part", ["cursor", "ring"])
async def test_data_of_another_cluster_in_the_ring(
    part: str, database: Database, watched: Watched, young_server: EmbeddedPostgres
) -> None:
    """They come from transactions far ahead: the cursor would pass over all that is written from now on, the rows
    would be sent again and again."""
    await database.execute("DO $$ BEGIN FOR n IN 1..3000 LOOP PERFORM pg_current_xact_id(); COMMIT; END LOOP; END $$")
    await database.execute("INSERT INTO t VALUES (2)")
    assert told(await delivered(database.dsn)) == ["2"]
    table = {"cursor": NAMES.cursors[0], "ring": NAMES.rings[0]}[part]
    dump = await dumped(database, "--data-only", "-t", f"tablewatcher.{table}")
    other = Database(young_server, "postgres")
    await other.execute("CREATE TABLE t (id int PRIMARY KEY, n int)")
    theirs = await watch(other.dsn, SPEC)
    async with theirs.reader:
        await other.execute(f"TRUNCATE tablewatcher.{NAMES.cursors[0]}" if part == "cursor" else "SELECT 1")
        await restored(other, dump)
        await other.execute("INSERT INTO t VALUES (3)")
        with pytest.raises(DatabaseError, match="tablewatcher destroy") as refused:
            await delivered(other.dsn)
        assert refused.value.reason is Reason.MANUAL_ACTION_REQUIRED
        if part == "ring":
            # A listener that runs meanwhile has its lease already.
            with pytest.raises(DatabaseError, match="tablewatcher destroy"):
                await theirs.events()
    await destroy(other.dsn, SPEC, NAMES)
    await apply(other.dsn, SPEC, NAMES)
    await other.execute("INSERT INTO t VALUES (4)")
    assert told(await delivered(other.dsn)) == ["4"]


async def test_rows_of_transactions_to_come_are_not_sent_even_once(database: Database, watched: Watched) -> None:
    """However busy the server is: they were found out only where nothing was written between two looks."""
    await database.execute("INSERT INTO t VALUES (2)")
    await database.execute(
        f"INSERT INTO tablewatcher.{NAMES.rings[0]} (id, xid, op, key, data)"
        f" SELECT id + 1000000, (xid::text::bigint + 100000)::text::xid8, op, key, data"
        f" FROM tablewatcher.{NAMES.rings[0]}"
    )
    with pytest.raises(DatabaseError, match="subscription") as refused:
        await watched.page()
    assert refused.value.reason is Reason.MANUAL_ACTION_REQUIRED
