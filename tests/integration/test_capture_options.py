"""What a manifest may ask of capture beside columns: conditions, routing, truncate, skipping, bounds."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from tablewatcher.errors import DatabaseError, Reason
from tablewatcher.listener.observe import Observer
from tablewatcher.metrics import Metrics
from tablewatcher.postgres.install.apply import apply
from tablewatcher.postgres.ring.upkeep import Ring
from tablewatcher.postgres.standing import standing
from tablewatcher.sinks.nats.subject import subject
from tablewatcher.spec.model import Action, Capture, Condition, DeliveryPolicy, Granularity, NatsSink, Operator

from ..conftest import Database
from .capturing import Watched, names_of, plan, spec_of, watch

Watch = Callable[..., Awaitable[Watched]]


@pytest.fixture
async def watching(any_database: Database) -> AsyncIterator[Watch]:
    """`await watching(table, **fields of the spec)`: applied, and its ring open."""
    async with AsyncExitStack() as stack:

        async def start(table: str = "t", **fields: Any) -> Watched:
            watched = await watch(any_database.dsn, spec_of(table, **fields))
            stack.push_async_callback(watched.reader.close)
            return watched

        yield start


@dataclass(frozen=True)
class Compared:
    """A column, one comparison, values that it holds for, and values that it does not hold for (None: NULL)."""

    declared: str
    operator: Operator
    values: tuple[str, ...]
    held: tuple[str | None, ...]
    not_held: tuple[str | None, ...]


COMPARISONS = {
    "numbers by value": Compared("numeric", Operator.IN, ("10", "2.50"), ("10.00", "2.5"), ("1", "NaN", None)),
    "greater, not as text": Compared("int", Operator.GREATER_THAN, ("9",), ("10", "100"), ("9", "-10", None)),
    "less": Compared("numeric", Operator.LESS_THAN, ("0.5",), ("-1", "0.4999"), ("0.5", "NaN", None)),
    "infinity": Compared("float8", Operator.GREATER_THAN, ("1e308",), ("Infinity", "NaN"), ("1e308", None)),
    "text": Compared("text", Operator.NOT_IN, ("a", "it's"), ("b", ""), ("a", "it's", None)),
    "longer than the column": Compared("varchar(3)", Operator.IN, ("abcd",), (), ("abc", None)),
    "padded": Compared("char(4)", Operator.IN, ("ab",), ("ab", "ab  "), ("abc", None)),
    "bool": Compared("bool", Operator.IN, ("true",), ("t",), ("f", None)),
    "uuid": Compared(
        "uuid",
        Operator.IN,
        ("A0EEBC999C0B4EF8BB6D6BB9BD380A11",),
        ("a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",),
        ("a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a12", None),
    ),
    "date": Compared("date", Operator.LESS_THAN, ("2024-02-03",), ("0044-03-15 BC", "-infinity"), ("2024-02-03", None)),
    "instant": Compared(
        "timestamptz",
        Operator.GREATER_THAN,
        ("2024-01-01 00:00:00+00",),
        ("2023-12-31 23:00:00-05", "infinity"),
        ("2024-01-01 01:00:00+02", None),
    ),
    "instant without an offset, in UTC": Compared(
        "timestamptz", Operator.LESS_THAN, ("2024-01-01",), ("2023-12-31 23:59:59+00",), ("2024-01-01 00:00:00+00",)
    ),
    "date with the month first": Compared("date", Operator.IN, ("02/03/2024",), ("2024-02-03",), ("2024-03-02",)),
    "enum by its own order": Compared("size", Operator.GREATER_THAN, ("small",), ("large",), ("small", None)),
    "domain": Compared("posint", Operator.IN, ("3",), ("3",), ("4", None)),
    "array": Compared("int[]", Operator.IN, ("{1,2}",), ("{1,2}",), ("{2,1}", None)),
    "null": Compared("text", Operator.IS_NULL, (), (None,), ("", "x")),
    "not null": Compared("text", Operator.IS_NOT_NULL, (), ("", "x"), (None,)),
}


@pytest.mark.parametrize("name", COMPARISONS)
async def test_conditions_compare_as_the_columns_type_does(name: str, any_database: Database, watching: Watch) -> None:
    case = COMPARISONS[name]
    await any_database.execute(
        "CREATE TYPE size AS ENUM ('small', 'large'); CREATE DOMAIN posint AS int CHECK (VALUE > 0);"
        f" CREATE TABLE t (id int PRIMARY KEY, v {case.declared})"
    )
    watched = await watching(where=(Condition("v", case.operator, case.values),))
    values = [*case.held, *case.not_held]
    async with await any_database.connect() as writer:
        # A session's own way to read and write dates changes nothing.
        await writer.execute("SET DateStyle = 'SQL, DMY'; SET TimeZone = 'Asia/Kathmandu'; SET search_path = pg_temp")
        for key, value in enumerate(values):
            await writer.execute(
                "INSERT INTO public.t SELECT %s, r.v FROM json_populate_record(NULL::public.t, %s) AS r",
                [key, json.dumps({"v": value})],
            )
        await writer.execute("DELETE FROM public.t")
    found = await watched.data()
    expected = list(range(len(case.held)))
    assert [data["key"]["id"] for data in found] == [*expected, *expected]
    assert not await plan(any_database.dsn, watched.spec, watched.names)


async def test_an_update_counts_on_either_side_and_says_which(any_database: Database, watching: Watch) -> None:
    await any_database.execute("CREATE TABLE t (id int PRIMARY KEY, status text, total int)")
    watched = await watching(
        where=(Condition("status", Operator.IN, ("open",)), Condition("total", Operator.GREATER_THAN, ("10",)))
    )
    await any_database.execute(
        "INSERT INTO t VALUES (1, 'new', 20), (2, 'open', 20);"
        " UPDATE t SET status = 'open' WHERE id = 1; UPDATE t SET total = 30 WHERE id = 1;"
        " UPDATE t SET total = 3 WHERE id = 1; UPDATE t SET total = 4 WHERE id = 1; UPDATE t SET status = NULL;"
        " DELETE FROM t"
    )
    found = [(data["action"], data["key"]["id"], data.get("filter")) for data in await watched.data()]
    assert found == [
        ("insert", 2, None),
        ("update", 1, "entered"),
        ("update", 1, "stayed"),
        ("update", 1, "left"),
        ("update", 2, "left"),
    ]


DDL = {
    "sent column dropped": ("ALTER TABLE t DROP COLUMN note", ["i", "u"]),
    "compared column retyped": ("ALTER TABLE t ALTER total TYPE text USING total::text", ["i", "u"]),
    "compared column no number any more": ("ALTER TABLE t ALTER total TYPE text USING 'many'", ["i", "i", "u", "u"]),
    "compared column renamed": ("ALTER TABLE t RENAME total TO sum", ["i", "i", "u", "u"]),
}


@pytest.mark.parametrize("name", DDL)
async def test_the_application_changes_what_is_compared(name: str, any_database: Database, watching: Watch) -> None:
    """No write fails, and what cannot be compared any more is sent: too much rather than too little."""
    await any_database.execute("CREATE TABLE t (id int PRIMARY KEY, total int, note text, n int)")
    watched = await watching(columns=("note",), where=(Condition("total", Operator.GREATER_THAN, ("10",)),))
    statement, expected = DDL[name]
    async with await any_database.connect() as writer:
        await writer.execute("INSERT INTO t VALUES (0, 1)")
        await any_database.execute(statement)
        value = "'20 '" if "retyped" in name else "'x'" if "no number" in name else "20"
        other = "'5'" if "retyped" in name else "'y'" if "no number" in name else "5"
        await writer.execute(f"INSERT INTO t SELECT 1, {value}; INSERT INTO t SELECT 2, {other}".encode())
        await any_database.execute("UPDATE t SET n = 1 WHERE id > 0")
    events = await watched.events()
    assert sorted(event.op for event in events) == sorted(expected)


UNTOUCHED = {
    "NULL of JSON": Compared("jsonb", Operator.IS_NOT_NULL, (), ("null", "1"), (None,)),
    "a value of JSON": Compared("jsonb", Operator.IN, ('"a"', "null"), ('"a"', "null"), ('"b"', None)),
    "an array": Compared("int[]", Operator.IN, ("{1,2}",), ("{1,2}",), ("{2,1}", None)),
}


@pytest.mark.parametrize("name", UNTOUCHED)
async def test_conditions_compare_the_same_where_another_column_has_changed(
    name: str, any_database: Database, watching: Watch
) -> None:
    case = UNTOUCHED[name]
    await any_database.execute(f"CREATE TABLE t (id int PRIMARY KEY, v {case.declared}, gone int)")
    watched = await watching(columns=("gone",), where=(Condition("v", case.operator, case.values),))
    await any_database.execute("ALTER TABLE t DROP COLUMN gone")
    async with await any_database.connect() as writer:
        for key, value in enumerate([*case.held, *case.not_held]):
            await writer.execute(f"INSERT INTO t VALUES (%s, %s::{case.declared})".encode(), [key, value])
        await writer.execute("DELETE FROM t")
    expected = list(range(len(case.held)))
    assert [data["key"]["id"] for data in await watched.data()] == [*expected, *expected]


@pytest.mark.parametrize(("old", "new"), [(None, "null"), ("null", None)])
async def test_an_update_between_null_and_that_of_json_counts_where_another_column_has_changed(
    old: str | None, new: str | None, any_database: Database, watching: Watch
) -> None:
    await any_database.execute("CREATE TABLE t (id int PRIMARY KEY, v jsonb, n int, gone int)")
    watched = await watching(columns=("v", "gone"), trigger_columns=("v",))
    async with await any_database.connect() as writer:
        await writer.execute("INSERT INTO t VALUES (1, %s, 1)", [old])
        await any_database.execute("ALTER TABLE t DROP COLUMN gone")
        await writer.execute("UPDATE t SET n = 2")
        await writer.execute("UPDATE t SET v = %s", [new])
        await writer.execute("UPDATE t SET n = 3")
    assert [data["action"] for data in await watched.data()] == ["insert", "update"]


REFUSED = {
    "not a number": ("total", Operator.IN, ("1", "many"), "spec.where[1].values[1]: not a value of type numeric,"),
    "not in the enum": ("size", Operator.IN, ("huge",), "spec.where[1].values[0]: not a value of type public.size,"),
    "no equality": ("j", Operator.IN, ("{}",), "has no such comparison"),
    "somebody's own type": ("own", Operator.IN, ("(1)",), "neither a built-in type nor an enum"),
    "not of the type below a domain": (
        "small",
        Operator.IN,
        ("x",),
        "spec.where[1].values[0]: not a value of type int4,",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
async def test_a_value_that_is_none_is_refused_at_plan(name: str, any_database: Database) -> None:
    column, operator, values, words = REFUSED[name]
    await any_database.execute(
        "CREATE TYPE size AS ENUM ('small', 'large'); CREATE TYPE own AS (n int);"
        " CREATE DOMAIN small AS int CHECK (VALUE < 10);"
        " CREATE TABLE t (id int PRIMARY KEY, total numeric, size size, j json, own own, small small)"
    )
    spec = spec_of(where=(Condition("id", Operator.IS_NOT_NULL), Condition(column, operator, values)))
    for action in (plan, apply):
        with pytest.raises(DatabaseError) as refused:
            await action(any_database.dsn, spec, names_of(spec))
        assert refused.value.reason is Reason.SPEC_INVALID
        assert words in refused.value.message


async def test_a_condition_on_a_column_that_is_not_there(any_database: Database) -> None:
    await any_database.execute("CREATE TABLE t (id int PRIMARY KEY)")
    spec = spec_of(where=(Condition("nope", Operator.IN, ("1",)),))
    with pytest.raises(DatabaseError, match=r"spec\.where\[0\]\.column") as refused:
        await apply(any_database.dsn, spec, names_of(spec))
    assert refused.value.reason is Reason.COLUMN_NOT_FOUND


async def test_routing_columns(any_database: Database, watching: Watch) -> None:
    await any_database.execute("CREATE TABLE t (id int PRIMARY KEY, region text, n int)")
    sink = NatsSink(("nats://127.0.0.1:4222",), "s.{column:region}.{column:id}.{column:region}")
    watched = await watching(columns=("region",), sink=sink)
    await any_database.execute(
        "INSERT INTO t VALUES (1, 'eu west', 0), (2, NULL, 0); UPDATE t SET region = 'us' WHERE id = 1;"
        " DELETE FROM t WHERE id = 1; TRUNCATE t"
    )
    assert [(event.op, event.routing) for event in await watched.events()] == [
        ("i", ["eu%20west", "1"]),
        ("i", ["_", "2"]),
        ("u", ["us", "1"]),
        ("d", ["us", "1"]),
        ("t", None),
    ]
    unsent = spec_of(sink=sink)
    with pytest.raises(DatabaseError, match=r"column:region.*not sent") as refused:
        await apply(any_database.dsn, unsent, names_of(unsent))
    assert refused.value.reason is Reason.SPEC_INVALID


async def test_a_routed_column_of_any_name(any_database: Database, watching: Watch) -> None:
    await any_database.execute("""CREATE TABLE t (id int PRIMARY KEY, "a  b > *. %s" text)""")
    column = "a  b > *. %s"
    watched = await watching(
        columns=(column,), sink=NatsSink(("nats://127.0.0.1:4222",), f"s.{{column:{column}}}.{{column:id}}")
    )
    await any_database.execute("INSERT INTO t VALUES (1, 'x y'); UPDATE t SET id = 2; DELETE FROM t")
    routes = [event.routing for event in await watched.events()]
    assert routes == [["x%20y", "1"], ["x%20y", "2"], ["x%20y", "2"]]
    filled = subject(watched.spec.sink.subject, watched.spec.table, "insert", watched.spec.routing_columns)
    assert filled.of("1", routes[0]) == "s.x%20y.1"


@pytest.mark.parametrize("granularity", [Granularity.AUTO, Granularity.ROW])
async def test_routes_depend_on_no_session_and_on_no_form(
    granularity: Granularity, any_database: Database, watching: Watch
) -> None:
    await any_database.execute(
        "CREATE TABLE t (id int PRIMARY KEY, day date, at timestamptz, code char(4), other json, gone int)"
    )
    sink = NatsSink(("nats://127.0.0.1:4222",), "s.{column:day}.{column:at}.{column:code}")
    sent = ("day", "at", "code", "other", "gone")
    watched = await watching(
        columns=sent, sink=sink, capture=Capture(granularity=granularity), actions=frozenset(Action)
    )
    row = "'2024-02-03'::timestamp, to_timestamp(0), 'eu'"
    async with await any_database.connect() as writer:
        await writer.execute("SET DateStyle = 'SQL, DMY'; SET TimeZone = 'Asia/Kathmandu'")
        await writer.execute(f"INSERT INTO t VALUES (1, {row}); UPDATE t SET gone = 1; DELETE FROM t")
        await writer.execute("ALTER TABLE t RENAME COLUMN gone TO other_name")
        await writer.execute(f"INSERT INTO t VALUES (2, {row}); UPDATE t SET other_name = 1; DELETE FROM t")
    routes = ["2024-02-03", "1970-01-01%2000%3A00%3A00%2B00", "eu"]
    assert [(event.op, event.routing) for event in await watched.events()] == [(op, routes) for op in "iudiud"]


@pytest.mark.parametrize("granularity", [Granularity.AUTO, Granularity.ROW])
async def test_a_row_never_has_the_routes_of_the_one_before(
    granularity: Granularity, any_database: Database, watching: Watch
) -> None:
    await any_database.execute("CREATE TABLE t (id int PRIMARY KEY, region text, odd json)")
    sink = NatsSink(("nats://127.0.0.1:4222",), "s.{column:region}.{column:id}")
    watched = await watching(columns=("region", "odd"), sink=sink, capture=Capture(granularity=granularity))
    await any_database.execute("ALTER TABLE t RENAME COLUMN region TO area")
    # Of the second row nothing can be looked up by name: jsonb cannot hold what is in `odd`.
    await any_database.execute("""INSERT INTO t VALUES (1, 'eu', '1'), (2, 'us', '"\\u0000"'), (3, 'ap', '1')""")
    assert [event.routing for event in await watched.events()] == [["_", "1"], ["_", "2"], ["_", "3"]]


async def test_truncate(any_database: Database, watching: Watch) -> None:
    await any_database.execute("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)")
    watched = await watching(actions=frozenset([Action.TRUNCATE]))
    await any_database.execute("INSERT INTO t VALUES (2); TRUNCATE t")
    await any_database.execute("BEGIN; TRUNCATE t; ROLLBACK")
    (event,) = await watched.events()
    body = json.loads(event.body)
    assert (event.op, event.key, body["type"]) == ("t", "_", "io.tablewatcher.row.truncated")
    assert set(body["data"]) == {"action", "source"}
    assert body["data"]["action"] == "truncate"


async def test_truncate_of_partitions(any_database: Database, watching: Watch) -> None:
    await any_database.execute(
        "CREATE TABLE t (id int PRIMARY KEY) PARTITION BY RANGE (id);"
        " CREATE TABLE t1 PARTITION OF t FOR VALUES FROM (0) TO (10) PARTITION BY RANGE (id);"
        ' CREATE TABLE "T 11" PARTITION OF t1 FOR VALUES FROM (0) TO (5)'
    )
    watched = await watching()
    await any_database.execute('INSERT INTO t VALUES (1); TRUNCATE "T 11"')
    found = [(data["action"], data.get("partition")) for data in await watched.data()]
    assert found == [("insert", None), ("truncate", {"schema": "public", "table": "T 11"})]
    await any_database.execute("TRUNCATE t")
    tables = [data.get("partition", {}).get("table", "") for data in await watched.data()]
    assert sorted(tables) == ["", "T 11", "t1"]
    # A partition made later is picked up by the next apply, and one taken away is let go.
    await any_database.execute("CREATE TABLE t2 PARTITION OF t FOR VALUES FROM (10) TO (20); TRUNCATE t2")
    assert await watched.data() == []
    steps = [step.what for step in (await apply(any_database.dsn, watched.spec, watched.names)).plan.steps]
    missing = f"install trigger {watched.names.trigger}_truncate on public.t2"
    # Version 13 cannot replace a trigger: there all are made anew.
    assert steps == [missing] if any_database.server.version >= 14 else missing in steps
    await any_database.execute("TRUNCATE t2")
    assert [data["partition"]["table"] for data in await watched.data()] == ["t2"]
    await any_database.execute("ALTER TABLE t DETACH PARTITION t2")
    assert await plan(any_database.dsn, watched.spec, watched.names)
    await apply(any_database.dsn, watched.spec, watched.names)
    await any_database.execute("TRUNCATE t2; INSERT INTO t VALUES (2)")
    assert [event.op for event in await watched.events()] == ["i"]
    assert not await plan(any_database.dsn, watched.spec, watched.names)


@pytest.mark.parametrize("allowed", [True, False])
async def test_a_transaction_may_skip_capture_where_allowed(
    allowed: bool, any_database: Database, watching: Watch
) -> None:
    await any_database.execute("CREATE TABLE t (id int PRIMARY KEY)")
    watched = await watching(capture=Capture(allow_skip=allowed))
    for key, value in enumerate(("on", "", "off")):
        async with await any_database.connect() as writer, writer.transaction():
            await writer.execute("SELECT set_config('tablewatcher.skip', %s, true)", [value])
            await writer.execute("INSERT INTO t VALUES (%s)", [key])
    await any_database.execute("INSERT INTO t VALUES (3)")
    assert [event.key for event in await watched.events()] == (["1", "2", "3"] if allowed else ["0", "1", "2", "3"])
    skipped = 1 if allowed else 0
    assert await gauged(watched) == skipped
    found = await standing(any_database.dsn, watched.names)
    assert found is not None
    assert found.skipped == skipped
    # As a listener tells it that starts now, looks again later, and is given another manifest.
    metrics = Metrics(CollectorRegistry())
    first, again = (Observer(watched.spec, metrics, "here") for _ in range(2))
    for observer, more in ((first, 0), (first, 2), (again, 0)):
        if allowed and more:
            await any_database.execute("SET tablewatcher.skip = on; INSERT INTO t VALUES (4), (5)")
            skipped += more
        observer.ring(await Ring(watched.reader, asyncio.Lock(), watched.names).gauge(), None, 0, room=8192, held="")
        labels = {"watcher_namespace": "shop", "watcher": "w"}
        assert metrics.registry.get_sample_value("tablewatcher_events_skipped_total", labels) == skipped


async def gauged(watched: Watched) -> int:
    """How many changes were skipped, as the ring's upkeep reads it."""
    return (await Ring(watched.reader, asyncio.Lock(), watched.names).gauge()).skipped


@pytest.mark.parametrize("write", ["UPDATE t SET n = 1", "DELETE FROM t"])
async def test_writes_that_are_captured_row_by_row_stop_at_the_bound(
    write: str, any_database: Database, watching: Watch
) -> None:
    """Nothing else looks: no row is inserted, and no listener runs."""
    await any_database.execute("CREATE TABLE t (id int PRIMARY KEY, n int, v text)")
    await any_database.execute("INSERT INTO t SELECT g, 0, repeat('x', 500) FROM generate_series(1, 6000) AS g")
    bound = 1 << 20
    watched = await watching(columns=("v",), include_before=True, delivery=DeliveryPolicy(overflow_bytes=bound))
    await any_database.execute(write)
    ((stopped,),) = await any_database.execute(f"SELECT last_value FROM tablewatcher.{watched.names.stop}")
    assert stopped > 0
    gauge = await Ring(watched.reader, asyncio.Lock(), watched.names).gauge()
    # It is looked at every 1,024 rows.
    assert bound < gauge.bytes < 3 * bound
    assert 1000 < len(await watched.events()) < 5000


async def test_a_smaller_bound_on_events(any_database: Database, watching: Watch) -> None:
    await any_database.execute("CREATE TABLE t (id int PRIMARY KEY, v text)")
    watched = await watching(columns=("v",), include_before=True, capture=Capture(max_event_bytes=1024))
    await any_database.execute(
        "INSERT INTO t VALUES (1, repeat('x', 900)), (2, repeat('x', 1024)); UPDATE t SET v = 'y'; DELETE FROM t"
    )
    found = [(data["action"], data["key"]["id"], data.get("truncated", False)) for data in await watched.data()]
    assert found == [
        ("insert", 1, False),
        ("insert", 2, True),
        ("update", 1, False),
        ("update", 2, True),
        ("delete", 1, False),
        ("delete", 2, False),
    ]


@pytest.mark.parametrize("include_before", [False, True])
async def test_a_truncated_update_of_the_key_names_the_old_one(
    include_before: bool, any_database: Database, watching: Watch
) -> None:
    await any_database.execute("CREATE TABLE t (a int, b text, v text, PRIMARY KEY (a, b))")
    watched = await watching(columns=("v",), include_before=include_before, capture=Capture(max_event_bytes=1024))
    await any_database.execute(
        "INSERT INTO t VALUES (1, 'x', repeat('v', 2000)); UPDATE t SET a = 2; UPDATE t SET v = repeat('w', 2000);"
        " UPDATE t SET b = repeat('y', 900), a = 3; UPDATE t SET b = repeat('z', 900), a = 4"
    )
    _, moved, changed, wider, widest = await watched.data()
    assert (moved["key"], moved["before"]) == ({"a": 2, "b": "x"}, {"a": 1, "b": "x"})
    assert moved["truncated"]
    assert changed["truncated"]
    assert "before" not in changed
    assert wider["before"] == {"a": 2, "b": "x"}
    # Both together would be more than an event may be.
    assert widest["key"]["a"] == 4
    assert "before" not in widest


async def test_a_ring_of_before_skips_is_brought_up(any_database: Database, watching: Watch) -> None:
    await any_database.execute("CREATE TABLE t (id int PRIMARY KEY)")
    watched = await watching()
    await any_database.execute(f"INSERT INTO t VALUES (1); DROP SEQUENCE tablewatcher.{watched.names.skips}")
    assert await gauged(watched) == 0
    await apply(any_database.dsn, spec_of(capture=Capture(allow_skip=True)), watched.names)
    await any_database.execute(
        "SET tablewatcher.skip = on; INSERT INTO t VALUES (2); RESET tablewatcher.skip; INSERT INTO t VALUES (3)"
    )
    assert [event.key for event in await watched.events()] == ["1", "3"]
