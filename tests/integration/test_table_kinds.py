"""What may be watched, what is refused before a statement is run, and what is said of changes that no trigger sees."""

from __future__ import annotations

import re
from pathlib import Path

import psycopg
import pytest

from tablewatcher.cli.checks import Level, database_checks
from tablewatcher.embedded import EmbeddedPostgres
from tablewatcher.errors import DatabaseError, Reason
from tablewatcher.postgres.install.apply import apply, destroy
from tablewatcher.postgres.install.survey import survey
from tablewatcher.spec.model import Action, Capture, Granularity

from ..conftest import POSTGRES_SETTINGS, Database
from .capturing import names_of, opened, plan, spec_of, watch
from .test_granularity import levels

CHANGES = frozenset({Action.INSERT, Action.UPDATE, Action.DELETE})

RELATIONS = (
    "CREATE TABLE t (id int PRIMARY KEY, n text); CREATE VIEW v AS SELECT * FROM t;"
    " CREATE MATERIALIZED VIEW m AS SELECT * FROM t; CREATE SEQUENCE s; CREATE INDEX i ON t (n);"
    " CREATE TABLE p (id int PRIMARY KEY) PARTITION BY RANGE (id); CREATE TYPE c AS (id int);"
    " CREATE FOREIGN DATA WRAPPER dummy; CREATE SERVER far FOREIGN DATA WRAPPER dummy;"
    " CREATE FOREIGN TABLE f (id int) SERVER far"
)
REFUSED = {
    "view": ("public", "v", "public.v is a view"),
    "view of the standard": ("information_schema", "tables", "is a view"),
    "materialized view": ("public", "m", "is a materialized view"),
    "foreign table": ("public", "f", "is a foreign table"),
    "sequence": ("public", "s", "is a sequence"),
    "index": ("public", "i", "is an index"),
    "index of a partitioned table": ("public", "p_pkey", "is an index"),
    "type": ("public", "c", "is a type"),
    "system catalog": ("pg_catalog", "pg_class", "is a system catalog"),
    "long values": ("pg_toast", "pg_toast_1255", "keeps long values of another table"),
    "our own": ("tablewatcher", "progress", "TableWatcher's own"),
}


async def refusal(database: Database, schema: str, table: str) -> DatabaseError:
    """What `plan` says against it; it changes nothing."""
    spec = spec_of(table, schema=schema, name="refused")
    with pytest.raises(DatabaseError) as refused:
        await plan(database.dsn, spec, names_of(spec))
    return refused.value


@pytest.mark.parametrize("name", REFUSED)
async def test_what_cannot_be_watched_is_refused_with_its_kind(name: str, any_database: Database) -> None:
    await any_database.execute(RELATIONS)
    other = spec_of(name="other")
    await apply(any_database.dsn, other, names_of(other))
    schema, table, words = REFUSED[name]
    refused = await refusal(any_database, schema, table)
    assert refused.reason is Reason.TABLE_NOT_FOUND
    assert words in refused.message


async def test_a_view_in_the_place_of_the_table_is_told_and_nothing_of_its_columns(any_database: Database) -> None:
    """As where an application renames a table, and keeps its old name alive for older programs."""
    await any_database.execute("CREATE TABLE t (id int PRIMARY KEY, n text)")
    spec = spec_of(columns=("n",))
    await apply(any_database.dsn, spec, names_of(spec))
    await any_database.execute("ALTER TABLE t RENAME TO u; CREATE VIEW t AS SELECT id FROM u")
    found = await survey(any_database.dsn, spec, names_of(spec))
    told = [
        check for check in database_checks(spec, found, names_of(spec)) if check.name in ("table", "columns", "key")
    ]
    assert [(check.name, check.level) for check in told] == [("table", Level.FAIL)]
    assert "public.t is a view: the one that this watcher was applied to is public.u by now" in told[0].text


async def test_a_ring_is_refused_whoevers_it_is(database: Database) -> None:
    await database.execute("CREATE TABLE t (id int PRIMARY KEY)")
    other = spec_of(name="other")
    await apply(database.dsn, other, names_of(other))
    for ring in names_of(other).rings:
        assert "without end" in (await refusal(database, "tablewatcher", ring)).message


async def test_a_temporary_table_is_refused_and_never_proposed(any_database: Database) -> None:
    async with await any_database.connect() as session:
        await session.execute("CREATE TEMPORARY TABLE mine (id int PRIMARY KEY)")
        found = await session.execute("SELECT relnamespace::regnamespace::text FROM pg_class WHERE relname = 'mine'")
        ((schema,),) = await found.fetchall()
        refused = await refusal(any_database, schema, "mine")
        assert refused.reason is Reason.TABLE_NOT_FOUND
        assert "is a temporary table" in refused.message
        assert "did you mean" not in (await refusal(any_database, "public", "mine")).message


TYPED = "CREATE TYPE shape AS (id int, n text); CREATE TABLE t OF shape (PRIMARY KEY (id))"
WRITES = "INSERT INTO t VALUES (1, 'a'), (2, 'b'); UPDATE t SET n = 'c' WHERE id = 1; DELETE FROM t WHERE id = 2"


@pytest.mark.parametrize("table", [TYPED, "CREATE UNLOGGED TABLE t (id int PRIMARY KEY, n text)"])
async def test_tables_of_a_type_and_unlogged_ones_are_captured(table: str, any_database: Database) -> None:
    await any_database.execute(table)
    watched = await watch(any_database.dsn, spec_of(columns=("n",), actions=CHANGES))
    async with watched.reader:
        await any_database.execute(WRITES)
        if table is TYPED:
            await any_database.execute("ALTER TYPE shape ADD ATTRIBUTE more int CASCADE; INSERT INTO t VALUES (3)")
        found = [(event.op, event.key) for event in await watched.events()]
    assert found == [("i", "1"), ("i", "2"), ("u", "1"), ("d", "2"), *([("i", "3")] if table is TYPED else [])]


async def said(database: Database, table: str = "t", name: str = "w") -> tuple[str, ...]:
    spec = spec_of(table, name=name)
    return (await apply(database.dsn, spec, names_of(spec))).notes


async def test_what_a_crash_empties_is_said(any_database: Database) -> None:
    await any_database.execute(
        "CREATE UNLOGGED TABLE t (id int PRIMARY KEY); CREATE TABLE p (id int PRIMARY KEY) PARTITION BY LIST (id);"
        " CREATE TABLE p0 PARTITION OF p FOR VALUES IN (0)"
    )
    assert await said(any_database, "p", "parts") == ()
    for nth in range(1, 5):
        await any_database.execute(f"CREATE UNLOGGED TABLE p{nth} PARTITION OF p FOR VALUES IN ({nth})")
    (note,) = await said(any_database)
    assert note.startswith("UNLOGGED: public.t; after a crash")
    (note,) = await said(any_database, "p", "parts")
    assert note.startswith("UNLOGGED: public.p1, public.p2, public.p3 and others; ")


async def test_a_crash_empties_an_unlogged_table_and_keeps_what_was_captured(server_directory: Path) -> None:
    """What the note says: the rows go without an event, and what was told of them before does not."""
    spec = spec_of(columns=("n",))
    settings = {**POSTGRES_SETTINGS, "synchronous_commit": "on"}
    with EmbeddedPostgres(server_directory / "crashing", 18, settings) as server:
        database = Database(server, "postgres")
        await database.execute("CREATE UNLOGGED TABLE t (id int PRIMARY KEY, n text)")
        await apply(database.dsn, spec, names_of(spec))
        await database.execute("INSERT INTO t VALUES (1, 'a')")
        server.kill()
        server.start()
        assert await database.execute("SELECT FROM t") == []
        watched = await opened(database.dsn, spec)
        async with watched.reader:
            assert [(event.op, event.key) for event in await watched.events()] == [("i", "1")]


async def test_a_partition_that_is_a_foreign_table(any_database: Database) -> None:
    """It is installed beside it, and removed again; the others are captured, and what is not seen is said."""
    await any_database.execute(
        "CREATE FOREIGN DATA WRAPPER dummy; CREATE SERVER far FOREIGN DATA WRAPPER dummy;"
        " CREATE TABLE p (id int, n text) PARTITION BY RANGE (id);"
        " CREATE TABLE near PARTITION OF p FOR VALUES FROM (0) TO (10);"
        " CREATE FOREIGN TABLE away PARTITION OF p FOR VALUES FROM (10) TO (20) SERVER far"
    )
    spec = spec_of("p", columns=("n",))
    (note,) = await said(any_database, "p")
    assert note.startswith("foreign tables: public.away; ")
    watched = await watch(any_database.dsn, spec)
    async with watched.reader:
        assert not await plan(any_database.dsn, spec, watched.names)
        await any_database.execute("INSERT INTO p VALUES (1)")
        await any_database.execute("TRUNCATE near")
        assert [event.op for event in await watched.events()] == ["i", "t"]
        emptied = await any_database.execute(
            "SELECT FROM pg_trigger WHERE tgrelid = 'away'::regclass AND tgtype & 32 > 0"
        )
        assert len(emptied) == (any_database.server.version >= 16)
        assert ("no TRUNCATE of one by itself" in note) == (any_database.server.version in (14, 15))
    await destroy(any_database.dsn, spec, watched.names)
    assert await any_database.execute("SELECT FROM pg_trigger WHERE tgname ~ 'tablewatcher'") == []


async def test_of_many_triggers_three_are_named(any_database: Database) -> None:
    """A table may have hundreds, and what is said of them goes into a condition."""
    await any_database.execute(
        "CREATE TABLE t (id int PRIMARY KEY);"
        " CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'"
    )
    for nth in range(100):
        await any_database.execute(f'CREATE TRIGGER "-a{nth:02}" AFTER INSERT ON t FOR EACH ROW EXECUTE FUNCTION f()')
    (note,) = await said(any_database)
    assert note.startswith('triggers "-a00", "-a01", "-a02" and others fire before ours')
    spec = spec_of(capture=Capture(granularity=Granularity.STATEMENT))
    with pytest.raises(DatabaseError) as refused:
        await plan(any_database.dsn, spec, names_of(spec))
    assert 'it has the row trigger "-a00", "-a01", "-a02" and others; leave it to Auto' in refused.value.message
    watched = await opened(any_database.dsn, spec_of())
    async with watched.reader:
        await any_database.execute("INSERT INTO t VALUES (1)")
        assert [event.key for event in await watched.events()] == ["1"]


async def test_roles_whose_sessions_fire_no_trigger_are_said(any_database: Database) -> None:
    """What they write is not captured, and nothing in their sessions could tell of it."""
    role = f"loader_{any_database.name}"
    await any_database.execute("CREATE TABLE t (id int PRIMARY KEY)")
    await any_database.execute(f"CREATE ROLE {role}")
    try:
        assert await said(any_database) == ()
        await any_database.execute(f"ALTER ROLE {role} SET session_replication_role = 'Replica'")
        (note,) = await said(any_database)
        assert re.match(rf"session_replication_role is replica for role {role}, and no trigger fires", note)
        await any_database.execute(f"ALTER DATABASE {any_database.name} SET session_replication_role = replica")
        assert any("for every role" in note for note in await said(any_database))
        watched = await opened(any_database.dsn, spec_of())
        async with watched.reader:
            await any_database.execute("INSERT INTO t VALUES (1)")
            await any_database.execute("SET session_replication_role = origin; INSERT INTO t VALUES (2)")
            assert [event.key for event in await watched.events()] == ["2"]
    finally:
        await any_database.execute(f"DROP ROLE {role}")


async def test_a_bound_on_temporary_files_fails_no_write(any_database: Database) -> None:
    """A statement trigger's rows count to it past work_mem: where somebody has one, rows are captured one by one."""
    role = f"bounded_{any_database.name}"
    spec = spec_of(columns=("n",))
    await any_database.execute("CREATE TABLE t (id int PRIMARY KEY, n text)")
    await any_database.execute(f"CREATE ROLE {role}; GRANT INSERT ON t TO {role}")
    many = "INSERT INTO t SELECT g, repeat('x', 3000) FROM generate_series({}, {}) AS g"
    write = "SET temp_file_limit = 0; SET work_mem = '64kB'; " + many
    try:
        watched = await watch(any_database.dsn, spec)
        async with watched.reader:
            assert await levels(any_database) == {"statement"}
            with pytest.raises(psycopg.errors.ConfigurationLimitExceeded):
                await any_database.execute(write.format(1, 100))
            await any_database.execute(f"ALTER ROLE {role} SET temp_file_limit = 0")
            assert (await apply(any_database.dsn, spec, watched.names)).plan
            assert await levels(any_database) == {"row"}
            await any_database.execute(write.format(1, 100))
            assert [event.key for event in await watched.events()] == [str(key) for key in range(1, 101)]
            asked = spec_of(columns=("n",), capture=Capture(granularity=Granularity.STATEMENT))
            await apply(any_database.dsn, asked, watched.names)
            assert await levels(any_database) == {"statement"}
            await any_database.execute(f"ALTER ROLE {role} SET temp_file_limit = -1")
            assert not await plan(any_database.dsn, spec, watched.names)
    finally:
        await any_database.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")
