"""Plan, apply and destroy against a real catalog: what they repair, what they need, and what they leave alone."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg import sql

from tablewatcher.errors import DatabaseError, Reason
from tablewatcher.postgres.connection.session import connected
from tablewatcher.postgres.install.apply import _ADVISORY_KEY, _drop_empty_schema, apply, destroy
from tablewatcher.postgres.install.plan import SCHEMA_COMMENT, Kind
from tablewatcher.postgres.quoting import identifier, literal
from tablewatcher.spec.model import (
    Action,
    Capture,
    Condition,
    DeletionPolicy,
    Granularity,
    Operator,
    Table,
    WatcherSpec,
)

from ..conftest import Database
from .capturing import ALL, names_of, opened, plan, spec_of, watch
from .running import running_time
from .test_granularity import levels
from .writing import SHORTLY, writing

SPEC = spec_of(columns=("n",))
NAMES = names_of(SPEC)
FUNCTION = f"tablewatcher.{NAMES.function}"


@pytest.fixture
async def database(any_database: Database) -> Database:
    await any_database.execute("CREATE TABLE t (id int PRIMARY KEY, n int)")
    return any_database


CATALOG = """
SELECT 'class', oid::text, relname::text, relacl::text FROM pg_class WHERE relnamespace <> 'pg_toast'::regnamespace
UNION ALL SELECT 'proc', oid::text, proname::text, proacl::text FROM pg_proc
UNION ALL SELECT 'trigger', oid::text, tgname::text, tgrelid::text FROM pg_trigger
UNION ALL SELECT 'schema', oid::text, nspname::text, nspacl::text FROM pg_namespace
UNION ALL SELECT 'type', oid::text, typname::text, '' FROM pg_type
UNION ALL SELECT 'comment', objoid::text, description, '' FROM pg_description ORDER BY 1, 2, 3
"""


async def test_a_second_apply_runs_no_statement(database: Database) -> None:
    assert (await apply(database.dsn, SPEC, NAMES)).plan
    before = await database.execute("SELECT xmin::text, oid FROM pg_proc WHERE oid = %s::regproc", FUNCTION)
    assert not await plan(database.dsn, SPEC, NAMES)
    assert not (await apply(database.dsn, SPEC, NAMES)).plan
    assert before == await database.execute("SELECT xmin::text, oid FROM pg_proc WHERE oid = %s::regproc", FUNCTION)


async def test_no_name_is_longer_than_is_compared_with_the_server(database: Database) -> None:
    await apply(database.dsn, SPEC, NAMES)
    names = await database.execute(
        "SELECT max(octet_length(name)) FROM (SELECT relname::text FROM pg_class WHERE relkind IN ('r', 'S', 'i')"
        " AND relnamespace = 'tablewatcher'::regnamespace UNION ALL SELECT tgname::text FROM pg_trigger"
        " UNION ALL SELECT proname::text FROM pg_proc WHERE pronamespace = 'tablewatcher'::regnamespace) AS n (name)"
    )
    assert names == [(NAMES.longest,)]


DRIFT = {
    "trigger dropped": f'DROP TRIGGER "{NAMES.trigger}" ON t',
    "trigger disabled": f'ALTER TABLE t DISABLE TRIGGER "{NAMES.trigger}"',
    "triggers off and on again": "ALTER TABLE t DISABLE TRIGGER USER; ALTER TABLE t ENABLE TRIGGER USER",
    "trigger for replicas only": f'ALTER TABLE t ENABLE REPLICA TRIGGER "{NAMES.trigger}"',
    "trigger renamed": f'ALTER TRIGGER "{NAMES.trigger}" ON t RENAME TO zz',
    "truncate trigger dropped": f'DROP TRIGGER "{NAMES.trigger}_truncate" ON t',
    "insert trigger disabled": f'ALTER TABLE t DISABLE TRIGGER "{NAMES.trigger}_insert"',
    "function replaced": f"CREATE OR REPLACE FUNCTION {FUNCTION}() RETURNS trigger LANGUAGE plpgsql AS"
    " 'BEGIN RETURN NULL; END'",
    "function as invoker": f"ALTER FUNCTION {FUNCTION}() SECURITY INVOKER",
    "search_path": f"ALTER FUNCTION {FUNCTION}() RESET ALL",
    "function for everybody": f"GRANT EXECUTE ON FUNCTION {FUNCTION}() TO PUBLIC",
    "function dropped": f"DROP FUNCTION {FUNCTION}() CASCADE",
    "rename swap": "CREATE TABLE new (LIKE t INCLUDING ALL); ALTER TABLE t RENAME TO old; ALTER TABLE new RENAME TO t",
    "table made again": "DROP TABLE t; CREATE TABLE t (id int PRIMARY KEY, n int)",
    "registration lost": "DELETE FROM tablewatcher.watcher",
    **{f"{name} dropped": f"DROP TABLE tablewatcher.{name}" for name in (*NAMES.rings, *NAMES.cursors)},
    **{f"{name} dropped": f"DROP SEQUENCE tablewatcher.{name}" for name in NAMES.sequences},
    "all cursors dropped": f"DROP TABLE {', '.join(f'tablewatcher.{name}' for name in NAMES.cursors)}",
}


INTERRUPTED = {
    "trigger dropped",
    "truncate trigger dropped",
    "insert trigger disabled",
    "trigger disabled",
    # Somebody has written its row again, and nobody can tell what else was done to it.
    "trigger renamed",
    "triggers off and on again",
    "trigger for replicas only",
    "function dropped",
    "rename swap",
    "table made again",
    *(f"{name} dropped" for name in NAMES.rings),
}


# What was put right, as the operator counts it. Of triggers a server before PostgreSQL 14 has the function go along.
COUNTED = {
    **dict.fromkeys(
        ("function replaced", "function as invoker", "search_path", "function for everybody"), (Kind.FUNCTION,)
    ),
    **{f"{name} dropped": (Kind.RING,) for name in (*NAMES.rings, *NAMES.cursors, *NAMES.sequences)},
    "function dropped": (Kind.FUNCTION, Kind.TRIGGER),
    "registration lost": (Kind.DATABASE,),
    "all cursors dropped": (Kind.RING,),
}


async def test_every_drift_is_repaired(database: Database) -> None:
    watched = await watch(database.dsn, SPEC)
    async with watched.reader:
        for key, (name, statement) in enumerate(DRIFT.items()):
            await database.execute(statement)
            repaired = (await apply(database.dsn, SPEC, NAMES)).plan
            assert repaired, name
            assert repaired.kinds == COUNTED.get(name, repaired.kinds), name
            assert not await plan(database.dsn, SPEC, NAMES), name
            await database.execute(f"INSERT INTO t VALUES ({key})")
            events = await watched.events()
            assert [event.key for event in events if event.op != "g"] == [str(key)], name
            # While no trigger fired, nobody can say what was missed: that is announced, before what comes after.
            assert [event.op for event in events] == (["g", "i"] if name in INTERRUPTED else ["i"]), name
            triggers = await database.execute(
                "SELECT tgname, tgrelid::regclass::text FROM pg_trigger WHERE NOT tgisinternal"
            )
            assert sorted(triggers) == [(f"{NAMES.trigger}{end}", "t") for end in ("", "_insert", "_truncate")], name


@pytest.mark.parametrize(
    ("statement", "name"),
    [("ALTER TABLE t RENAME TO u", "public.u"), ("CREATE SCHEMA s; ALTER TABLE t SET SCHEMA s", "s.t")],
)
async def test_a_table_that_was_renamed_is_named(database: Database, statement: str, name: str) -> None:
    watched = await watch(database.dsn, SPEC)
    async with watched.reader:
        await database.execute("".join(f"CREATE TABLE a{nth} ();" for nth in range(9)) + statement)
        await database.execute(f"INSERT INTO {name} VALUES (1)")
        assert [event.key for event in await watched.events()] == ["1"]
        with pytest.raises(DatabaseError, match=f"is {name} by now") as refused:
            await plan(database.dsn, SPEC, NAMES)
        assert refused.value.reason is Reason.TABLE_NOT_FOUND
        await destroy(database.dsn, SPEC, NAMES)
        assert await database.execute("SELECT FROM pg_trigger WHERE NOT tgisinternal") == []


@pytest.mark.parametrize("is_gone", [False, True], ids=["there", "gone"])
async def test_another_table_is_refused_under_the_name_of_a_watcher(database: Database, is_gone: bool) -> None:
    """What waits of the first would go out as changes of the second, also where the first is dropped by now."""
    await apply(database.dsn, SPEC, NAMES)
    await database.execute("INSERT INTO t VALUES (1); CREATE TABLE u (id int PRIMARY KEY, n int)")
    if is_gone:
        await database.execute("DROP TABLE t")
    another = replace(SPEC, table=Table("public", "u"))
    for do in (plan, apply):
        with pytest.raises(DatabaseError, match=r'applied to "public"."t".*another metadata.name.*destroy') as refused:
            await do(database.dsn, another, NAMES)
        assert refused.value.reason is Reason.MANUAL_ACTION_REQUIRED
    await destroy(database.dsn, another, NAMES)
    assert (await apply(database.dsn, another, NAMES)).plan
    assert not await plan(database.dsn, another, NAMES)


@pytest.mark.parametrize("statement", ["ALTER TABLE t RENAME TO u", "CREATE SCHEMA s; ALTER TABLE t SET SCHEMA s"])
async def test_a_manifest_follows_a_renamed_table(database: Database, statement: str) -> None:
    watched = await watch(database.dsn, SPEC)
    async with watched.reader:
        await database.execute(f"INSERT INTO t VALUES (1); {statement}")
        table = Table("public", "u") if "RENAME" in statement else Table("s", "t")
        after = replace(SPEC, table=table)
        assert (await apply(database.dsn, after, NAMES)).plan
        assert not await plan(database.dsn, after, NAMES)
        await database.execute(f"INSERT INTO {table.schema}.{table.name} VALUES (2)")
        assert [(event.op, event.key) for event in await watched.events()] == [("i", "1"), ("i", "2")]
        # By now that is the watcher's table, and one of the earlier name another.
        await database.execute("CREATE TABLE public.t (id int PRIMARY KEY, n int)")
        with pytest.raises(DatabaseError, match="names another table"):
            await plan(database.dsn, SPEC, NAMES)


async def test_a_schema_of_a_later_version_is_left_alone(database: Database) -> None:
    await apply(database.dsn, SPEC, NAMES)
    await database.execute("INSERT INTO tablewatcher.migration (version) VALUES (9999)")
    for do in (plan, apply):
        with pytest.raises(DatabaseError, match="a later build") as refused:
            await do(database.dsn, SPEC, NAMES)
        assert refused.value.reason is Reason.MANUAL_ACTION_REQUIRED


@pytest.mark.parametrize(
    "gone", ["TABLE tablewatcher.progress", "TABLE tablewatcher.watcher", "FUNCTION tablewatcher.utf8"]
)
async def test_what_all_share_and_somebody_has_dropped_is_named_and_removal_works(
    database: Database, gone: str
) -> None:
    await apply(database.dsn, SPEC, NAMES)
    await database.execute(f"DROP {gone} CASCADE; INSERT INTO t VALUES (1, 1)")
    for do in (plan, apply):
        with pytest.raises(DatabaseError, match=f"schema tablewatcher lacks {gone.rpartition('.')[2]}") as refused:
            await do(database.dsn, SPEC, NAMES)
        assert refused.value.reason is Reason.TRIGGERS_DRIFTED
    assert (await destroy(database.dsn, SPEC, NAMES)).steps
    assert await database.execute("SELECT FROM pg_trigger WHERE tgname ~ '^00_tablewatcher_'") == []
    assert await database.execute("SELECT FROM pg_class WHERE relname ~ '^(ring|ids)_'") == []


async def test_ids_that_sessions_draw_ahead_are_put_right(database: Database) -> None:
    """As by somebody who wants a sequence to be faster: changes of one row would come in the wrong order."""
    watched = await watch(database.dsn, SPEC)
    async with watched.reader, await database.connect() as first, await database.connect() as second:
        await database.execute(f"ALTER SEQUENCE tablewatcher.{NAMES.ids} CACHE 100; INSERT INTO t VALUES (1, 0)")
        for number in range(4):
            await (first, second)[number % 2].execute(f"UPDATE t SET n = {number}")
        assert [data["after"]["n"] for data in await watched.data()] != [0, 0, 1, 2, 3]
        applied = await apply(database.dsn, SPEC, NAMES)
        assert [step.what for step in applied.plan.steps] == ["have ids drawn one by one"]
        for number in range(4, 8):
            await (first, second)[number % 2].execute(f"UPDATE t SET n = {number}")
        assert [data["after"]["n"] for data in await watched.data()] == [4, 5, 6, 7]


async def test_a_trigger_disabled_on_one_partition_is_repaired(database: Database) -> None:
    await database.execute(
        "CREATE TABLE p (id int PRIMARY KEY) PARTITION BY RANGE (id);"
        " CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (10)"
    )
    watched = await watch(database.dsn, spec_of("p"))
    async with watched.reader:
        await database.execute(f'ALTER TABLE p1 DISABLE TRIGGER "{NAMES.trigger}"')
        assert (await apply(database.dsn, watched.spec, NAMES)).plan
        await database.execute("INSERT INTO p VALUES (1)")
        assert [(event.op, event.key) for event in await watched.events()] == [("g", "_"), ("i", "1")]
        assert not await plan(database.dsn, watched.spec, NAMES)


async def test_a_trigger_that_was_off_on_one_partition_for_a_while(any_database: Database) -> None:
    """As a loader leaves it that writes to partitions; making, attaching and detaching them is no such thing."""
    await any_database.execute(
        "CREATE TABLE p (id int PRIMARY KEY) PARTITION BY RANGE (id);"
        " CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (10)"
    )
    watched = await watch(any_database.dsn, spec_of("p", actions=ALL - {Action.TRUNCATE}))
    async with watched.reader:
        await any_database.execute(
            "CREATE TABLE p2 PARTITION OF p FOR VALUES FROM (10) TO (20); CREATE TABLE p3 (LIKE p INCLUDING ALL);"
            " ALTER TABLE p ATTACH PARTITION p3 FOR VALUES FROM (20) TO (30); ALTER TABLE p DETACH PARTITION p2;"
            " ALTER TABLE p ATTACH PARTITION p2 FOR VALUES FROM (10) TO (20)"
        )
        await any_database.execute("VACUUM FULL pg_trigger")
        await any_database.execute("VACUUM (FREEZE, FULL) pg_depend")
        assert not await plan(any_database.dsn, watched.spec, watched.names)
        for name in ("p1", "p3"):
            await any_database.execute(
                f"ALTER TABLE {name} DISABLE TRIGGER USER; TRUNCATE {name}; ALTER TABLE {name} ENABLE TRIGGER USER"
            )
            assert (await apply(any_database.dsn, watched.spec, watched.names)).plan
            assert [event.op for event in await watched.events()] == ["g"]
            assert not await plan(any_database.dsn, watched.spec, watched.names)


async def test_triggers_that_fire_always_are_left_so(database: Database) -> None:
    await apply(database.dsn, SPEC, NAMES)
    await database.execute(f'ALTER TABLE t ENABLE ALWAYS TRIGGER "{NAMES.trigger}"')
    assert not await plan(database.dsn, SPEC, NAMES)


async def test_triggers_that_fire_always_do_so_when_they_are_made_anew(database: Database) -> None:
    """Else what a subscription applies would be captured no longer, since somebody wants deletions too."""
    spec = spec_of(actions=frozenset([Action.INSERT, Action.UPDATE]))
    await apply(database.dsn, spec, NAMES)
    await database.execute(f'ALTER TABLE t ENABLE ALWAYS TRIGGER "{NAMES.trigger}"')
    spec = replace(spec, actions=frozenset(Action))
    await apply(database.dsn, spec, NAMES)
    assert not await plan(database.dsn, spec, NAMES)
    found = await database.execute("SELECT tgname, tgenabled::text FROM pg_trigger WHERE tgrelid = 't'::regclass")
    # Version 13 cannot replace a trigger: there all are made anew.
    insert = "O" if database.server.version >= 14 else "A"
    assert dict(found) == {NAMES.trigger: "A", NAMES.insert_trigger: insert, NAMES.truncate_trigger: "A"}


async def test_changed_actions_and_columns(database: Database) -> None:
    watched = await watch(database.dsn, spec_of(actions=frozenset([Action.DELETE])))
    async with watched.reader:
        await database.execute("INSERT INTO t VALUES (1, 1)")
        await apply(database.dsn, SPEC, NAMES)
        # New columns need no lock on the table: a transaction that writes to it is open all the while.
        async with await database.connect() as writer, writer.transaction():
            await writer.execute("INSERT INTO t VALUES (2, 2)")
            changed = await apply(database.dsn, spec_of(columns=("id",), include_before=True), NAMES, patience=0)
            assert changed.plan
            assert not any(step.locks_table for step in changed.plan.steps)
        await database.execute("DELETE FROM t WHERE id = 2")
        found = [(data["action"], data.get("after"), data.get("before")) for data in await watched.data()]
    assert found == [("insert", {"id": 2, "n": 2}, None), ("delete", None, {"id": 2})]


@pytest.mark.parametrize("granularity", [Granularity.AUTO, Granularity.ROW])
async def test_changed_columns_conditions_and_bounds_lock_nobody_out(
    granularity: Granularity, database: Database
) -> None:
    """A transaction that writes to the table is open all the while: only the function is written anew."""
    await database.execute(
        "CREATE TYPE size AS ENUM ('small', 'large');"
        " ALTER TABLE t ADD s size DEFAULT 'large', ADD j jsonb, ADD a int[]"
    )
    over, large = Condition("n", Operator.GREATER_THAN, ("5",)), Condition("s", Operator.IN, ("large",))
    changes: list[tuple[dict[str, Any], list[str]]] = [
        ({"columns": ("n",)}, ["1", "2"]),
        ({"columns": ("n",), "where": (over,)}, ["4"]),
        ({"columns": ("j",), "where": (over, large), "include_before": True}, ["6"]),
        ({"columns": ("*",)}, ["7", "8"]),
        ({"columns": ("j", "a"), "trigger_columns": ("n",)}, ["9", "10"]),
        ({"columns": ("j",)}, ["11", "12"]),
    ]
    specs = [spec_of(capture=Capture(granularity=granularity), **fields) for fields, _ in changes]
    specs.append(spec_of(capture=Capture(granularity=granularity, allow_skip=True, max_event_bytes=2048)))
    watched = await watch(database.dsn, specs[0])
    async with watched.reader, await database.connect() as writer, writer.transaction():
        for nth in range(len(changes)):
            await writer.execute(f"INSERT INTO t VALUES ({nth * 2 + 1}, 1), ({nth * 2 + 2}, 9)")
            steps = (await apply(database.dsn, specs[nth + 1], NAMES, patience=0)).plan.steps
            assert steps
            assert not any(step.locks_table for step in steps)
            assert await levels(database) == {"statement" if granularity is Granularity.AUTO else "row"}
    after = await opened(database.dsn, specs[-1])
    async with after.reader:
        assert [event.key for event in await after.events()] == [key for _, keys in changes for key in keys]


# Not what a growing file takes for a moment, nor a vacuum.
STRONGER = """
SELECT DISTINCT l.mode FROM pg_locks AS l JOIN pg_stat_activity AS a USING (pid)
WHERE l.locktype = 'relation' AND l.relation = 't'::regclass AND a.backend_type = 'client backend'
  AND l.mode NOT IN ('AccessShareLock', 'RowShareLock', 'RowExclusiveLock')
"""


async def test_changed_columns_and_conditions_under_writers(database: Database) -> None:
    """Nobody waits for a lock on the table, for none is asked for; every row is told, by one function or the next."""
    await database.execute("ALTER TABLE t ADD s text DEFAULT 'x', ADD j jsonb; CREATE SEQUENCE numbers")
    every = Condition("id", Operator.GREATER_THAN, ("0",))
    specs = [
        spec_of(columns=columns, where=where, actions=frozenset([Action.INSERT, Action.UPDATE]))
        for columns in (("n",), ("s", "n"), ("j",), ("*",))
        for where in ((), (every,))
    ]
    watched = await watch(database.dsn, specs[0])
    write = "INSERT INTO t SELECT nextval('numbers'), 1; UPDATE t SET n = n + 1 WHERE id = currval('numbers')"
    modes: set[str] = set()

    async def look() -> None:
        async with await database.connect() as looking:
            while True:
                modes.update(mode for (mode,) in await (await looking.execute(STRONGER.encode())).fetchall())
                await asyncio.sleep(0.002)

    async with watched.reader:
        looking = asyncio.create_task(look())
        async with contextlib.AsyncExitStack() as stack:
            writers = [await stack.enter_async_context(writing(database, write)) for _ in range(8)]
            for nth in range(1, 21):
                applied = await apply(database.dsn, specs[nth % len(specs)], NAMES, patience=0)
                assert applied.plan
                assert not looking.done()
        looking.cancel()
        events = [(event.op, event.key) for event in await watched.events()]
    assert modes == set()
    assert max(waits.longest for waits in writers) < SHORTLY
    rows = [str(key) for (key,) in await database.execute("SELECT id FROM t ORDER BY id")]
    assert len(rows) >= 100
    told = [(op, key) for key in rows for op in "iu"]
    assert sorted(events) == sorted(told)


@pytest.mark.parametrize("removing", [False, True], ids=["apply", "destroy"])
async def test_an_open_transaction_holds_us_and_we_hold_nobody(removing: bool, database: Database) -> None:
    if removing:
        await apply(database.dsn, SPEC, NAMES)
    async with await database.connect() as blocker, blocker.transaction():
        await blocker.execute("INSERT INTO t VALUES (1, 1)")
        pid = blocker.info.backend_pid
        await blocker.execute("SET application_name = 'shop'")
        another = "INSERT INTO t SELECT 100 + count(*), 0 FROM t"
        async with writing(database, another) as waits, running_time() as took:
            with pytest.raises(DatabaseError) as refused:
                await (destroy if removing else apply)(database.dsn, SPEC, NAMES, patience=1.0)
        assert took.seconds < 4
    assert refused.value.reason is Reason.TABLE_LOCKED
    assert f"(pid {pid} (shop), open since " in refused.value.message
    left = "capture has stopped, and nothing else was changed" if removing else "try again: nothing was changed"
    assert left in refused.value.message
    assert waits.longest < SHORTLY
    if removing:
        await destroy(database.dsn, SPEC, NAMES)
    else:
        assert await database.execute("SELECT FROM pg_namespace WHERE nspname = 'tablewatcher'") == []
        assert (await apply(database.dsn, SPEC, NAMES)).plan


async def test_two_applies_at_once(database: Database) -> None:
    other = spec_of(name="other")
    specs = [SPEC, SPEC, other, other, SPEC]
    await asyncio.gather(*(apply(database.dsn, spec, names_of(spec)) for spec in specs))
    for spec in (SPEC, other):
        assert not await plan(database.dsn, spec, names_of(spec))
        async with (await opened(database.dsn, spec)).reader:
            pass
    await database.execute("INSERT INTO t VALUES (1, 1)")
    for spec in (SPEC, other):
        watched = await opened(database.dsn, spec)
        async with watched.reader:
            assert [event.key for event in await watched.events()] == ["1"]
    await destroy(database.dsn, other, names_of(other))
    assert not await plan(database.dsn, SPEC, NAMES)


async def test_another_apply_that_does_not_end_is_told(database: Database) -> None:
    async with await database.connect() as another:
        await another.execute("SELECT pg_advisory_lock(%s)", [_ADVISORY_KEY])
        with pytest.raises(DatabaseError, match="or another apply or destroy") as refused:
            await apply(database.dsn, SPEC, NAMES, patience=0)
    assert refused.value.reason is Reason.TABLE_LOCKED


async def test_a_role_whose_default_is_serializable(database: Database) -> None:
    await database.execute(
        f"ALTER DATABASE {database.name} SET default_transaction_isolation = 'serializable';"
        f" ALTER DATABASE {database.name} SET standard_conforming_strings = off"
    )
    spec = spec_of(name="back\\slash", columns=("n",))
    await asyncio.gather(*(apply(database.dsn, spec, names_of(spec)) for _ in range(4)))
    assert not await plan(database.dsn, spec, names_of(spec))
    watched = await opened(database.dsn, spec)
    async with watched.reader:
        await database.execute("INSERT INTO t VALUES (1, 1)")
        assert [event.key for event in await watched.events()] == ["1"]


async def test_what_is_ours_lies_in_heaps(database: Database) -> None:
    """Whatever tables are made as otherwise, such as by column: rings are read by address, and rows are updated."""
    await database.execute("CREATE ACCESS METHOD another TYPE TABLE HANDLER heap_tableam_handler")
    await database.execute(f"ALTER DATABASE {database.name} SET default_table_access_method = 'another'")
    await apply(database.dsn, SPEC, NAMES)
    found = await database.execute(
        "SELECT DISTINCT a.amname FROM pg_class c JOIN pg_am a ON a.oid = c.relam"
        " WHERE c.relnamespace = 'tablewatcher'::regnamespace AND c.relkind = 'r'"
    )
    assert found == [("heap",)]


async def test_destroy_leaves_the_catalog_as_it_was(database: Database) -> None:
    before = await database.execute(CATALOG)
    await apply(database.dsn, SPEC, NAMES)
    assert await database.execute(CATALOG) != before
    await destroy(database.dsn, SPEC, NAMES)
    assert await database.execute(CATALOG) == before
    await destroy(database.dsn, SPEC, NAMES)


async def test_the_schema_is_not_taken_from_under_an_apply(database: Database) -> None:
    """Which has looked at it, and is about to make tables there."""
    await database.execute(f"CREATE SCHEMA tablewatcher; COMMENT ON SCHEMA tablewatcher IS '{SCHEMA_COMMENT}'")
    async with await database.connect() as applying, connected(database.dsn) as destroying:
        async with applying.transaction():
            await applying.execute("SELECT pg_advisory_xact_lock(%s)", [_ADVISORY_KEY])
            await _drop_empty_schema(destroying)
            await applying.execute("CREATE TABLE tablewatcher.t ()")
        await applying.execute("DROP TABLE tablewatcher.t")
        await _drop_empty_schema(destroying)
    assert await database.execute("SELECT FROM pg_namespace WHERE nspname = 'tablewatcher'") == []


async def test_a_schema_that_others_made_stays(database: Database) -> None:
    await database.execute("CREATE SCHEMA tablewatcher; GRANT USAGE ON SCHEMA tablewatcher TO PUBLIC")
    before = await database.execute(CATALOG)
    await apply(database.dsn, SPEC, NAMES)
    await destroy(database.dsn, SPEC, NAMES)
    assert await database.execute(CATALOG) == before


async def test_retain_keeps_ring_and_rows(database: Database) -> None:
    await apply(database.dsn, SPEC, NAMES)
    await database.execute("INSERT INTO t VALUES (1, 1)")
    await destroy(database.dsn, replace(SPEC, deletion_policy=DeletionPolicy.RETAIN), NAMES)
    await database.execute("INSERT INTO t VALUES (2, 2)")
    assert await database.execute("SELECT FROM pg_trigger WHERE NOT tgisinternal") == []
    await apply(database.dsn, SPEC, NAMES)
    await database.execute("INSERT INTO t VALUES (3, 3)")
    watched = await opened(database.dsn, SPEC)
    async with watched.reader:
        # What was written in between was not captured, and that is said.
        assert [(event.op, event.key) for event in await watched.events()] == [("i", "1"), ("g", "_"), ("i", "3")]


FOREIGN = {
    "function": f"COMMENT ON FUNCTION {FUNCTION}() IS 'somebody/else/w'",
    "ring": f"COMMENT ON TABLE tablewatcher.{NAMES.rings[1]} IS NULL",
    "sequence": f"COMMENT ON SEQUENCE tablewatcher.{NAMES.stop} IS 'x'",
}


@pytest.mark.parametrize("name", FOREIGN)
async def test_what_carries_another_identity_is_left_alone(name: str, database: Database) -> None:
    await apply(database.dsn, SPEC, NAMES)
    await database.execute(FOREIGN[name])
    before = await database.execute(CATALOG)
    for action in (plan, apply, destroy):
        with pytest.raises(DatabaseError) as refused:
            await action(database.dsn, SPEC, NAMES)
        assert refused.value.reason is Reason.OWNED_ELSEWHERE
        remedy = "DROP SCHEMA tablewatcher CASCADE" if name == "ring" else "another metadata.name"
        assert remedy in refused.value.message
    assert await database.execute(CATALOG) == before


@dataclass(frozen=True)
class Role:
    name: str
    dsn: str


@pytest.fixture
async def roles(database: Database) -> AsyncIterator[list[Role]]:
    """Three roles with awkward names and no right but to connect."""
    made = []
    for nth in range(3):
        name, password = f'Role "{nth}" {secrets.token_hex(4)}', secrets.token_hex(8)
        await database.execute(f"CREATE ROLE {identifier(name)} LOGIN PASSWORD '{password}'")
        made.append(Role(name, database.dsn_of(name, password)))
    yield made
    for role in made:
        await database.execute(
            f"REASSIGN OWNED BY {identifier(role.name)} TO CURRENT_USER; DROP OWNED BY {identifier(role.name)};"
            f" DROP ROLE {identifier(role.name)}"
        )


async def granted(database: Database, role: Role, spec: WatcherSpec = SPEC) -> list[str]:
    """Applies as `role`, running each GRANT that a refusal names, until it works; the statements that were run."""
    ran: list[str] = []
    for _ in range(6):
        try:
            await apply(role.dsn, spec, names_of(spec))
        except DatabaseError as error:
            refusal = error
        else:
            return ran
        assert refusal.reason is Reason.PERMISSION_DENIED, refusal.message
        grants = re.findall(r"(GRANT .+?)(?:; |;$)", refusal.message)
        assert grants, refusal.message
        for grant in grants:
            await database.execute(grant)
        ran += grants
    raise AssertionError(f"still refused after {ran}")


async def test_each_missing_right_is_named_and_its_grant_is_enough(database: Database, roles: list[Role]) -> None:
    role = roles[0]
    quoted = identifier(role.name)
    await database.execute(
        f"REVOKE ALL ON SCHEMA public FROM PUBLIC; REVOKE ALL ON DATABASE {database.name} FROM PUBLIC"
    )
    await database.execute(
        f"GRANT CONNECT ON DATABASE {database.name} TO {quoted}; REVOKE USAGE ON LANGUAGE plpgsql, sql FROM PUBLIC"
    )
    assert await granted(database, role) == [
        f'GRANT CREATE ON DATABASE "{database.name}" TO {quoted}',
        f"GRANT USAGE ON LANGUAGE plpgsql, sql TO {quoted}",
        f'GRANT USAGE ON SCHEMA "public" TO {quoted}',
        f'GRANT TRIGGER ON TABLE "public"."t" TO {quoted}',
    ]
    watched = await opened(role.dsn, SPEC)
    async with watched.reader:
        await database.execute("INSERT INTO t VALUES (1, 1)")
        assert [event.key for event in await watched.events()] == ["1"]
    # Neither needs to own the table: removal works with the same rights.
    await destroy(role.dsn, SPEC, NAMES)
    assert await database.execute("SELECT FROM pg_namespace WHERE nspname = 'tablewatcher'") == []


async def test_two_roles_share_a_database(database: Database, roles: list[Role]) -> None:
    first, second, _ = roles
    other = spec_of(name="other")
    await granted(database, first)
    ran = await granted(database, second, other)
    assert any("tablewatcher.watcher" in grant for grant in ran)
    await destroy(first.dsn, SPEC, NAMES)
    await destroy(second.dsn, other, names_of(other))
    left = await database.execute("SELECT relname FROM pg_class WHERE relname ~ '^(ring|cursor|ids)_'")
    assert left == []


async def test_partitions_of_a_table_that_others_own(database: Database, roles: list[Role]) -> None:
    owner, role, _ = roles
    spec = spec_of("p", actions=ALL - {Action.TRUNCATE})
    await database.execute(f"GRANT CREATE, USAGE ON SCHEMA public TO {identifier(owner.name)}")
    async with await psycopg.AsyncConnection.connect(owner.dsn, autocommit=True) as application:
        await application.execute("CREATE TABLE p (id int PRIMARY KEY) PARTITION BY RANGE (id)")
        await application.execute("CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (10)")
        ran = await granted(database, role, spec)
        assert f'GRANT TRIGGER ON TABLE "public"."p", public.p1 TO {identifier(role.name)}' in ran
        # The application's own DDL goes on as before: a new partition gets our trigger in its owner's name.
        await application.execute("CREATE TABLE p2 PARTITION OF p FOR VALUES FROM (10) TO (20)")
        await application.execute("INSERT INTO p VALUES (1), (11)")
    watched = await opened(role.dsn, spec)
    async with watched.reader:
        assert [event.key for event in await watched.events()] == ["1", "11"]
    # There is nothing for us to make on that one, but for what tells of a TRUNCATE of it alone.
    assert not await plan(role.dsn, spec, names_of(spec))
    await database.execute(f"REVOKE TRIGGER ON p1 FROM {identifier(role.name)}")
    assert not await plan(role.dsn, spec, names_of(spec))
    with pytest.raises(DatabaseError, match=f"GRANT TRIGGER ON TABLE public.p1, public.p2 TO {identifier(role.name)};"):
        await plan(role.dsn, replace(spec, actions=ALL), names_of(spec))
    await destroy(role.dsn, spec, names_of(spec))


async def test_publication_for_all_tables(database: Database) -> None:
    await database.execute('SET client_min_messages = error; CREATE PUBLICATION "every ""thing" FOR ALL TABLES')
    with pytest.raises(DatabaseError, match='"every ""thing"') as refused:
        await apply(database.dsn, SPEC, NAMES)
    assert refused.value.reason is Reason.PUBLICATION_CONFLICT
    assert "publication.autocreate.mode=filtered" in refused.value.message
    await database.execute('DROP PUBLICATION "every ""thing"; CREATE PUBLICATION one FOR TABLE t')
    assert (await apply(database.dsn, SPEC, NAMES)).plan


MISSING = {
    "table": (spec_of("T"), Reason.TABLE_NOT_FOUND, "public.T (spec.table) in database"),
    "view": (spec_of("v"), Reason.TABLE_NOT_FOUND, "a view"),
    "column": (spec_of(columns=("nope",)), Reason.COLUMN_NOT_FOUND, "spec.columns"),
    "trigger column": (spec_of(trigger_columns=("nope",)), Reason.COLUMN_NOT_FOUND, "spec.triggerColumns"),
    "name past 63 bytes": (spec_of("x" * 64), Reason.TABLE_NOT_FOUND, "no table"),
}


@pytest.mark.parametrize("name", MISSING)
async def test_what_is_not_there_is_said(name: str, database: Database) -> None:
    await database.execute(f"CREATE VIEW v AS SELECT * FROM t; CREATE TABLE {'x' * 63} (id int)")
    spec, reason, words = MISSING[name]
    with pytest.raises(DatabaseError, match=re.escape(words)) as refused:
        await apply(database.dsn, spec, names_of(spec))
    assert refused.value.reason is reason
    assert await database.execute("SELECT FROM pg_namespace WHERE nspname = 'tablewatcher'") == []


NAME = st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]), min_size=1).filter(
    lambda text: len(text.encode()) <= 63
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=NAME, text=st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"])))
def test_quoting_gives_back_what_was_put_in(name: str, text: str, any_database: Database) -> None:
    for setting in ("on", "off"):
        with psycopg.connect(any_database.dsn, autocommit=True) as connection:
            connection.execute(f"SET standard_conforming_strings = {setting}; SET escape_string_warning = off".encode())
            cursor = connection.execute(f"SELECT {literal(text)} AS {identifier(name)}".encode())
            assert cursor.description is not None
            assert (cursor.description[0].name, cursor.fetchone()) == (name, (text,))


def test_quoting_agrees_with_psycopg() -> None:
    assert identifier('a"b') == sql.Identifier('a"b').as_string(None) == '"a""b"'
    assert json.loads(literal('"x"')[1:-1]) == "x"
