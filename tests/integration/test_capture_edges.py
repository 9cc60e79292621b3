"""What capture does at the edges: casts that cancel, triggers that nest, replicated rows, a million rows at once."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tablewatcher.embedded import EmbeddedPostgres
from tablewatcher.errors import DatabaseError, Reason
from tablewatcher.postgres.install.apply import apply
from tablewatcher.postgres.ring.chunks import EVENTS
from tablewatcher.spec.model import Action

from ..conftest import POSTGRES_SETTINGS, Database
from .capturing import names_of, plan, spec_of, watch

CHANGES = frozenset({Action.INSERT, Action.UPDATE, Action.DELETE})


CANCELLED = {
    "raised by the cast itself": ("RAISE 'no' USING ERRCODE = 'query_canceled'", "0"),
    "by the writer's own timeout": ("PERFORM pg_sleep(60)", "300ms"),
}


@pytest.mark.parametrize("name", CANCELLED)
async def test_a_cancelled_write_stays_cancelled(name: str, any_database: Database) -> None:
    """A guard that caught this would take the writer's own timeout away: the write fails, and nothing is told of it."""
    body, timeout = CANCELLED[name]
    await any_database.execute(
        "CREATE TYPE mood AS ENUM ('a'); CREATE TABLE t (id int PRIMARY KEY, m mood);"
        f" CREATE FUNCTION f(mood) RETURNS json LANGUAGE plpgsql AS $$ BEGIN {body}; RETURN NULL; END $$;"
        " CREATE CAST (mood AS json) WITH FUNCTION f(mood)"
    )
    watched = await watch(any_database.dsn, spec_of(columns=("m",), actions=CHANGES))
    async with watched.reader:
        with pytest.raises(psycopg.errors.QueryCanceled):
            await any_database.execute(f"SET statement_timeout = '{timeout}'; INSERT INTO t VALUES (1, 'a')")
        await any_database.execute("INSERT INTO t VALUES (2, NULL)")
        assert [event.key for event in await watched.events()] == ["2"]


async def test_a_before_trigger_that_changes_another_row(any_database: Database) -> None:
    """Its changes are made, and told, before the row that it fires for; by whole nested statements."""
    await any_database.execute(
        "CREATE TABLE t (id int PRIMARY KEY, n int); INSERT INTO t VALUES (1, 0);"
        " CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        "   UPDATE t SET n = n + NEW.id WHERE id = 1; RETURN NEW; END $$;"
        " CREATE TRIGGER theirs BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION f()"
    )
    watched = await watch(any_database.dsn, spec_of(columns=("n",), actions=CHANGES))
    async with watched.reader:
        await any_database.execute("INSERT INTO t VALUES (2, 0), (3, 0)")
        found = [(data["action"], data["key"]["id"], data["after"]["n"]) for data in await watched.data()]
    assert found == [("update", 1, 2), ("update", 1, 5), ("insert", 2, 0), ("insert", 3, 0)]


async def test_a_before_trigger_that_inserts_and_changes_what_it_inserted(any_database: Database) -> None:
    """Every row's own changes stay in order, however deep they nest."""
    await any_database.execute(
        "CREATE TABLE t (id int PRIMARY KEY, n int); CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        "   IF NEW.id < 10 THEN"
        "     INSERT INTO t VALUES (NEW.id + 10, 0); UPDATE t SET n = 1 WHERE id = NEW.id + 10; END IF;"
        "   RETURN NEW; END $$;"
        " CREATE TRIGGER theirs BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION f()"
    )
    watched = await watch(any_database.dsn, spec_of(columns=("n",), actions=CHANGES))
    async with watched.reader:
        await any_database.execute("INSERT INTO t VALUES (1, 0), (2, 0)")
        found = [(data["action"], data["key"]["id"]) for data in await watched.data()]
    assert found == [("insert", 11), ("update", 11), ("insert", 12), ("update", 12), ("insert", 1), ("insert", 2)]


async def test_a_before_trigger_that_changes_what_its_statement_has_written(any_database: Database) -> None:
    """PostgreSQL fires the triggers of the inner statement first. We cannot tell it in order, so we say so."""
    await any_database.execute(
        "CREATE TABLE t (id int PRIMARY KEY, n int); CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        "   UPDATE T SET n = 0 WHERE n = 1; RETURN NEW; END $$;"
        " CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.n := NEW.n; RETURN NEW; END $$;"
        " CREATE TRIGGER latest BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION f();"
        " CREATE TRIGGER harmless BEFORE UPDATE ON t FOR EACH ROW EXECUTE FUNCTION touch()"
    )
    watched = await watch(any_database.dsn, spec_of(columns=("n",), actions=CHANGES))
    async with watched.reader:
        await any_database.execute("INSERT INTO t VALUES (1, 1), (2, 1)")
        found = [(data["action"], data["key"]["id"], data["after"]["n"]) for data in await watched.data()]
    assert found == [("update", 1, 0), ("insert", 1, 1), ("insert", 2, 1)]
    for setting in ("on", "off"):
        await any_database.execute(f"ALTER DATABASE {any_database.name} SET standard_conforming_strings = {setting}")
        notes = (await apply(any_database.dsn, watched.spec, watched.names)).notes
        (note,) = [note for note in notes if "before" in note]
        assert note.startswith("trigger latest runs before each row")


def anonymous_memory(pid: int) -> int:
    """Bytes of a process that are its own, without what is shared."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("Anonymous:"))


async def test_more_subtransactions_than_a_snapshot_has_room_for(any_database: Database) -> None:
    """PostgreSQL forgets whose they are past 64: what is read while they run is told once, and nothing is missed."""
    await any_database.execute("CREATE TABLE t (id int PRIMARY KEY)")
    watched = await watch(any_database.dsn, spec_of(actions=CHANGES))
    found: list[str] = []
    async with watched.reader, await any_database.connect() as one, await any_database.connect() as other:
        await one.execute("BEGIN")
        await other.execute("BEGIN")
        for nth in range(100):
            await one.execute(f"SAVEPOINT s{nth}; INSERT INTO t VALUES ({nth})".encode())
            await other.execute(f"SAVEPOINT s{nth}; INSERT INTO t VALUES ({1000 + nth})".encode())
            if nth % 20 == 7:
                await one.execute(f"ROLLBACK TO s{nth}".encode())
                await any_database.execute(f"INSERT INTO t VALUES ({2000 + nth})")
                found += [event.key for event in await watched.events()]
        assert len(found) == 5
        for each in (other, one):
            await each.execute("COMMIT")
            found += [event.key for event in await watched.events()]
    kept = [str(key) for (key,) in await any_database.execute("SELECT id FROM t")]
    assert len(kept) == 200
    assert sorted(found) == sorted(kept)


async def test_a_statement_of_a_million_rows_takes_no_more_memory_for_us(database: Database) -> None:
    """What PostgreSQL keeps of it for us goes to disk past work_mem."""
    await database.execute("CREATE TABLE t (id int PRIMARY KEY, n int)")
    watched = await watch(database.dsn, spec_of(columns=("n",), actions=CHANGES))
    async with watched.reader, await database.connect() as writer:
        await writer.execute("SET work_mem = '4MB'; INSERT INTO t SELECT g, g FROM generate_series(1, 1000) AS g")
        before = anonymous_memory(writer.info.backend_pid)
        await writer.execute("INSERT INTO t SELECT g, g FROM generate_series(1001, 1000000) AS g")
        after = anonymous_memory(writer.info.backend_pid)
        ((told,),) = await database.execute(f"SELECT sum({EVENTS}) FROM tablewatcher.{watched.names.rings[0]}")
    assert told == 1_000_000
    assert after - before < 64 << 20


@pytest.fixture
def publisher(server_directory: Path) -> Iterator[Database]:
    with EmbeddedPostgres(server_directory / "publisher", 16, {**POSTGRES_SETTINGS, "wal_level": "logical"}) as server:
        yield Database(server, "postgres")


async def test_what_a_subscription_writes(
    publisher: Database, database: Database, eventually: Callable[..., Awaitable[Any]]
) -> None:
    """Not seen, which is said, until the table's owner has our triggers fire always; `apply` leaves that alone."""
    table = "CREATE TABLE t (id int PRIMARY KEY, n int)"
    await publisher.execute(f"{table}; CREATE PUBLICATION p FOR TABLE t")
    await database.execute(table)
    spec = spec_of(columns=("n",), actions=CHANGES)
    await apply(database.dsn, spec, names_of(spec))
    async with await database.connect() as subscriber:
        await subscriber.execute(f"CREATE SUBSCRIPTION s CONNECTION '{publisher.dsn}' PUBLICATION p".encode())
    try:
        applied = await apply(database.dsn, spec, names_of(spec))
        assert ["ENABLE ALWAYS TRIGGER" in note for note in applied.notes] == [True]
        watched = await watch(database.dsn, spec)
        async with watched.reader:

            async def arrives(key: int) -> bool:
                return bool(await database.execute(f"SELECT FROM t WHERE id = {key}"))

            await publisher.execute("INSERT INTO t VALUES (1, 1)")
            await eventually(lambda: arrives(1), 60)
            await database.execute("INSERT INTO t VALUES (100, 1)")
            assert [event.key for event in await watched.events()] == ["100"]
            await database.execute(f'ALTER TABLE t ENABLE ALWAYS TRIGGER "{watched.names.trigger}"')
            assert not await plan(database.dsn, spec, watched.names)
            await publisher.execute(
                "INSERT INTO t VALUES (2, 2); UPDATE t SET n = 3 WHERE id = 2; DELETE FROM t WHERE id = 1"
            )
            await publisher.execute("INSERT INTO t VALUES (3, 3)")
            await eventually(lambda: arrives(3), 60)
            events = await watched.events()
            assert [(event.op, event.key) for event in events] == [("i", "2"), ("u", "2"), ("d", "1"), ("i", "3")]
    finally:
        await dropped(database)


async def test_a_subscription_that_brings_the_ring_of_another_database(publisher: Database, database: Database) -> None:
    """It would send theirs as ours, and have our ring emptied with theirs."""
    spec = spec_of(columns=("n",))
    for each in (publisher, database):
        await each.execute("CREATE TABLE t (id int PRIMARY KEY, n int)")
        await apply(each.dsn, spec, names_of(spec))
    await publisher.execute("CREATE PUBLICATION p FOR ALL TABLES")
    async with await database.connect() as subscriber:
        # Nothing has to be copied for this.
        options = f"CONNECTION '{publisher.dsn}' PUBLICATION p WITH (copy_data = false)"
        await subscriber.execute(f"CREATE SUBSCRIPTION s {options}".encode())
    try:
        with pytest.raises(DatabaseError, match='subscription "s" writes') as refused:
            await apply(database.dsn, spec, names_of(spec))
        assert refused.value.reason is Reason.PUBLICATION_CONFLICT
    finally:
        await dropped(database)
    assert not await plan(database.dsn, spec, names_of(spec))


async def dropped(database: Database) -> None:
    """Subscription s of it is, and nobody asks the publisher."""
    await database.execute("ALTER SUBSCRIPTION s DISABLE")
    await database.execute("ALTER SUBSCRIPTION s SET (slot_name = NONE)")
    await database.execute("DROP SUBSCRIPTION s")


async def test_what_a_writer_may_ask_of_sequences(any_database: Database) -> None:
    """`currval` and RETURNING as before; `lastval` is of the ring's sequence, and so the docs say to name one."""
    await any_database.execute("CREATE TABLE t (id bigserial PRIMARY KEY, n int); ALTER SEQUENCE t_id_seq RESTART 5")
    watched = await watch(any_database.dsn, spec_of(columns=("n",), actions=CHANGES))
    async with watched.reader, await any_database.connect() as writer:
        returned = await (await writer.execute("INSERT INTO t (n) VALUES (1) RETURNING id")).fetchall()
        current = await (await writer.execute("SELECT currval('t_id_seq')")).fetchall()
        last = await (await writer.execute("SELECT lastval()")).fetchall()
    assert returned == current == [(5,)]
    assert last == await any_database.execute(f"SELECT last_value FROM tablewatcher.{watched.names.ids}") != [(5,)]
