"""A watcher and its database: copies are refused until they are adopted, a failover begins another generation."""

from __future__ import annotations

import asyncio
import json
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from tablewatcher.embedded import EmbeddedPostgres
from tablewatcher.errors import DatabaseError, Reason
from tablewatcher.event import Event
from tablewatcher.postgres.connection.session import connect
from tablewatcher.postgres.install.apply import apply, destroy
from tablewatcher.postgres.ring.cursor_log import CursorLog, Lease
from tablewatcher.postgres.ring.history import extent
from tablewatcher.postgres.ring.lineage import Lineage, Read
from tablewatcher.postgres.ring.outbox import Outbox
from tablewatcher.spec.model import Database as DatabaseSpec

from ..conftest import POSTGRES_SETTINGS, Database, poll
from ..pgbouncer import PgBouncer
from ..replicas import caught_up, cut_off, promote, upgraded
from ..versions import newest_postgres
from .capturing import Watched, names_of, plan, spec_of, watching

SPEC = spec_of()
NAMES = names_of(SPEC)
TABLE = "CREATE TABLE t (id int PRIMARY KEY, n int)"


@pytest.fixture
async def watched(database: Database) -> AsyncIterator[Watched]:
    async with watching(database, TABLE, SPEC) as found:
        yield found


@pytest.fixture
def copy(database: Database) -> Iterator[Database]:
    """A name for a copy of `database`; the test makes it."""
    name = f"{database.name}_copy"
    yield Database(database.server, name)
    with psycopg.connect(database.server.dsn(), autocommit=True) as connection:
        connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))


def cloned(database: Database, copy: Database) -> None:
    sessions = "FROM pg_stat_activity WHERE datname = %s"
    with psycopg.connect(database.server.dsn(), autocommit=True) as connection:
        connection.execute(f"SELECT pg_terminate_backend(pid) {sessions}", [database.name])
        deadline = time.monotonic() + 20
        while connection.execute(f"SELECT {sessions}", [database.name]).fetchone() is not None:
            assert time.monotonic() < deadline, "somebody stays connected"
            time.sleep(0.01)
        make = sql.SQL("CREATE DATABASE {} TEMPLATE {}")
        connection.execute(make.format(sql.Identifier(copy.name), sql.Identifier(database.name)))


async def delivered(dsn: str, generation: int | None = None) -> list[Event]:
    """Takes the lease, as a listener does, and delivers all there is."""
    async with await connect(dsn) as connection:
        lock = asyncio.Lock()
        cursor = CursorLog(connection, lock, NAMES, holder="test", sink_timeout=0)
        lineage = Lineage(connection, lock, NAMES)
        await lineage.refuse_copy()
        lease = await cursor.acquire(lambda _: True)
        assert isinstance(lease, Lease)
        found = await lineage.generation(cursor.slot)
        assert generation in (None, found)
        outbox = Outbox(connection, lock, SPEC, NAMES, database="test", generation=found)
        events, position = [], lease.position
        while (page := await outbox.next_page(position, 100)) is not None:
            events += page.events
            position = page.position(None)
        assert await cursor.commit(lease.epoch, position, release=True, durable=True)
        return events


def sequence(event: Event) -> str:
    return str(json.loads(event.body)["sequence"])


def told(events: list[Event]) -> list[str]:
    """Keys, and the reasons of gaps."""
    return [json.loads(event.body)["data"]["gap"]["reason"] if event.op == "g" else event.key for event in events]


async def test_a_watcher_that_is_removed_while_a_listener_connects(database: Database, watched: Watched) -> None:
    """It has found the ring, and then not even the watcher's own record; that of another watcher keeps the table."""
    other = spec_of(name="other")
    await apply(database.dsn, other, names_of(other))
    async with await connect(database.dsn) as connection:
        lineage = Lineage(connection, asyncio.Lock(), NAMES)
        await destroy(database.dsn, SPEC, NAMES)
        with pytest.raises(DatabaseError, match="apply it again"):
            await lineage.refuse_copy()


async def home_word(dsn: str) -> str:
    with pytest.raises(DatabaseError, match="is a copy") as refused:
        await plan(dsn, SPEC, NAMES)
    assert refused.value.reason is Reason.CLONE_REFUSED
    word = refused.value.message.partition("--adopt ")[2].partition("`")[0]
    assert word in refused.value.message.partition(")")[0]
    return word


async def test_a_copy_is_refused(database: Database, copy: Database, watched: Watched) -> None:
    await database.execute("INSERT INTO t VALUES (1)")
    cloned(database, copy)
    await copy.execute("INSERT INTO t VALUES (2)")
    with pytest.raises(DatabaseError) as refused:
        await delivered(copy.dsn)
    assert refused.value.reason is Reason.CLONE_REFUSED
    with pytest.raises(DatabaseError) as refused:
        await apply(copy.dsn, SPEC, NAMES)
    assert refused.value.reason is Reason.CLONE_REFUSED
    with pytest.raises(DatabaseError):
        await apply(copy.dsn, SPEC, NAMES, adopt="7-7")
    assert not await plan(database.dsn, SPEC, NAMES)
    assert told(await delivered(database.dsn, generation=1)) == ["1"]


async def test_a_copy_that_is_adopted_goes_on_where_the_original_was(
    database: Database, copy: Database, watched: Watched
) -> None:
    await database.execute("INSERT INTO t VALUES (1)")
    assert told(await delivered(database.dsn)) == ["1"]
    await database.execute("INSERT INTO t VALUES (2)")
    cloned(database, copy)
    (original,) = await delivered(database.dsn)
    await copy.execute("INSERT INTO t VALUES (3)")
    async with await copy.connect() as slow:
        await slow.execute("BEGIN; INSERT INTO t VALUES (4)")
        await apply(copy.dsn, SPEC, NAMES, adopt=await home_word(copy.dsn))
        await copy.execute("INSERT INTO t VALUES (5)")
        await slow.execute("COMMIT")
    moved = await delivered(copy.dsn, generation=2)
    assert told(moved) == ["2", "3", "4", "moved", "5"]
    # The same change has the same id wherever it is sent from, and compares above what the old home sent.
    assert moved[0].event_id == original.event_id
    assert sequence(moved[0]) > sequence(original)
    assert not await plan(copy.dsn, SPEC, NAMES)
    assert await delivered(copy.dsn, generation=2) == []


async def test_what_was_delivered_before_a_move_is_not_taken_to_be_there(
    database: Database, copy: Database, watched: Watched
) -> None:
    """A replay of more than that is refused, although the ring has never been emptied."""
    await database.execute("INSERT INTO t VALUES (1)")
    assert told(await delivered(database.dsn)) == ["1"]
    cloned(database, copy)
    await apply(copy.dsn, SPEC, NAMES, adopt=await home_word(copy.dsn))
    for place, is_whole in ((database, True), (copy, False)):
        async with await connect(place.dsn) as connection:
            found = await extent(connection, NAMES)
            assert found.complete is is_whole


async def test_a_copy_is_adopted_beside_a_publication_of_all_tables(
    database: Database, copy: Database, watched: Watched
) -> None:
    """Which takes away no row of a table whose rows a subscriber could not know."""
    await database.execute("INSERT INTO t VALUES (1)")
    cloned(database, copy)
    word = await home_word(copy.dsn)
    await copy.execute("SET client_min_messages = error; CREATE PUBLICATION everything FOR ALL TABLES")
    allowed = replace(SPEC, database=DatabaseSpec("secret", allow_all_tables_publication=True))
    await apply(copy.dsn, allowed, NAMES, adopt=word)
    assert told(await delivered(copy.dsn, generation=2)) == ["1", "moved"]


async def test_a_copy_that_is_destroyed_and_applied_starts_anew(
    database: Database, copy: Database, watched: Watched
) -> None:
    await database.execute("INSERT INTO t VALUES (1)")
    cloned(database, copy)
    await destroy(copy.dsn, SPEC, NAMES)
    await apply(copy.dsn, SPEC, NAMES)
    await copy.execute("INSERT INTO t VALUES (2)")
    assert told(await delivered(copy.dsn, generation=1)) == ["2"]


@pytest.fixture
def young_server(server_directory: Path) -> Iterator[EmbeddedPostgres]:
    with newest_postgres(server_directory / "young", POSTGRES_SETTINGS) as server:
        yield server


def restore(source: Database, target: Database) -> None:
    server = target.server
    dump = subprocess.run([server.bin / "pg_dump", source.dsn], check=True, capture_output=True).stdout
    psql = [server.bin / "psql", "-v", "ON_ERROR_STOP=1", "-q", target.dsn]
    subprocess.run(psql, input=dump, check=True, capture_output=True)


async def test_a_dump_restored_into_a_younger_cluster(
    database: Database, watched: Watched, young_server: EmbeddedPostgres
) -> None:
    """Its transaction ids are far below those the ring and the cursor bring along."""
    await database.execute("DO $$ BEGIN FOR n IN 1..3000 LOOP PERFORM pg_current_xact_id(); COMMIT; END LOOP; END $$")
    await database.execute("INSERT INTO t VALUES (1)")
    assert told(await delivered(database.dsn)) == ["1"]
    await database.execute("INSERT INTO t VALUES (2)")
    restored = Database(young_server, "postgres")
    await asyncio.to_thread(restore, database, restored)
    await restored.execute("INSERT INTO t VALUES (3)")
    with pytest.raises(DatabaseError) as refused:
        await delivered(restored.dsn)
    assert refused.value.reason is Reason.CLONE_REFUSED
    await apply(restored.dsn, SPEC, NAMES, adopt=await home_word(restored.dsn))
    await restored.execute("INSERT INTO t VALUES (4)")
    assert told(await delivered(restored.dsn, generation=2)) == ["2", "3", "moved", "4"]


async def test_an_upgraded_cluster_goes_on_where_the_old_one_was(server_directory: Path) -> None:
    """pg_upgrade makes a new cluster, with another system identifier, and keeps transaction ids."""
    settings = {"fsync": "off", "max_prepared_transactions": "0", "shared_buffers": "32MB"}
    with EmbeddedPostgres(server_directory / "old", 16, settings) as server:
        old = Database(server, "postgres")
        await old.execute(TABLE)
        await apply(old.dsn, SPEC, NAMES)
        await old.execute("INSERT INTO t VALUES (1)")
        assert told(await delivered(old.dsn, generation=1)) == ["1"]
        await old.execute("INSERT INTO t VALUES (2)")
    with await asyncio.to_thread(upgraded, server, server_directory / "new", 18, settings) as newer:
        new = Database(newer, "postgres")
        await new.execute("INSERT INTO t VALUES (3)")
        with pytest.raises(DatabaseError) as refused:
            await delivered(new.dsn)
        assert refused.value.reason is Reason.CLONE_REFUSED
        await apply(new.dsn, SPEC, NAMES, adopt=await home_word(new.dsn))
        await new.execute("INSERT INTO t VALUES (4)")
        assert told(await delivered(new.dsn, generation=2)) == ["2", "3", "moved", "4"]


async def test_a_promoted_server_is_found_behind_a_pooler(
    primary_and_standby: tuple[EmbeddedPostgres, EmbeddedPostgres], server_directory: Path
) -> None:
    """PgBouncer goes on saying what it heard from the server before: that it is a standby."""
    _, standby = primary_and_standby
    with PgBouncer(server_directory / "pooler", standby, "transaction") as pooler:
        dsn = pooler.dsn("postgres", standby.password)
        with pytest.raises(DatabaseError) as refused:
            await connect(dsn)
        assert refused.value.reason is Reason.READ_ONLY_REPLICA
        await asyncio.to_thread(promote, standby)
        async with await connect(dsn) as connection:
            await connection.execute("CREATE TABLE public.t (id int)")


async def test_a_failover_begins_another_generation(
    primary_and_standby: tuple[EmbeddedPostgres, EmbeddedPostgres],
) -> None:
    primary, standby = primary_and_standby
    old, new = Database(primary, "postgres"), Database(standby, "postgres")
    await old.execute(TABLE)
    await apply(old.dsn, SPEC, NAMES)
    await old.execute("INSERT INTO t VALUES (1)")
    assert told(await delivered(old.dsn, generation=1)) == ["1"]
    await poll(lambda: caught_up(primary, standby))
    for attempt in (apply(new.dsn, SPEC, NAMES), delivered(new.dsn)):
        with pytest.raises(DatabaseError) as refused:
            await attempt
        assert refused.value.reason is Reason.READ_ONLY_REPLICA
    # The standby hears no more: what the primary commits and delivers now is lost.
    await asyncio.to_thread(cut_off, standby)
    await old.execute("INSERT INTO t VALUES (2)")
    (lost,) = await delivered(old.dsn)
    await asyncio.to_thread(primary.kill)
    await asyncio.to_thread(promote, standby)
    assert await new.execute("SELECT id FROM t") == [(1,)]
    await new.execute("INSERT INTO t VALUES (3)")
    events = await delivered(new.dsn, generation=2)
    assert told(events) == ["3", "failover"]
    assert json.loads(events[1].body)["data"]["gap"]["certain"] is False
    assert sequence(events[0]).startswith("000002-")
    assert events[0].event_id != lost.event_id
    assert sequence(events[0]) > sequence(lost)
    assert await delivered(new.dsn, generation=2) == []
    assert not await plan(new.dsn, SPEC, NAMES)


async def test_a_crash_is_no_failover(young_server: EmbeddedPostgres) -> None:
    database = Database(young_server, "postgres")
    await database.execute(TABLE)
    await apply(database.dsn, SPEC, NAMES)
    await database.execute("SET synchronous_commit = on; INSERT INTO t VALUES (1)")
    await asyncio.to_thread(young_server.kill)
    await asyncio.to_thread(young_server.start)
    assert told(await delivered(database.dsn, generation=1)) == ["1"]


async def test_a_watcher_of_an_older_version_takes_its_first_home(database: Database, watched: Watched) -> None:
    await database.execute("UPDATE tablewatcher.watcher SET system_identifier = NULL, timeline = NULL")
    assert await delivered(database.dsn, generation=1) == []
    rows = await database.execute("SELECT system_identifier IS NOT NULL, timeline FROM tablewatcher.watcher")
    assert rows == [(True, 1)]


async def test_a_watcher_that_is_made_again_goes_on_above_what_it_had(database: Database, watched: Watched) -> None:
    await database.execute("INSERT INTO t SELECT n FROM generate_series(1, 5000) AS n")
    before = await delivered(database.dsn)
    await destroy(database.dsn, SPEC, NAMES)
    await apply(database.dsn, SPEC, NAMES)
    await database.execute("UPDATE t SET n = 1 WHERE id = 1")
    (after,) = await delivered(database.dsn, generation=1)
    assert sequence(after) > max(map(sequence, before))


async def test_ids_that_are_drawn_once_more_begin_a_generation(database: Database, watched: Watched) -> None:
    """As after the restore of a snapshot of the server's disks, which nothing tells from a restart; once."""
    await database.execute("INSERT INTO t VALUES (1)")
    (event,) = await delivered(database.dsn)
    for read, generation in (
        (Read(1, event.ring_id), 1),
        (Read(1, event.ring_id + 63), 1),
        (Read(1, event.ring_id + 64), 2),
        (Read(1, event.ring_id + 999), 2),
        (Read(4, event.ring_id + 999), 5),
    ):
        async with await connect(database.dsn) as connection:
            assert await Lineage(connection, asyncio.Lock(), NAMES).generation(0, read) == generation
    assert told(await delivered(database.dsn, generation=5)) == ["failover", "failover"]


async def test_a_failover_is_told_once_where_two_listeners_find_it(database: Database, watched: Watched) -> None:
    """One was paused with the lease in hand, and its successor has begun already."""
    await database.execute("UPDATE tablewatcher.watcher SET timeline = timeline + 1")
    async with await connect(database.dsn) as one, await connect(database.dsn) as other:
        async with one.transaction():
            first = await Lineage(one, asyncio.Lock(), NAMES).generation(0)
            second = asyncio.create_task(Lineage(other, asyncio.Lock(), NAMES).generation(0))

            async def waits() -> bool:
                found = await database.execute(
                    "SELECT wait_event_type FROM pg_stat_activity WHERE pid = %s", other.info.backend_pid
                )
                return found == [("Lock",)]

            await poll(waits, 20)
        assert (first, await second) == (2, 2)
    assert told(await delivered(database.dsn, generation=2)) == ["failover"]
