"""Inserts by statement trigger: where they are taken, where not, and that nobody could tell from the events."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tablewatcher.errors import DatabaseError, Reason
from tablewatcher.postgres.capture.conditions import as_they_were
from tablewatcher.postgres.install.apply import apply
from tablewatcher.postgres.shape import Column
from tablewatcher.spec.model import Action, Capture, Condition, Granularity, Operator

from ..conftest import Database
from .capturing import names_of, spec_of, watch

STATEMENT = Capture(granularity=Granularity.STATEMENT)
PLAIN = "CREATE TABLE t (id int PRIMARY KEY, n text, j jsonb)"
PARTITIONED = (
    "CREATE TABLE t (id int PRIMARY KEY, n text) PARTITION BY RANGE (id);"
    " CREATE TABLE t1 PARTITION OF t FOR VALUES FROM (0) TO (100)"
)
WITH_TRIGGER = (
    f"{PLAIN}; CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS"
    " 'BEGIN UPDATE t SET n = ''changed'' WHERE id = NEW.id; RETURN NULL; END';"
    " CREATE TRIGGER theirs AFTER INSERT ON t FOR EACH ROW EXECUTE FUNCTION f()"
)
INEXACT = {
    "partitions": (
        PARTITIONED,
        {},
        "partitions",
    ),
    "child": (f"{PLAIN}; CREATE TABLE child () INHERITS (t)", {}, "inherit"),
    "parent": (
        "CREATE TABLE family (id int, n text); CREATE TABLE t (PRIMARY KEY (id)) INHERITS (family)",
        {},
        "it inherits from another table",
    ),
    "reference to itself": (
        "CREATE TABLE t (id int PRIMARY KEY, n int REFERENCES t)",
        {},
        "refers from the table to itself",
    ),
    "row trigger": (
        WITH_TRIGGER,
        {},
        "row trigger theirs",
    ),
}
CAST = (
    "CREATE TYPE mood AS ENUM ('so'); CREATE FUNCTION f(mood) RETURNS text LANGUAGE sql AS $$ SELECT 'cast' $$;"
    " CREATE CAST (mood AS text) WITH FUNCTION f(mood)"
)
ONE_BY_ONE: dict[str, tuple[str, dict[str, Any]]] = {
    "no key": ("CREATE TABLE t (id int, n text)", {}),
    "condition on an enum": (
        f"CREATE TYPE size AS ENUM ('small', 'large'); {PLAIN}; ALTER TABLE t ADD s size DEFAULT 'large'",
        {"where": (Condition("s", Operator.GREATER_THAN, ("small",)),)},
    ),
    "whole row": (PLAIN, {"columns": ("*",)}),
    "our own name": (f"{PLAIN}; ALTER TABLE t ADD tablewatcher_row int", {"columns": ("tablewatcher_row",)}),
    "array": (f"{PLAIN}; ALTER TABLE t ADD a int[] DEFAULT '{{1}}'", {"columns": ("a",)}),
    "enum with a cast": (f"{PLAIN}; {CAST}; ALTER TABLE t ADD m mood DEFAULT 'so'", {"columns": ("m",)}),
}


@pytest.mark.parametrize("name", ONE_BY_ONE)
async def test_statements_whose_rows_are_captured_one_by_one(name: str, any_database: Database) -> None:
    table, fields = ONE_BY_ONE[name]
    await any_database.execute(table)
    watched = await watch(any_database.dsn, spec_of(capture=STATEMENT, **fields))
    async with watched.reader:
        assert await levels(any_database) == {"statement"}
        await any_database.execute(
            "INSERT INTO t SELECT g, 'x' FROM generate_series(1, 120) AS g; DELETE FROM t WHERE id = 1"
        )
        found = await watched.data()
    assert [(data["action"], data["key"]["id"]) for data in found] == [
        *(("insert", key) for key in range(1, 121)),
        ("delete", 1),
    ]
    assert not any("truncated" in data for data in found)


async def test_an_enum_as_key_whose_cast_raises(any_database: Database) -> None:
    """A cast that the application makes later: nothing of ours calls it outside of a guard."""
    await any_database.execute(
        "CREATE TYPE mood AS ENUM ('so', ''); CREATE TABLE t (id mood PRIMARY KEY, n int);"
        " CREATE FUNCTION f(mood) RETURNS text LANGUAGE plpgsql AS $$ BEGIN RAISE 'no'; END $$"
    )
    watched = await watch(any_database.dsn, spec_of(capture=STATEMENT))
    async with watched.reader:
        await any_database.execute("CREATE CAST (mood AS text) WITH FUNCTION f(mood)")
        await any_database.execute("INSERT INTO t VALUES ('so'), (''); UPDATE t SET n = 1; DELETE FROM t")
        assert [event.key for event in await watched.events()] == ["so", "_"] * 3


@pytest.mark.parametrize(
    "change",
    [
        "RENAME j TO k",
        "DROP COLUMN j",
        "ALTER j TYPE json USING '\"\\\\u0000\"'",
        "ALTER q TYPE text USING 'many'",
        "DROP COLUMN q",
    ],
)
async def test_columns_of_a_set_change_under_it(change: str, any_database: Database) -> None:
    """jsonb and a condition in the set form: no write fails, and what cannot be compared counts as meeting it."""
    await any_database.execute("CREATE TABLE t (id int PRIMARY KEY, j jsonb, q int)")
    watched = await watch(
        any_database.dsn,
        spec_of(columns=("j",), where=(Condition("q", Operator.LESS_THAN, ("4",)),), capture=STATEMENT),
    )
    async with watched.reader, await any_database.connect() as writer:
        await writer.execute("INSERT INTO t (id, q) SELECT g, g FROM generate_series(1, 6) AS g")
        await any_database.execute(f"ALTER TABLE t {change}")
        value = "'3'" if "TYPE text" in change else "3"
        q = "" if change == "DROP COLUMN q" else f", {value}"
        columns = "id" if change == "DROP COLUMN q" else "id, q"
        for connection in (writer, await any_database.connect()):
            await connection.execute(f"INSERT INTO t ({columns}) SELECT coalesce(max(id), 0) + 1{q} FROM t".encode())
        await connection.close()
        assert [event.key for event in await watched.events()] == ["1", "2", "3", "7", "8"]


async def test_a_jsonb_that_reads_as_much_more_than_it_takes(any_database: Database) -> None:
    """Ten bytes of a number read as 131,072 digits, and a thousand times that is 400 bytes once compressed.

    Of ten thousand such the text would be longer than a text may be; to try that takes twenty seconds.
    """
    await any_database.execute("CREATE TABLE t (id int PRIMARY KEY, j jsonb)")
    watched = await watch(any_database.dsn, spec_of(columns=("j",), capture=STATEMENT))
    async with watched.reader:
        await any_database.execute(
            "CREATE TABLE source AS SELECT 2 AS id, jsonb_agg(1e131071::numeric) AS j FROM generate_series(1, 1000);"
            " INSERT INTO t VALUES (1, '[1e131071]'); INSERT INTO t SELECT * FROM source;"
            " INSERT INTO t VALUES (3, '[1]')"
        )
        found = [(event.key, b'"truncated":true' in event.body, len(event.body)) for event in await watched.events()]
    assert [each[:2] for each in found] == [("1", False), ("2", True), ("3", False)]
    assert found[0][2] > 131_072


async def levels(database: Database) -> set[str]:
    """How our insert triggers fire."""
    found = await database.execute(
        "SELECT tgtype & 1 FROM pg_trigger WHERE tgname ~ '^00_tablewatcher_' AND tgtype & 4 > 0 AND tgparentid = 0"
    )
    return {"row" if row else "statement" for (row,) in found}


@pytest.mark.parametrize("name", INEXACT)
async def test_where_statement_triggers_are_not_exact_rows_are_captured(name: str, any_database: Database) -> None:
    table, fields, words = INEXACT[name]
    await any_database.execute(table)
    asked = spec_of(capture=STATEMENT, **fields)
    with pytest.raises(DatabaseError) as refused:
        await apply(any_database.dsn, asked, names_of(asked))
    assert refused.value.reason is Reason.SPEC_INVALID
    assert "spec.capture.granularity" in refused.value.message
    assert words in refused.value.message
    watched = await watch(any_database.dsn, spec_of(**fields))
    async with watched.reader:
        assert await levels(any_database) == {"row"}
        await any_database.execute("INSERT INTO t VALUES (1), (2)")
        events = await watched.events()
        for key in "12":
            mine = [event.op for event in events if json.loads(event.body)["data"]["key"]["id"] == int(key)]
            assert mine == (["i", "u"] if name == "row trigger" else ["i"])


async def test_a_table_that_ceases_to_be_plain(any_database: Database) -> None:
    await any_database.execute(PLAIN)
    watched = await watch(any_database.dsn, spec_of(columns=("n",)))
    async with watched.reader:
        assert await levels(any_database) == {"statement"}
        await any_database.execute("INSERT INTO t VALUES (1, 'a'); CREATE TABLE child () INHERITS (t)")
        applied = await apply(any_database.dsn, watched.spec, watched.names)
        assert applied.plan
        assert ["inherit from it are not captured" in note for note in applied.notes] == [True]
        assert await levels(any_database) == {"row"}
        await any_database.execute("INSERT INTO t VALUES (2, 'b')")
        await any_database.execute("DROP TABLE child; ANALYZE t")
        await apply(any_database.dsn, watched.spec, watched.names)
        assert await levels(any_database) == {"statement"}
        await any_database.execute("INSERT INTO t VALUES (3, 'c')")
        # The triggers are exchanged in one transaction: nothing is missed, and no gap is told.
        assert [(event.op, event.key) for event in await watched.events()] == [("i", "1"), ("i", "2"), ("i", "3")]


async def test_two_watchers_on_a_table_both_take_statements(any_database: Database) -> None:
    await any_database.execute(PLAIN)
    for name in ("one", "two"):
        spec = spec_of(name=name, columns=("n",))
        await apply(any_database.dsn, spec, names_of(spec))
    spec = spec_of(name="one", columns=("n",))
    assert not (await apply(any_database.dsn, spec, names_of(spec))).plan
    assert await levels(any_database) == {"statement"}


async def test_a_big_statement_in_order_and_with_one_transaction_id(any_database: Database) -> None:
    """Rows come in the statement's order, in blocks and after those.

    And no subtransaction takes an id: many of those slow every snapshot.
    """
    await any_database.execute(PLAIN)
    watched = await watch(any_database.dsn, spec_of(columns=("n",), capture=STATEMENT))
    async with watched.reader:
        async with await any_database.connect() as writer, writer.transaction():
            await writer.execute("INSERT INTO t SELECT g, 'x' || g FROM generate_series(1, 25000) AS g")
            for key in range(25001, 25101):
                await writer.execute("INSERT INTO t VALUES (%s, 'y')", [key])
            (row,) = await (await writer.execute("SELECT pg_current_xact_id()::text::bigint")).fetchall()
        ((later,),) = await any_database.execute("SELECT pg_current_xact_id()::text::bigint")
        # Hardly anybody else was here; a subtransaction a statement would have taken a hundred.
        assert later - row[0] < 20
        events = await watched.events()
    assert [event.key for event in events] == [str(key) for key in range(1, 25101)]
    assert {json.loads(event.body)["data"]["source"]["txId"] for event in events} == {row[0]}


@pytest.mark.parametrize(
    "statement", ["DROP COLUMN n", "RENAME n TO m", "ALTER n TYPE int USING 5", "ADD k int", "ALTER b TYPE counted"]
)
async def test_columns_change_under_statements(statement: str, any_database: Database) -> None:
    """A session with cached plans and a new one: no insert fails, every one is told with its key."""
    await any_database.execute(
        "CREATE DOMAIN counted AS int NOT NULL; CREATE TABLE t (id int PRIMARY KEY, a int, n text, b int)"
    )
    watched = await watch(any_database.dsn, spec_of(columns=("n", "b"), capture=STATEMENT))
    async with watched.reader, await any_database.connect() as writer:
        await writer.execute("INSERT INTO t (id, b) SELECT g, g FROM generate_series(1, 3) AS g")
        await any_database.execute(f"ALTER TABLE t {statement}")
        await writer.execute("INSERT INTO t (id, b) SELECT g, g FROM generate_series(4, 6) AS g")
        await any_database.execute("INSERT INTO t (id, b) VALUES (7, 7)")
        found = await watched.data()
    assert [(data["action"], data["key"]["id"], data["after"]["b"]) for data in found] == [
        ("insert", key, key) for key in range(1, 8)
    ]


DECLARED = {
    **{name: name for name in ("int2", "int4", "int8", "oid", "bool", "name", "uuid", "json", "jsonb", "date", "time")},
    **{name: name for name in ("inet", "cidr", "macaddr", "macaddr8", "bytea", "float4", "float8", "money", "tid")},
    "numeric": "numeric(5,2)",
    "text": 'text COLLATE "C"',
    "varchar": "varchar(3)",
    "bpchar": "char(3)",
    "char": '"char"',
    "timestamp": "timestamp(3)",
    "timestamptz": "timestamptz(3)",
    "timetz": "timetz(1)",
    "interval": "interval(2)",
}
OTHERS = {"positive": "int4", "several": "", "mood": "", "several_int4": "", "moods": ""}


async def test_types_are_compared_once_and_not_by_each_statement(any_database: Database) -> None:
    """Lengths and collations do not count, nor that a domain takes less; nothing raises, and nothing is left to run."""
    await any_database.execute(
        "CREATE DOMAIN positive AS int NOT NULL CHECK (VALUE > 0); CREATE DOMAIN several AS int[] NOT NULL;"
        " CREATE TYPE mood AS ENUM ('so'); CREATE DOMAIN moods AS mood NOT NULL"
    )
    columns = [f'"c_{name}" {declared}' for name, declared in DECLARED.items()]
    columns += [f'"c_{name}" {"int4[]" if name == "several_int4" else name}' for name in OTHERS]
    await any_database.execute(f"CREATE TABLE t ({', '.join(columns)})")
    for name in (*DECLARED, *OTHERS):
        tests = [
            as_they_were("t", [Column(f"c_{name}", known, -1, type_name=f'pg_catalog."{known}"')]) for known in DECLARED
        ]
        plan = await any_database.execute(f"EXPLAIN (VERBOSE, COSTS off) SELECT {', '.join(tests)} FROM t")
        found = dict(zip(DECLARED, plan[1][0].strip().removeprefix("Output: ").split(", "), strict=True))
        is_of = OTHERS.get(name, name)
        assert found == {known: "true" if known == is_of else "false" for known in DECLARED}


@pytest.mark.parametrize("column", ["id", "other"])
async def test_a_column_is_given_the_name_of_our_alias(column: str, any_database: Database) -> None:
    """Rows that are formatted one by one need the whole row: that of the table, whatever its columns are called."""
    await any_database.execute("CREATE TABLE t (id text PRIMARY KEY, n text, other text)")
    watched = await watch(any_database.dsn, spec_of(columns=("n",), capture=STATEMENT))
    async with watched.reader:
        await any_database.execute(f"ALTER TABLE t RENAME {column} TO tablewatcher_row")
        await any_database.execute("INSERT INTO t VALUES ('1', 'a', 'o'), (repeat('k', 2000), 'b', 'o')")
        found = [(data["key"].get("id", " ")[0], data["after"]["n"]) for data in await watched.data()]
    assert found == ([(" ", "a"), (" ", "b")] if column == "id" else [("1", "a"), ("k", "b")])


async def test_values_that_are_long(any_database: Database) -> None:
    await any_database.execute(
        "CREATE TABLE t (id text PRIMARY KEY, n text); ALTER TABLE t ALTER n SET STORAGE EXTERNAL"
    )
    watched = await watch(
        any_database.dsn, spec_of(columns=("n",), actions=frozenset([Action.INSERT]), capture=STATEMENT)
    )
    async with watched.reader:
        await any_database.execute(
            "INSERT INTO t SELECT CASE g WHEN 2 THEN repeat('k', 2000) ELSE g::text END,"
            " repeat('x', CASE g WHEN 3 THEN 250000 WHEN 4 THEN 300000 ELSE 3 END) FROM generate_series(1, 5) AS g"
        )
        found = {data["key"]["id"]: data for data in await watched.data()}
    assert len(found) == 5
    assert {key: len(data["after"]["n"]) for key, data in found.items() if "after" in data} == {
        "1": 3,
        "k" * 2000: 3,
        "3": 250_000,
        "5": 3,
    }
    assert found["4"]["truncated"] is True


ORDERS = (
    "CREATE TABLE t (id int PRIMARY KEY, n text); CREATE TABLE item (t int);"
    " CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS"
    " 'BEGIN UPDATE t SET n = ''changed'' WHERE id = NEW.t; RETURN NULL; END';"
    " CREATE TRIGGER theirs AFTER INSERT ON item FOR EACH ROW EXECUTE FUNCTION f()"
)


async def test_what_another_tables_trigger_does_to_a_new_row_comes_after_it(any_database: Database) -> None:
    """A statement on both tables: its row triggers fire before its statement triggers."""
    await any_database.execute(ORDERS)
    asked = spec_of(columns=("n",), capture=STATEMENT)
    with pytest.raises(DatabaseError, match=r"table public\.item has the trigger theirs"):
        await apply(any_database.dsn, asked, names_of(asked))
    watched = await watch(any_database.dsn, spec_of(columns=("n",)))
    async with watched.reader:
        await any_database.execute(
            "WITH made AS (INSERT INTO t VALUES (1, 'new') RETURNING id) INSERT INTO item SELECT id FROM made"
        )
        found = [(data["action"], data["after"]["n"]) for data in await watched.data()]
    assert found == [("insert", "new"), ("update", "changed")]


OF_STATEMENTS = {
    "of inserts, named first": ('"00_first" AFTER INSERT', "INSERT INTO t VALUES (1, 'a'), (2, 'a')", False),
    "of inserts, named later": ('"01_later" AFTER INSERT', "INSERT INTO t VALUES (1, 'a'), (2, 'a')", True),
    "of updates": (
        "later AFTER INSERT OR UPDATE",
        "INSERT INTO t VALUES (0, 'b'), (1, 'a') ON CONFLICT (id) DO UPDATE SET n = excluded.n",
        False,
    ),
    "of deletions": (
        "later AFTER DELETE",
        "WITH gone AS (DELETE FROM t RETURNING id) INSERT INTO t SELECT id + 1, 'a' FROM gone",
        False,
    ),
}


@pytest.mark.parametrize("name", OF_STATEMENTS)
async def test_what_a_trigger_for_statements_does_to_new_rows_comes_after_them(
    name: str, any_database: Database
) -> None:
    trigger, statement, is_exact = OF_STATEMENTS[name]
    await any_database.execute(
        "CREATE TABLE t (id int PRIMARY KEY, n text); INSERT INTO t VALUES (0, 'a');"
        " CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        "   IF pg_trigger_depth() = 1 THEN UPDATE t SET n = 'changed'; END IF; RETURN NULL; END $$;"
        f" CREATE TRIGGER {trigger} ON t FOR EACH STATEMENT EXECUTE FUNCTION f()"
    )
    if not is_exact:
        asked = spec_of(columns=("n",), capture=STATEMENT)
        with pytest.raises(DatabaseError, match="for statements, which may fire before ours"):
            await apply(any_database.dsn, asked, names_of(asked))
    watched = await watch(any_database.dsn, spec_of(columns=("n",)))
    async with watched.reader:
        assert await levels(any_database) == {"statement" if is_exact else "row"}
        await any_database.execute(statement)
        assert [event.op for event in await watched.events() if event.key == "1"] == ["i", "u"]
