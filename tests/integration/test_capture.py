"""What a change becomes: exact expected events, on both ends of the supported versions."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from psycopg import sql

from tablewatcher.embedded import EmbeddedPostgres
from tablewatcher.errors import DatabaseError, Reason
from tablewatcher.naming import key_token
from tablewatcher.postgres.install.apply import apply
from tablewatcher.spec.model import Action, Capture, Granularity

from ..conftest import POSTGRES_SETTINGS, Database, fresh_database
from ..versions import EVERY, OLDEST
from .capturing import Watched, names_of, spec_of, watch

Watch = Callable[..., Awaitable[Watched]]
STAR = ("*",)


@pytest.fixture(scope="module", params=EVERY)
def one_database(request: pytest.FixtureRequest) -> Iterator[Database]:
    yield from fresh_database(request.getfixturevalue(request.param))


@pytest.fixture
async def database(one_database: Database) -> AsyncIterator[Database]:
    """One database for all tests of a version, emptied after each: making one takes longer than most tests."""
    yield one_database
    schemas = await one_database.execute(
        "SELECT format('%I', nspname) FROM pg_namespace WHERE nspname !~ '^pg_' AND nspname <> 'information_schema'"
    )
    dropped = ", ".join(name for (name,) in schemas)
    await one_database.execute(f"DROP SCHEMA {dropped} CASCADE; CREATE SCHEMA public")


@pytest.fixture
async def watching(database: Database) -> AsyncIterator[Watch]:
    """`await watching(table, **fields of the spec)`: applied, and its ring open."""
    async with AsyncExitStack() as stack:

        async def start(table: str = "t", **fields: Any) -> Watched:
            watched = await watch(database.dsn, spec_of(table, **fields))
            stack.push_async_callback(watched.reader.close)
            return watched

        yield start


@dataclass(frozen=True)
class Case:
    """Fields of the spec, statements on `t (id, status, total, note)` after its row 1, and the events they make."""

    statements: str
    expected: list[dict[str, Any]]
    columns: tuple[str, ...] = ()
    trigger_columns: tuple[str, ...] = ()
    include_before: bool = False
    actions: tuple[str, ...] = ("insert", "update", "delete")


def ev(action: str, key: object, **rest: Any) -> dict[str, Any]:
    return {"action": action, "key": {"id": key}, **rest}


ONE = {"id": 1, "status": "new", "total": 10.5, "note": None}
# With a row for each total of `t`.
PARENT = (
    "CREATE TABLE parent (total numeric PRIMARY KEY); INSERT INTO parent SELECT DISTINCT total FROM t;"
    " ALTER TABLE t ADD FOREIGN KEY (total) REFERENCES parent"
)
CASES = {
    "key only: insert": Case("INSERT INTO t VALUES (2, 'a', 1, 'x')", [ev("insert", 2, after={"id": 2})]),
    "key only: update": Case("UPDATE t SET total = 2", [ev("update", 1, after={"id": 1}, changed=[])]),
    "key only: delete": Case("DELETE FROM t", [ev("delete", 1, before={"id": 1})]),
    "chosen columns": Case(
        "UPDATE t SET status = 'paid', note = 'n'; DELETE FROM t",
        [
            ev("update", 1, after={"id": 1, "status": "paid"}, changed=["status"]),
            ev("delete", 1, before={"id": 1}),
        ],
        columns=("status",),
    ),
    "whole row": Case(
        "UPDATE t SET note = 'n'; DELETE FROM t",
        [
            ev("update", 1, after={**ONE, "note": "n"}, before=ONE, changed=["note"]),
            ev("delete", 1, before={**ONE, "note": "n"}),
        ],
        columns=STAR,
        include_before=True,
    ),
    "before of chosen columns": Case(
        "UPDATE t SET status = 'paid'; DELETE FROM t",
        [
            ev(
                "update",
                1,
                after={"id": 1, "status": "paid"},
                before={"id": 1, "status": "new"},
                changed=["status"],
            ),
            ev("delete", 1, before={"id": 1, "status": "paid"}),
        ],
        columns=("status",),
        include_before=True,
    ),
    "trigger columns: by real change": Case(
        "UPDATE t SET note = 'n'; UPDATE t SET status = status; UPDATE t SET status = 'paid'",
        [ev("update", 1, after={"id": 1}, changed=[])],
        trigger_columns=("status",),
    ),
    "no-op update": Case("UPDATE t SET status = status; UPDATE t SET total = 10.5", []),
    "null to value and back": Case(
        "UPDATE t SET note = ''; UPDATE t SET note = NULL",
        [
            ev("update", 1, after={"id": 1, "note": ""}, changed=["note"]),
            ev("update", 1, after={"id": 1, "note": None}, changed=["note"]),
        ],
        columns=("note",),
    ),
    "a key deleted and inserted by one merge": Case(
        "MERGE INTO t USING (VALUES (1, 1), (5, 1)) AS s (id, key) ON t.id = s.id"
        " WHEN MATCHED THEN DELETE WHEN NOT MATCHED THEN INSERT (id) VALUES (s.key)",
        [ev("delete", 1, before={"id": 1}), ev("insert", 1, after={"id": 1})],
    ),
    "many rows of one statement": Case(
        "INSERT INTO t (id, status) SELECT g, CASE g WHEN 3 THEN repeat(U&'\\2603', 90000) END"
        " FROM generate_series(2, 4) AS g",
        [
            ev("insert", 2, after={"id": 2, "status": None}),
            ev("insert", 3, truncated=True),
            ev("insert", 4, after={"id": 4, "status": None}),
        ],
        columns=("status",),
    ),
    "no row": Case("INSERT INTO t SELECT * FROM t WHERE false; UPDATE t SET id = 9 WHERE false", []),
    "key change": Case(
        "UPDATE t SET id = 7",
        [ev("update", 7, after={"id": 7}, before={"id": 1}, changed=["id"])],
    ),
    "only the watched actions": Case(
        "INSERT INTO t VALUES (2); UPDATE t SET note = 'n' WHERE id = 1; DELETE FROM t WHERE id = 2",
        [ev("delete", 2, before={"id": 2})],
        actions=("delete",),
    ),
    "insert, update and delete in one transaction": Case(
        "BEGIN; INSERT INTO t VALUES (2); UPDATE t SET note = 'n' WHERE id = 2; DELETE FROM t WHERE id = 2; COMMIT",
        [
            ev("insert", 2, after={"id": 2}),
            ev("update", 2, after={"id": 2}, changed=[]),
            ev("delete", 2, before={"id": 2}),
        ],
    ),
    "rollback": Case("BEGIN; INSERT INTO t VALUES (2); ROLLBACK", []),
    "savepoint": Case(
        "BEGIN; SAVEPOINT a; INSERT INTO t VALUES (2); ROLLBACK TO a; INSERT INTO t VALUES (3); RELEASE a; COMMIT",
        [ev("insert", 3, after={"id": 3})],
    ),
    "on conflict": Case(
        "INSERT INTO t VALUES (1, 'x'), (2, 'y') ON CONFLICT (id) DO UPDATE SET status = excluded.status;"
        " INSERT INTO t VALUES (1) ON CONFLICT DO NOTHING",
        [
            ev("update", 1, after={"id": 1, "status": "x"}, changed=["status"]),
            ev("insert", 2, after={"id": 2, "status": "y"}),
        ],
        columns=("status",),
    ),
    "merge": Case(
        "MERGE INTO t USING (VALUES (1, 'x'), (2, 'y')) AS s (id, status) ON t.id = s.id"
        " WHEN MATCHED THEN DELETE WHEN NOT MATCHED THEN INSERT (id, status) VALUES (s.id, s.status)",
        [ev("delete", 1, before={"id": 1}), ev("insert", 2, after={"id": 2})],
    ),
    "merge that updates, deletes and inserts": Case(
        "INSERT INTO t VALUES (2, 'old', 2), (3, 'old', 3);"
        " MERGE INTO t USING (VALUES (1, 'x'), (2, 'gone'), (3, 'old'), (4, 'y')) AS s (id, status) ON t.id = s.id"
        " WHEN MATCHED AND s.status = 'gone' THEN DELETE WHEN MATCHED THEN UPDATE SET status = s.status"
        " WHEN NOT MATCHED THEN INSERT (id, status) VALUES (s.id, s.status)",
        [
            ev("delete", 2, before={"id": 2, "status": "old"}),
            ev("insert", 2, after={"id": 2, "status": "old"}),
            ev("insert", 3, after={"id": 3, "status": "old"}),
            ev("insert", 4, after={"id": 4, "status": "y"}),
            ev(
                "update",
                1,
                after={"id": 1, "status": "x"},
                before={"id": 1, "status": "new"},
                changed=["status"],
            ),
        ],
        columns=("status",),
        include_before=True,
    ),
    "foreign key: on update cascade, on delete set null": Case(
        f"{PARENT} ON UPDATE CASCADE ON DELETE SET NULL; UPDATE parent SET total = 10.50; UPDATE parent SET total = 7;"
        " DELETE FROM parent",
        [
            ev("update", 1, after={"id": 1, "total": 10.5}, changed=["total"]),
            ev("update", 1, after={"id": 1, "total": 7}, changed=["total"]),
            ev("update", 1, after={"id": 1, "total": None}, changed=["total"]),
        ],
        columns=("total",),
    ),
    "foreign key: on delete set default, and cascade": Case(
        "INSERT INTO t VALUES (2, 'a', 0);"
        f" ALTER TABLE t ALTER total SET DEFAULT 0; {PARENT} ON DELETE SET DEFAULT; DELETE FROM parent WHERE total > 0;"
        " ALTER TABLE t DROP CONSTRAINT t_total_fkey, ADD FOREIGN KEY (total) REFERENCES parent ON DELETE CASCADE;"
        " DELETE FROM parent",
        [
            ev("delete", 1, before={"id": 1}),
            ev("delete", 2, before={"id": 2}),
            ev("insert", 2, after={"id": 2, "total": 0}),
            ev("update", 1, after={"id": 1, "total": 0}, changed=["total"]),
        ],
        columns=("total",),
    ),
    "the key itself follows its parent": Case(
        "CREATE TABLE parent (id int PRIMARY KEY); INSERT INTO parent VALUES (1);"
        " ALTER TABLE t ADD FOREIGN KEY (id) REFERENCES parent ON UPDATE CASCADE; UPDATE parent SET id = 7",
        [ev("update", 7, after={"id": 7}, before={"id": 1}, changed=["id"])],
    ),
    "truncate of a parent, cascading": Case(
        f"{PARENT}; TRUNCATE parent CASCADE; INSERT INTO t VALUES (2)",
        [{"action": "truncate"}, ev("insert", 2, after={"id": 2})],
        actions=("insert", "truncate"),
    ),
    "truncate that cascades to a child": Case(
        "CREATE TABLE child (id int REFERENCES t); INSERT INTO child VALUES (1); TRUNCATE t CASCADE",
        [{"action": "truncate"}],
        actions=("insert", "truncate"),
    ),
    "writable cte": Case(
        "WITH gone AS (DELETE FROM t RETURNING id) INSERT INTO t SELECT id + 1 FROM gone",
        [ev("delete", 1, before={"id": 1}), ev("insert", 2, after={"id": 2})],
    ),
    "row locks change nothing": Case("SELECT * FROM t FOR UPDATE", []),
}


@pytest.mark.parametrize("granularity", [Granularity.AUTO, Granularity.ROW])
@pytest.mark.parametrize(
    "name", [name for name, case in CASES.items() if OLDEST >= 15 or "MERGE" not in case.statements]
)
async def test_exact_events(name: str, granularity: Granularity, database: Database, watching: Watch) -> None:
    case = CASES[name]
    await database.execute(
        "CREATE TABLE t (id int PRIMARY KEY, status text, total numeric, note text);"
        " INSERT INTO t VALUES (1, 'new', 10.5, NULL)"
    )
    watched = await watching(
        columns=case.columns,
        trigger_columns=case.trigger_columns,
        include_before=case.include_before,
        actions=frozenset(map(Action, case.actions)),
        capture=Capture(granularity=granularity),
    )
    await database.execute(case.statements)
    found = await watched.data()
    if name in {
        "merge",
        "merge that updates, deletes and inserts",
        "foreign key: on delete set default, and cascade",
        "writable cte",
        "many rows of one statement",
    }:  # rows of one statement have no order of their own
        found.sort(key=lambda data: (data["action"], data["key"]["id"]))
    assert found == case.expected


NAMES = [
    'Say "hi"',
    "O'Reilly",
    "%s %(x)s",
    "back\\slash",
    "{brace} {{}}",
    "$$ $1 $body$",
    "snöw ☃ 😀",
    "n" * 63,
    "Ord er",
    "body",
]


@pytest.mark.parametrize("name", NAMES)
async def test_hostile_identifiers(name: str, database: Database, watching: Watch) -> None:
    quoted = sql.Identifier(name).as_string(None)
    await database.execute(
        f"CREATE SCHEMA {quoted}; CREATE TABLE {quoted}.{quoted}"
        f" (id int, {quoted} text, other int, PRIMARY KEY ({quoted}, id))"
    )
    watched = await watching(name, schema=name, columns=(name, "other"), trigger_columns=(name, "other"))
    await database.execute(
        f"INSERT INTO {quoted}.{quoted} VALUES (1, 'v', 1); UPDATE {quoted}.{quoted} SET other = 2;"
        f" UPDATE {quoted}.{quoted} SET {quoted} = 'w'; DELETE FROM {quoted}.{quoted}"
    )
    events = await watched.events()
    assert [(event.op, event.key, event.old_key) for event in events] == [
        ("i", "v,1", None),
        ("u", "v,1", None),
        ("u", "w,1", "v,1"),
        ("d", "w,1", None),
    ]
    data = [json.loads(event.body)["data"] for event in events]
    assert [item["key"] for item in data] == [{name: key, "id": 1} for key in "vvww"]
    assert data[2]["before"] == {name: "v", "id": 1}
    assert data[2]["changed"] == [name]
    assert (data[0]["source"]["schema"], data[0]["source"]["table"]) == (name, name)
    # Applying again finds all as it should be, names and all.
    assert not (await apply(database.dsn, watched.spec, watched.names)).plan


async def test_an_id_is_made_of_the_watcher_the_row_of_the_ring_and_the_microsecond(
    database: Database, watching: Watch
) -> None:
    """Of two watchers that write the same row of their rings at the same moment, a stream keeps both events."""
    await database.execute("CREATE TABLE t (id int PRIMARY KEY)")
    both = [await watching(name=name) for name in ("one", "other")]
    await database.execute("INSERT INTO t VALUES (1)")
    for watched in both:
        ring = f"tablewatcher.{watched.names.rings[0]}"
        await database.execute(f"UPDATE {ring} SET at = '2026-01-31T12:00:00.123456Z'")
        ((event,),) = [await watched.events()]
        micros = 1_769_860_800_123_456
        made_of = f"{watched.names.identity}:{event.ring_id}:{micros}"
        assert event.event_id == hashlib.sha256(made_of.encode()).hexdigest()[:32]
        assert json.loads(event.body)["id"] == event.event_id
    assert both[0].names.identity != both[1].names.identity


async def test_composite_key_in_primary_key_order(database: Database, watching: Watch) -> None:
    await database.execute("CREATE TABLE t (a int, b text, c uuid, PRIMARY KEY (c, a))")
    watched = await watching()
    uuid = "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"
    await database.execute(f"INSERT INTO t VALUES (5, 'x', '{uuid}')")
    (event,) = await watched.events()
    assert event.key == f"{uuid},5"
    assert list(json.loads(event.body)["data"]["key"]) == ["c", "a"]


async def test_a_key_of_as_many_columns_as_an_index_has(database: Database, watching: Watch) -> None:
    names = [f"k{nth}" for nth in range(32)]
    declared = ", ".join(f"{name} text" for name in names)
    await database.execute(f"CREATE TABLE t ({declared}, n int, PRIMARY KEY ({', '.join(names)}))")
    watched = await watching(columns=("n",))
    values = ", ".join(f"'é,{nth}'" for nth in range(32))
    await database.execute(f"INSERT INTO t VALUES ({values}, 1); UPDATE t SET n = 2; UPDATE t SET k31 = 'z'")
    await database.execute(
        f"INSERT INTO t SELECT {', '.join('g::text' for _ in names)}, 1 FROM generate_series(1, 99) g"
    )
    inserted, updated, moved, *many = await watched.events()
    assert inserted.key == updated.key == moved.old_key == key_token(tuple(f"é,{nth}" for nth in range(32)))
    assert [event.key for event in many] == [key_token((str(nth),) * 32) for nth in range(1, 100)]


@pytest.mark.parametrize("key", ["", ", PRIMARY KEY (id) DEFERRABLE"])
async def test_no_immediate_key_means_the_whole_row(key: str, database: Database, watching: Watch) -> None:
    await database.execute(f"CREATE TABLE t (id int, j json, n text{key})")
    watched = await watching()
    await database.execute("INSERT INTO t VALUES (1, '{\"a\": 1}', NULL); UPDATE t SET n = 'é'; DELETE FROM t")
    events = await watched.events()
    token = key_token(("1", '{"a": 1}', None))
    assert [(event.key, event.old_key) for event in events] == [
        (token, None),
        (key_token(("1", '{"a": 1}', "é")), token),
        (key_token(("1", '{"a": 1}', "é")), None),
    ]


TYPES = {
    "numeric": ("numeric", "'12345678901234567890.12300'", "12345678901234567890.12300"),
    "numeric nan": ("numeric", "'NaN'", '"NaN"'),
    "numeric infinity": ("numeric", "'-Infinity'", '"-Infinity"'),
    "float8": ("float8", "0.1::float8 + 0.2", "0.30000000000000004"),
    "float4 nan": ("float4", "'NaN'", '"NaN"'),
    "float8 infinity": ("float8", "'Infinity'", '"Infinity"'),
    "bigint": ("bigint", "9223372036854775807", "9223372036854775807"),
    "bool": ("boolean", "true", "true"),
    "text": ("text", "E'q\"\\\\ \\n\\t\\x01 ☃'", '"q\\"\\\\ \\n\\t\\u0001 ☃"'),
    "timestamptz": ("timestamptz", "'2024-02-03 04:05:06.789+00'", '"2024-02-03T04:05:06.789+00:00"'),
    "timestamptz infinity": ("timestamptz", "'infinity'", '"infinity"'),
    "timestamp": ("timestamp", "'2024-02-03 04:05:06'::timestamp", '"2024-02-03T04:05:06"'),
    "date": ("date", "DATE '0044-03-15 BC'", '"0044-03-15 BC"'),
    "interval": ("interval", "make_interval(days => 1, hours => -2)", '"1 day -02:00:00"'),
    "bytea": ("bytea", "decode('00ff', 'hex')", '"\\\\x00ff"'),
    "json u0000": ("json", '\'{"a": "\\u0000"}\'', '{"a": "\\u0000"}'),
    "json lone surrogate": ("json", "'\"\\ud800\"'", '"\\ud800"'),
    "json huge number": ("json", "'[1e1000000]'", "[1e1000000]"),
    "jsonb": ("jsonb", '\'{"b": 1, "a": null}\'', '{"a": null, "b": 1}'),
    "point": ("point", "point(1, 2)", '"(1,2)"'),
    "array": ("int[]", "ARRAY[[1, NULL]]", "[[1,null]]"),
    "timestamptz array": ("timestamptz[]", "ARRAY['epoch'::timestamptz]", '["1970-01-01T00:00:00+00:00"]'),
    "enum": ("mood", "'so ☃'", '"so ☃"'),
    "domain": ("posint", "3", "3"),
    "composite": ("pair", "ROW(1, 'x')::pair", '{"a":1,"b":"x"}'),
    "range": ("int4range", "int4range(1, 5)", '"[1,5)"'),
    "tstzrange": ("tstzrange", "tstzrange('epoch', NULL)", '"[\\"1970-01-01 00:00:00+00\\",)"'),
    "inet": ("inet", "inet '10.0.0.1/8'", '"10.0.0.1/8"'),
    "char": ("char(4)", "'ab'", '"ab  "'),
    "money": ("money", "1.5::numeric::money", '"$1.50"'),
    "uuid": ("uuid", "'A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11'", '"a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"'),
    "smallint": ("smallint", "'-32768'", "-32768"),
    "time": ("time", "'24:00:00'", '"24:00:00"'),
    "timetz": ("timetz", "'04:05:06.7-08:30'", '"04:05:06.7-08:30"'),
    "bit": ("bit(3)", "B'101'", '"101"'),
    "varbit": ("bit varying", "B'0011'", '"0011"'),
    "macaddr": ("macaddr", "'08-00-2B-01-02-03'", '"08:00:2b:01:02:03"'),
    "macaddr8": ("macaddr8", "'08:00:2b:01:02:03:04:05'", '"08:00:2b:01:02:03:04:05"'),
    "cidr": ("cidr", "'10.0.0.0/8'", '"10.0.0.0/8"'),
    "tsvector": ("tsvector", "to_tsvector('simple', 'a cat''s \"b\"')", "\"'a':1 'b':4 'cat':2 's':3\""),
    "tsquery": ("tsquery", "'fat & (rat | !cat)'", "\"'fat' & ( 'rat' | !'cat' )\""),
    "multirange": ("int4multirange", "'{[1,3),[5,7)}'", '"{[1,3),[5,7)}"'),
    "jsonpath": ("jsonpath", "'$.a[*] ? (@ > 1)'", '"$.\\"a\\"[*]?(@ > 1)"'),
    "pg_lsn": ("pg_lsn", "'16/B374D848'", '"16/B374D848"'),
    "xid8": ("xid8", "'42'", '"42"'),
    "line": ("line", "'{1,-1,0.1}'", '"{1,-1,0.1}"'),
    "lseg": ("lseg", "'[(0,0),(1,0.1)]'", '"[(0,0),(1,0.1)]"'),
    "box": ("box", "'(0,0),(1,0.1)'", '"(1,0.1),(0,0)"'),
    "path": ("path", "'[(0,0),(1,0.1)]'", '"[(0,0),(1,0.1)]"'),
    "polygon": ("polygon", "'((0,0),(1,0.1),(2,0))'", '"((0,0),(1,0.1),(2,0))"'),
    "circle": ("circle", "'<(0,0),0.1>'", '"<(0,0),0.1>"'),
    "integer": ("integer", "-2147483648", "-2147483648"),
    "varchar": ("varchar(9)", "'ab '", '"ab "'),
    "name": ("name", "'Ab'", '"Ab"'),
    "internal char": ('"char"', "'x'", '"x"'),
    "oid": ("oid", "4294967295", '"4294967295"'),
    "tid": ("tid", "'(3,4)'", '"(3,4)"'),
    "xid": ("xid", "'42'", '"42"'),
    "cid": ("cid", "'42'", '"42"'),
    "regclass": ("regclass", "'pg_catalog.pg_class'::regclass", '"pg_class"'),
    "regproc": ("regproc", "'pg_catalog.now'::regproc", '"now"'),
    "regprocedure": ("regprocedure", "'pg_catalog.now()'::regprocedure", '"now()"'),
    "regoper": ("regoper", "'pg_catalog.|/'::regoper", '"|/"'),
    "regoperator": ("regoperator", "'pg_catalog.+(int4,int4)'::regoperator", '"+(integer,integer)"'),
    "regtype": ("regtype", "'pg_catalog.int4'::regtype", '"integer"'),
    "regconfig": ("regconfig", "'pg_catalog.simple'::regconfig", '"simple"'),
    "regdictionary": ("regdictionary", "'pg_catalog.simple'::regdictionary", '"simple"'),
    "regnamespace": ("regnamespace", "'public'::regnamespace", '"public"'),
    "regrole": ("regrole", "'pg_monitor'::regrole", '"pg_monitor"'),
    "regcollation": ("regcollation", "'pg_catalog.\"C\"'::regcollation", '"\\"C\\""'),
    "aclitem": ("aclitem", "'pg_monitor=r/pg_monitor'", '"pg_monitor=r/pg_monitor"'),
    "refcursor": ("refcursor", "'c'", '"c"'),
    "txid_snapshot": ("txid_snapshot", "'10:20:10,14'", '"10:20:10,14"'),
    "pg_snapshot": ("pg_snapshot", "'10:20:10,14'", '"10:20:10,14"'),
    "numrange": ("numrange", "numrange(1.50, 2)", '"[1.50,2)"'),
    "tsrange": ("tsrange", "tsrange('epoch', NULL)", '"[\\"1970-01-01 00:00:00\\",)"'),
    "daterange": ("daterange", "daterange('epoch', NULL)", '"[1970-01-01,)"'),
    "int8range": ("int8range", "int8range(1, 5)", '"[1,5)"'),
    "nummultirange": ("nummultirange", "'{[1.5,2)}'", '"{[1.5,2)}"'),
    "tsmultirange": ("tsmultirange", "'{(,infinity)}'", '"{(,infinity)}"'),
    "tstzmultirange": ("tstzmultirange", "'{(,infinity)}'", '"{(,infinity)}"'),
    "datemultirange": ("datemultirange", "'{(,infinity)}'", '"{(,infinity)}"'),
    "int8multirange": ("int8multirange", "'{[1,3)}'", '"{[1,3)}"'),
    "array of a composite": ("pair[]", "ARRAY[ROW(1, 'x')::pair, NULL]", '[{"a":1,"b":"x"},null]'),
    "generated": ("int GENERATED ALWAYS AS (id * 2) STORED", "DEFAULT", "2"),
}
# What PostgreSQL keeps for itself and lets nobody put a value into; and xml, which these servers are built without.
OWN_TYPES = (
    "pg_node_tree",
    "pg_ndistinct",
    "pg_dependencies",
    "pg_mcv_list",
    "pg_brin_bloom_summary",
    "pg_brin_minmax_multi_summary",
    "gtsvector",
    "xml",
)
LEFT_OUT = """
SELECT typname FROM pg_type
WHERE typnamespace = 'pg_catalog'::regnamespace AND typtype IN ('b', 'r', 'm') AND typcategory <> 'A'
  AND typname <> ALL (%s) AND oid NOT IN (SELECT atttypid FROM pg_attribute WHERE attrelid = 't'::regclass)
"""
ODD_SESSION = (
    "SET TimeZone = 'Asia/Kathmandu'; SET DateStyle = 'SQL, DMY'; SET extra_float_digits = -15;"
    " SET bytea_output = 'escape';"
    " SET IntervalStyle = 'iso_8601'; SET standard_conforming_strings = on; SET search_path = pg_temp;"
)


@pytest.mark.parametrize("whole_row", [True, False], ids=["whole row", "columns"])
async def test_every_type_in_an_odd_session(whole_row: bool, database: Database, watching: Watch) -> None:
    """A column of each: a value travels as the same text whatever the writer's session is set to."""
    types = dict(TYPES)
    if database.server.version < 14:
        types = {name: case for name, case in types.items() if name != "numeric infinity" and "multi" not in name}
    columns = [f"v{number}" for number in range(len(types))]
    declared = ", ".join(
        f"{column} {declared}" for column, (declared, _, _) in zip(columns, types.values(), strict=True)
    )
    await database.execute(
        "CREATE TYPE mood AS ENUM ('so ☃'); CREATE DOMAIN posint AS int CHECK (VALUE > 0);"
        f" CREATE TYPE pair AS (a int, b text); CREATE TABLE t (id int PRIMARY KEY, {declared})"
    )
    watched = await watching(columns=STAR if whole_row else tuple(columns))
    assert await database.execute(LEFT_OUT, list(OWN_TYPES)) == []
    values = ", ".join(value for _, value, _ in types.values()).replace("::pair", "::public.pair")
    await database.execute(f"SET escape_string_warning = off; {ODD_SESSION} INSERT INTO public.t VALUES (1, {values})")
    (event,) = await watched.events()
    body = event.body.decode()
    told = [f'"{column}":{expected}' for column, (_, _, expected) in zip(columns, types.values(), strict=True)]
    assert [name for name, each in zip(types, told, strict=True) if each not in body] == []
    assert f'"after":{{"id":1,{",".join(told)}}}' in body
    assert not (await apply(database.dsn, watched.spec, watched.names)).plan


@pytest.mark.parametrize("declared", ["date", "timestamptz", "timestamp", "bytea", "float8", "interval", "money"])
async def test_key_text_is_the_same_from_every_session(declared: str, database: Database, watching: Watch) -> None:
    """Otherwise one row's changes would run in several lanes, past each other."""
    value = {"bytea": r"'\x00ff'", "float8": "0.1", "interval": "'26:00:00'", "money": "1"}.get(
        declared, "'2024-02-03'"
    )
    await database.execute(f"SET TimeZone = 'UTC'; CREATE TABLE t (id {declared} PRIMARY KEY, n int)")
    watched = await watching()
    await database.execute(f"SET TimeZone = 'UTC'; INSERT INTO t VALUES ({value}, 1)")
    await database.execute(f"{ODD_SESSION} UPDATE public.t SET n = 2")
    inserted, updated = await watched.events()
    assert inserted.key == updated.key


async def test_virtual_generated_column_is_refused(postgres18: EmbeddedPostgres) -> None:
    for database in fresh_database(postgres18):
        await database.execute("CREATE TABLE t (id int PRIMARY KEY, v int GENERATED ALWAYS AS (id * 2) VIRTUAL)")
        spec = spec_of(columns=("v",))
        with pytest.raises(DatabaseError, match="virtual generated column") as refused:
            await apply(database.dsn, spec, names_of(spec))
        assert refused.value.reason is Reason.COLUMN_NOT_FOUND
        watched = await watch(database.dsn, spec_of(columns=STAR))
        async with watched.reader:
            await database.execute("INSERT INTO t VALUES (1)")
            assert (await watched.data())[0]["after"] == {"id": 1}
        await database.execute("CREATE TABLE u (v int GENERATED ALWAYS AS (1) VIRTUAL)")
        spec = spec_of("u", name="nothing")
        with pytest.raises(DatabaseError, match="has no stored columns"):
            await apply(database.dsn, spec, names_of(spec))


async def test_large_rows_and_keys(database: Database, watching: Watch) -> None:
    await database.execute("CREATE TABLE t (id text PRIMARY KEY, v text)")
    watched = await watching(columns=("v",))
    long = "k" * 1025
    await database.execute(
        f"INSERT INTO t VALUES ('a', repeat('x', 262144)), ('b', repeat('x', 200000)), ('{long}', '')"
    )
    await database.execute(f"UPDATE t SET id = 'short' WHERE id = '{long}'")
    events = await watched.events()
    data = [json.loads(event.body)["data"] for event in events]
    assert data[0]["key"] == {"id": "a"}
    assert data[0]["truncated"] is True
    assert "after" not in data[0]
    assert data[1]["after"]["v"] == "x" * 200000
    hashed = hashlib.sha256(json.dumps([long]).encode()).hexdigest()
    assert (events[2].key, data[2]["key"]) == (hashed, {"id": long})
    assert (events[3].key, events[3].old_key) == ("short", hashed)


CONTEXTS = {
    "unset": ("", None),
    "json": ('{"user": 7}', {"user": 7}),
    "text": ("not json", "not json"),
    "nul": ('"\\u0000"', "\x00"),
    "deep": ("[" * 9000 + "]" * 9000, {"truncated": True}),
    "long": ("é" * 9000, {"truncated": True}),
    "at the bound": ("x" * 16_382, "x" * 16_382),
    "past it": ("x" * 16_383, {"truncated": True}),
}


@pytest.mark.parametrize(("given", "expected"), CONTEXTS.values(), ids=CONTEXTS)
async def test_transaction_context(given: str, expected: object, database: Database, watching: Watch) -> None:
    await database.execute("CREATE TABLE t (id int PRIMARY KEY)")
    watched = await watching()
    async with await database.connect() as connection, connection.transaction():
        await connection.execute("SELECT set_config('tablewatcher.context', %s, true)", [given])
        await connection.execute("INSERT INTO t VALUES (1)")
    (data,) = await watched.data()
    assert data.get("context") == expected


TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.mark.parametrize(("given", "expected"), [(TRACE, TRACE), ("", None), ("a\r\nX-Evil: 1", None), ("é", None)])
async def test_traceparent(given: str, expected: str | None, database: Database, watching: Watch) -> None:
    await database.execute("CREATE TABLE t (id int PRIMARY KEY)")
    watched = await watching()
    async with await database.connect() as connection:
        await connection.execute("SELECT set_config('tablewatcher.traceparent', %s, false)", [given])
        await connection.execute("INSERT INTO t VALUES (1)")
    (event,) = await watched.events()
    assert event.traceparent == expected
    assert json.loads(event.body).get("traceparent") == expected


async def test_copy_and_cascade(database: Database, watching: Watch) -> None:
    await database.execute(
        "CREATE TABLE parent (id int PRIMARY KEY);"
        " CREATE TABLE t (id int PRIMARY KEY, p int REFERENCES parent ON DELETE CASCADE ON UPDATE CASCADE);"
        " INSERT INTO parent VALUES (1)"
    )
    watched = await watching(columns=("p",))
    async with await database.connect() as connection:
        async with connection.cursor() as cursor, cursor.copy("COPY t FROM STDIN") as copy:
            await copy.write("1\t1\n2\t1\n")
        await connection.execute("UPDATE parent SET id = 5")
        await connection.execute("DELETE FROM parent")
    found = [(data["action"], data["key"]["id"], data.get("after", {}).get("p")) for data in await watched.data()]
    assert found == [
        ("insert", 1, 1),
        ("insert", 2, 1),
        ("update", 1, 5),
        ("update", 2, 5),
        ("delete", 1, None),
        ("delete", 2, None),
    ]


async def test_two_phase_commit(server_directory: Path) -> None:
    settings = {**POSTGRES_SETTINGS, "max_prepared_transactions": "4"}
    with EmbeddedPostgres(server_directory / "two_phase", 16, settings) as server:
        database = Database(server, "postgres")
        await database.execute("CREATE TABLE t (id int PRIMARY KEY)")
        watched = await watch(database.dsn, spec_of())
        async with watched.reader:
            await database.execute("BEGIN; INSERT INTO t VALUES (1); PREPARE TRANSACTION 'a'")
            await database.execute("BEGIN; INSERT INTO t VALUES (2); PREPARE TRANSACTION 'b'")
            await database.execute("INSERT INTO t VALUES (3)")
            assert [event.key for event in await watched.events()] == ["3"]
            await database.execute("ROLLBACK PREPARED 'b'")
            await database.execute("COMMIT PREPARED 'a'")
            assert [event.key for event in await watched.events()] == ["1"]


async def test_partitions(database: Database, watching: Watch) -> None:
    await database.execute(
        "CREATE TABLE t (id int, r int, n int, PRIMARY KEY (id, r)) PARTITION BY LIST (r);"
        " CREATE TABLE t1 PARTITION OF t FOR VALUES IN (1);"
        " CREATE TABLE t2 (extra int, n int, r int NOT NULL, id int NOT NULL); ALTER TABLE t2 DROP COLUMN extra;"
        " ALTER TABLE t ATTACH PARTITION t2 FOR VALUES IN (2)"
    )
    watched = await watching(columns=("n",))
    await database.execute("CREATE TABLE t3 PARTITION OF t FOR VALUES IN (3)")
    await database.execute(
        "INSERT INTO t VALUES (1, 1, 0), (2, 2, 0), (3, 3, 0); INSERT INTO t2 (id, r, n) VALUES (4, 2, 0)"
    )
    await database.execute(
        "UPDATE t SET n = 5 WHERE id = 2; UPDATE t SET r = 3 WHERE id = 1; DELETE FROM t3 WHERE id = 3"
    )
    found = [(data["action"], tuple(data["key"].values())) for data in await watched.data()]
    assert found == [
        ("insert", (1, 1)),
        ("insert", (2, 2)),
        ("insert", (3, 3)),
        ("insert", (4, 2)),
        ("update", (2, 2)),
        ("delete", (1, 1)),
        ("insert", (1, 3)),
        ("delete", (3, 3)),
    ]


DDL = {
    "drop sent": "ALTER TABLE t DROP COLUMN status",
    "drop unsent": "ALTER TABLE t DROP COLUMN note",
    "rename sent": "ALTER TABLE t RENAME status TO state",
    "retype sent": "ALTER TABLE t ALTER status TYPE varchar(7)",
    "retype to json": "ALTER TABLE t ALTER status TYPE json USING to_json(status)",
    "add": "ALTER TABLE t ADD added int DEFAULT 4",
    "rename key": "ALTER TABLE t RENAME id TO ident",
    "retype key": "ALTER TABLE t ALTER id TYPE bigint",
    "retype key to text": "ALTER TABLE t ALTER id TYPE text USING 'k' || id",
    "drop key": "ALTER TABLE t DROP COLUMN id CASCADE",
    "rename table": "ALTER TABLE t RENAME TO other; CREATE VIEW t AS SELECT * FROM other",
}


@pytest.mark.parametrize("columns", [STAR, ("status",)], ids=["whole row", "column"])
@pytest.mark.parametrize("name", DDL)
async def test_application_ddl(name: str, columns: tuple[str, ...], database: Database, watching: Watch) -> None:
    """A session with cached plans writes on, another changes the table: no DDL waits, no write fails or is unseen."""
    await database.execute("CREATE TABLE t (id int PRIMARY KEY, status text, note text, j json)")
    watched = await watching(columns=columns, include_before=True)
    async with await database.connect() as writer, await database.connect() as other:
        await writer.execute("INSERT INTO t VALUES (1, 'a', 'n', '1'), (2, 'b', 'n', '2')")
        await writer.execute("UPDATE t SET j = '3'")
        await other.execute("SET lock_timeout = '2s'")
        await other.execute(DDL[name].encode())
        await watched.events()
        await writer.execute("INSERT INTO t SELECT * FROM t WHERE false")
        await writer.execute("UPDATE t SET j = '4'")
        await other.execute("UPDATE t SET j = '5'")
        await writer.execute("DELETE FROM t")
    events = await watched.events()
    assert [event.op for event in events] == ["u", "u", "u", "u", "d", "d"]
    assert all("truncated" not in json.loads(event.body)["data"] for event in events)
    if "key" not in name:
        assert [event.key for event in events] == ["1", "2", "1", "2", "1", "2"]
        assert {key for event in events for key in json.loads(event.body)["data"]["key"]} == {"id"}


ALIKE = {
    "numeric": ("numeric", "1.0", "1.00"),
    "float": ("float8", "0", "'-0'"),
    "interval": ("interval", "'24:00'", "'1 day'"),
    "json": ("json", "'{}'", "'{ }'"),
    "jsonb": ("jsonb", "'1.0'", "'1.00'"),
    "array": ("numeric[]", "'{1.0}'", "'{1.00}'"),
}


@pytest.mark.parametrize("watched_columns", [(), ("v",)], ids=["any column", "that column"])
@pytest.mark.parametrize("name", ALIKE)
async def test_values_that_are_equal_but_not_the_same(
    name: str, watched_columns: tuple[str, ...], database: Database, watching: Watch
) -> None:
    """A change that the type's own comparison does not see is one all the same, and is named."""
    column_type, before, after = ALIKE[name]
    await database.execute(f"CREATE TABLE t (id int PRIMARY KEY, v {column_type}); INSERT INTO t VALUES (1, {before})")
    watched = await watching(columns=("v",), trigger_columns=watched_columns)
    await database.execute(f"UPDATE t SET v = {after}; UPDATE t SET v = v; UPDATE t SET v = NULL")
    assert [data["changed"] for data in await watched.data()] == [["v"], ["v"]]


@pytest.mark.parametrize("sent", ["v", "n"])
async def test_values_equal_in_the_type_that_a_column_has_now(sent: str, database: Database, watching: Watch) -> None:
    """The function compares whole numbers by value, and the application has made the column one that has more."""
    await database.execute("CREATE TABLE t (id int PRIMARY KEY, v int, n int); INSERT INTO t VALUES (1, 1)")
    watched = await watching(columns=(sent,), trigger_columns=("v",))
    await database.execute("ALTER TABLE t ALTER v TYPE numeric; UPDATE t SET v = 1.00; UPDATE t SET v = v, n = 1")
    assert [data["changed"] for data in await watched.data()] == [[sent] if sent == "v" else []]


async def test_json_out_of_range_after_ddl_sends_the_key(database: Database, watching: Watch) -> None:
    """The last form: values cannot be looked up by name where to_jsonb raises."""
    await database.execute("CREATE TABLE t (id int PRIMARY KEY, status text, j json)")
    watched = await watching(columns=("status",))
    await database.execute("ALTER TABLE t DROP COLUMN status")
    await database.execute("INSERT INTO t VALUES (1, '[1e1000000]'); UPDATE t SET id = 2; DELETE FROM t")
    events = await watched.events()
    assert [(event.op, event.key, event.old_key) for event in events] == [
        ("i", "1", None),
        ("u", "2", "1"),
        ("d", "2", None),
    ]
    # The delete sends no value but the key, and so misses nothing.
    assert ["truncated" in json.loads(event.body)["data"] for event in events] == [True, True, False]


async def test_insert_comes_before_an_after_triggers_update(database: Database, watching: Watch) -> None:
    await database.execute(
        "CREATE TABLE t (id int PRIMARY KEY, n int);"
        " CREATE FUNCTION bump() RETURNS trigger LANGUAGE plpgsql AS"
        " 'BEGIN UPDATE t SET n = 9 WHERE id = NEW.id; RETURN NULL; END';"
        " CREATE TRIGGER a_bump AFTER INSERT ON t FOR EACH ROW EXECUTE FUNCTION bump()"
    )
    watched = await watching()
    await database.execute("INSERT INTO t VALUES (1, 0), (2, 0)")
    events = await watched.events()
    for key in "12":
        assert [event.op for event in events if event.key == key] == ["i", "u"]


async def test_serializable_writers(database: Database, watching: Watch) -> None:
    await database.execute("CREATE TABLE t (id int PRIMARY KEY)")
    watched = await watching()

    async def write(key: int) -> None:
        await database.execute(
            f"BEGIN ISOLATION LEVEL SERIALIZABLE; INSERT INTO t VALUES ({key}); SELECT pg_sleep(0.05); COMMIT"
        )

    await asyncio.gather(*(write(key) for key in range(8)))
    assert sorted(event.key for event in await watched.events()) == sorted(map(str, range(8)))


@pytest.mark.parametrize("columns", [STAR, tuple(f"c{nth}" for nth in range(150))], ids=["whole row", "by name"])
async def test_a_table_with_more_columns_than_a_function_takes_arguments(
    columns: tuple[str, ...], database: Database, watching: Watch
) -> None:
    await database.execute(
        f"CREATE TABLE t (id int PRIMARY KEY, {', '.join(f'c{nth} numeric DEFAULT 1.0' for nth in range(150))})"
    )
    watched = await watching(columns=columns)
    await database.execute("INSERT INTO t VALUES (1)")
    # 1.00 is another record image than 1.0, though jsonb holds them to be equal.
    await database.execute("UPDATE t SET c120 = 1.00")
    found = await watched.data()
    assert [each["action"] for each in found] == ["insert", "update"]
    assert found[1]["changed"] == ["c120"]


async def test_a_failed_assertion_in_a_cast_of_the_applications(any_database: Database) -> None:
    """OTHERS does not mean failed assertions, so the blocks that guard a writer name them too."""
    await any_database.execute(
        "CREATE TYPE mood AS ENUM ('a', 'b');"
        " CREATE FUNCTION f(mood) RETURNS json LANGUAGE plpgsql AS 'BEGIN ASSERT false; RETURN NULL; END';"
        " CREATE CAST (mood AS json) WITH FUNCTION f(mood);"
        " CREATE TABLE t (id int PRIMARY KEY, m mood)"
    )
    watched = await watch(
        any_database.dsn, spec_of(columns=("m",), capture=Capture(granularity=Granularity.ROW), include_before=True)
    )
    async with watched.reader:
        await any_database.execute("INSERT INTO t VALUES (1, 'a')")
        await any_database.execute("UPDATE t SET m = 'b'")
        await any_database.execute("DELETE FROM t")
        found = [(data["action"], data["key"], data["truncated"]) for data in await watched.data()]
    assert found == [("insert", {"id": 1}, True), ("update", {"id": 1}, True), ("delete", {"id": 1}, True)]
