"""Rows of a statement that are gathered by column: what the application may do to the columns, and what bounds them."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from tablewatcher.postgres.capture.columnar_source import Columnar, fits_by_column
from tablewatcher.postgres.capture.conditions import Filter
from tablewatcher.postgres.capture.statement_source import Selection
from tablewatcher.postgres.install.apply import apply
from tablewatcher.postgres.ring.chunks import EVENTS, MOST_COLUMNS, SIZE
from tablewatcher.postgres.shape import Column
from tablewatcher.spec.model import Capture, Granularity, WatcherSpec

from ..conftest import Database
from .capturing import Watched, names_of, spec_of, watch, watching

SPEC = spec_of(columns=("n", "s"))
BY_COLUMN = "taken_at = 'infinity'"
TABLE = "CREATE TABLE t (id bigint PRIMARY KEY, n numeric, s text)"


def rings(columns: str, spec: WatcherSpec = SPEC) -> str:
    """A query of the chunks that lie by column."""
    return " UNION ALL ".join(
        f"SELECT {columns} FROM tablewatcher.{ring} WHERE {BY_COLUMN}" for ring in names_of(spec).rings
    )


async def by_column(database: Database, spec: WatcherSpec = SPEC) -> int:
    """How many of the events in the ring lie so."""
    chunks = await database.execute(rings(f"{EVENTS} AS events", spec))
    return sum(events for (events,) in chunks)


async def told_alike(both: tuple[Watched, Watched]) -> int:
    """How many events there are, the same of both watchers."""
    of_rows, of_statements = [{event.key: event for event in await each.events()} for each in both]
    assert list(of_rows) == list(of_statements)
    for key, event in of_rows.items():
        data = [json.loads(each.body, parse_float=str, parse_int=str)["data"] for each in (event, of_statements[key])]
        assert data[0]["after"] == data[1]["after"]
        assert data[0]["key"] == data[1]["key"]
    return len(of_rows)


@pytest.mark.parametrize("first", ["text", "mood", "char(50)"])
async def test_columns_that_change_under_a_session_that_writes(any_database: Database, first: str) -> None:
    """It keeps the plans of the function, of arrays of the types as they were; no write of it may fail."""
    await any_database.execute(
        "CREATE DOMAIN short AS text CHECK (length(VALUE) < 100); CREATE TYPE mood AS ENUM ('x', 'y');"
        f" CREATE TYPE pair AS (a int, b text); CREATE TABLE t (id bigint PRIMARY KEY, n numeric, s {first})"
    )
    both = (
        await watch(
            any_database.dsn, spec_of(name="r", columns=("n", "s"), capture=Capture(granularity=Granularity.ROW))
        ),
        await watch(any_database.dsn, SPEC),
    )
    changes = [
        "",
        "ALTER TABLE t ALTER s TYPE text",
        "ALTER TABLE t ALTER s TYPE short",
        "ALTER TABLE t ALTER s TYPE varchar(50)",
        "ALTER TABLE t ALTER s TYPE mood USING 'x'",
        "ALTER TYPE mood RENAME TO temper; ALTER TYPE temper RENAME VALUE 'x' TO 'long'",
        "ALTER TABLE t ALTER s TYPE char(50)",
        "ALTER TABLE t ALTER s TYPE text[] USING ARRAY[s]",
        "ALTER TABLE t ALTER s TYPE pair USING NULL",
        "ALTER TABLE t ALTER s TYPE pg_node_tree USING NULL",
        "ALTER TABLE t ALTER s TYPE pg_class USING NULL",
        "ALTER TABLE t ALTER s TYPE int USING 1",
        "ALTER TABLE t ALTER s TYPE json USING '1'",
        "ALTER TABLE t ALTER s TYPE text USING 'x'; ALTER TABLE t ALTER n TYPE text",
        "ALTER TABLE t ALTER n TYPE numeric(12, 2) USING 1",
        "ALTER TABLE t ALTER n TYPE bool USING true",
        "ALTER TABLE t ALTER n TYPE numeric USING 1; ALTER TABLE t RENAME s TO s2",
        "ALTER TABLE t RENAME s2 TO s; ALTER TABLE t DROP n",
        "ALTER TABLE t ADD n numeric",
        "ALTER TABLE t ALTER id TYPE text",
        "ALTER TABLE t ALTER id TYPE bigint USING id::bigint",
    ]
    number = 0
    async with both[0].reader, both[1].reader, await any_database.connect() as writer:
        for change in changes:
            await any_database.execute(change) if change else None
            for rows in (32, 33, 96, 200):
                await writer.execute(f"INSERT INTO t (id) SELECT {number} + generate_series(1, {rows})".encode())
                number += rows
        assert await told_alike(both) == number


async def test_all_columns_are_those_of_the_statement(any_database: Database) -> None:
    """Those that were added since the function was written, too, also where the transaction's snapshot is older."""
    await any_database.execute(TABLE)
    every = [
        replace(SPEC, name=str(form), columns=("*",), capture=Capture(granularity=form))
        for form in (Granularity.ROW, Granularity.STATEMENT)
    ]
    both = await watch(any_database.dsn, every[0]), await watch(any_database.dsn, every[1])
    changes = ["", "ADD c int DEFAULT 5", "DROP c", "ADD d int DEFAULT 6", "DROP n", "ADD n numeric", "DROP d"]
    number = 0
    async with both[0].reader, both[1].reader, await any_database.connect() as writer:
        for isolation in ("READ COMMITTED", "REPEATABLE READ"):
            for change in changes:
                await writer.execute(f"BEGIN ISOLATION LEVEL {isolation}".encode())
                await writer.execute("SELECT 1")
                if change:
                    await any_database.execute(f"ALTER TABLE t {change}")
                for rows in (1, 33, 100):
                    await writer.execute(f"INSERT INTO t (id) SELECT {number} + generate_series(1, {rows})".encode())
                    number += rows
                await writer.execute("COMMIT")
            await any_database.execute("ALTER TABLE t DROP s, ADD s text")
            for spec in every:
                await apply(any_database.dsn, spec, names_of(spec))
            assert await by_column(any_database, every[1]) > 0
        assert await told_alike(both) == number


@pytest.mark.parametrize("columns", [("n", "s"), ("*",)])
async def test_a_session_that_begins_while_capture_is_stopped(any_database: Database, columns: tuple[str, ...]) -> None:
    """It has drawn no id yet, by which it would know where it stands."""
    await any_database.execute(TABLE)
    async with (await watch(any_database.dsn, replace(SPEC, columns=columns))).reader:
        await any_database.execute(f"SELECT setval('tablewatcher.{names_of(SPEC).stop}', 1)")
        for rows in (1, 33, 100):
            async with await any_database.connect() as writer:
                await writer.execute(f"INSERT INTO t (id) SELECT {rows} * 1000 + generate_series(1, {rows})".encode())
        assert await any_database.execute("SELECT count(*) FROM t") == [(134,)]
        assert await by_column(any_database) == 0


@pytest.mark.parametrize(
    ("value", "gathered"),
    [
        ("NULL, NULL", True),
        ("1e29, repeat('x', 1800)", True),
        ("1e29, repeat('x', 1801)", False),
        ("1e29, repeat(chr(1), 1800)", True),
        ("1e30, ''", False),
        ("-1e30, ''", False),
        ("1e131071, ''", False),
        ("1e-16383, ''", True),
        ("'NaN', ''", False),
        ("-0.00, '%1$s %% \\'", True),
    ],
)
async def test_what_is_gathered(any_database: Database, value: str, gathered: bool) -> None:
    """One row in the midst of a block that is too large, or may be, has the whole block written the other way."""
    await any_database.execute(TABLE)
    both = (
        await watch(
            any_database.dsn, spec_of(name="r", columns=("n", "s"), capture=Capture(granularity=Granularity.ROW))
        ),
        await watch(any_database.dsn, SPEC),
    )
    async with both[0].reader, both[1].reader:
        await any_database.execute(
            f"INSERT INTO t SELECT g, v.* FROM generate_series(1, 80) AS g, LATERAL (SELECT 1.50, 'plain' WHERE g <> 60"
            f" UNION ALL SELECT {value} WHERE g = 60) AS v"
        )
        assert await by_column(any_database) == (48 if gathered else 0)
        assert await told_alike(both) == 80


async def test_wide_rows_are_gathered_so_for_a_while(database: Database) -> None:
    """Each block is looked for behind all before it: that must not come to take the most of a statement."""
    async with watching(database, TABLE, SPEC) as watched:
        await database.execute("INSERT INTO t SELECT g, 1, repeat('x', 1780) FROM generate_series(1, 12000) AS g")
        assert await by_column(database) in range(8_000, 11_000)
        assert len(await watched.events()) == 12_000


async def test_keys_at_the_length_that_has_them_replaced(any_database: Database) -> None:
    """Of a text and what is short: where it is gathered as it is, nothing else may have it replaced, or sent again."""
    await any_database.execute("CREATE TABLE t (s text, u uuid, n int, PRIMARY KEY (s, u))")
    both = (
        await watch(any_database.dsn, spec_of(name="r", columns=("n",), capture=Capture(granularity=Granularity.ROW))),
        await watch(any_database.dsn, spec_of(columns=("n",))),
    )
    async with both[0].reader, both[1].reader:
        for length in (896, 950, 990, 1000, 1024):
            await any_database.execute(
                f"INSERT INTO t SELECT lpad(g::text, {length}, 'x'), md5(g::text)::uuid, g"
                " FROM generate_series(1, 70) AS g"
            )
            assert await told_alike(both) == 70


async def test_the_size_of_what_is_stored_compressed(database: Database) -> None:
    """A page of it is bounded by what it becomes in memory."""
    async with watching(database, TABLE, SPEC) as watched:
        await database.execute("INSERT INTO t SELECT g, 1e-16383, 'x' FROM generate_series(1, 1000) AS g")
        chunks = await database.execute(rings(f"{EVENTS}, {SIZE}, pg_column_size(bodies)"))
        assert len(chunks) > 10
        assert all(size > events * 16_383 > 10 * stored for events, size, stored in chunks)
        assert len(await watched.events()) == 1000


@pytest.mark.parametrize("key", ["id", "s, id", "s, n, id"])
async def test_names_and_keys_that_are_odd(any_database: Database, key: str) -> None:
    spec = spec_of('T"%1$s', columns=('a "%" \\ é', "%%2$s"), name="odd")
    odd = '"a ""%"" \\ é"'
    await any_database.execute(
        f'CREATE TABLE "T""%1$s" (id uuid, s text, n int, {odd} text, "%%2$s" int, PRIMARY KEY ({key}))'
    )
    watched = await watch(any_database.dsn, spec)
    async with watched.reader:
        await any_database.execute(
            'INSERT INTO "T""%1$s" SELECT md5(g::text)::uuid, \'"k\\\' || g, g, \'a "%1$s" \\ é\', g'
            " FROM generate_series(1, 100) AS g"
        )
        assert await by_column(any_database, spec) == 68
        found = await watched.events()
        data = [json.loads(event.body)["data"] for event in found]
    for g, each in enumerate(data, 1):
        row = {"id": each["after"]["id"], "s": f'"k\\{g}', "n": g, 'a "%" \\ é': 'a "%1$s" \\ é', "%%2$s": g}
        assert list(each["key"]) == key.split(", ")
        assert each["key"] == {name: row[name] for name in each["key"]}
        assert list(each["after"]) == list(dict.fromkeys([*each["key"], *spec.columns]))
        assert each["after"] == {name: row[name] for name in each["after"]}
    assert len({event.key for event in found}) == 100


def columns(number: int, type_: str = "int8") -> list[Column]:
    return [Column(f"c{nth}", type_, 8, type_name=f"pg_catalog.{type_}") for nth in range(number)]


def test_nothing_is_made_of_a_row_that_does_not_fit() -> None:
    """Of half a gigabyte of bytes the text is more than there may be; to have that tried takes ten seconds."""
    found = (*columns(1), Column("b", "bytea", -1, type_name="pg_catalog.bytea"))
    block = Selection(found, ("c0",), ("b",), None, 262_144, Filter((), {}), (), 0).block()
    assert isinstance(block, Columnar)
    # The length of its text, asked for where few bytes are stored.
    tested, _, made = block.rows.partition(" AS fits")
    assert tested.index("pg_column_size") < tested.index("concat")
    assert "concat" not in made
    assert "::text" not in made


def test_which_tables_may() -> None:
    def may(found: list[Column], max_event: int = 262_144, keys: int = 1) -> bool:
        return fits_by_column(found, found[:keys], max_event)

    assert may(columns(MOST_COLUMNS))
    assert not may(columns(MOST_COLUMNS + 1))
    assert not may(columns(5), keys=4)
    assert not may(columns(5), keys=0)
    assert not may(columns(2, "jsonb"))
    assert not may([*columns(1), Column("own", "int8", 8, builtin=False)])
    assert may([Column("mood", "jsonb", 4, enum=True), Column("a", "inet", -1)], keys=1)
    assert not may([Column("a", "inet", -1)])
    # A number of few bytes may be 16,415 characters.
    numbers = [*columns(1), *(replace(each, name=f"n{each.name}") for each in columns(3, "numeric"))]
    assert may(numbers)
    assert not may(numbers, max_event=65_536)
    assert not may(numbers[1:])
