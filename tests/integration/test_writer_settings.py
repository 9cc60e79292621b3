"""A writer's session may be set to anything: its writes succeed, and their events are the same as everybody's."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tablewatcher.postgres.install.apply import apply
from tablewatcher.spec.model import Action, Capture, Condition, Granularity, Operator

from ..conftest import Database, poll
from .capturing import names_of, opened, spec_of, watch

CHANGES = frozenset({Action.INSERT, Action.UPDATE, Action.DELETE})
# Names and values that a setting of the parser could read in two ways.
TABLE = """CREATE TABLE t (id int PRIMARY KEY, "it's \\ n" text, j jsonb, a text[], e mood, at timestamptz)"""
# Of this all columns are sent, and its rows are gathered by column.
WIDE = 'CREATE TABLE w (id int PRIMARY KEY, "it\'s \\ n" text, e mood, at timestamptz, b bytea)'
NAME = "it's \\ n"
WRITES = (
    """INSERT INTO t VALUES (0, chr(92) || chr(39), '{"a": null}', ARRAY['NULL', NULL, chr(92)], 'so', 'epoch')""",
    "INSERT INTO t SELECT g, repeat('x', 50) || g, '[1]', ARRAY[NULL::text], 'so' FROM generate_series(1, 100) AS g",
    "INSERT INTO w SELECT g, CASE WHEN g % 2 = 0 THEN chr(92) END, 'so', 'epoch', 'x' FROM generate_series(1, 50) AS g",
    'UPDATE t SET "it\'s \\ n" = NULL WHERE id IN (5, 6)',
    "DELETE FROM t WHERE id = 7",
)
SPECS = (
    spec_of(
        name="chosen",
        columns=(NAME, "j"),
        trigger_columns=(NAME,),
        where=(Condition("id", Operator.LESS_THAN, ("90",)),),
        include_before=True,
        actions=CHANGES,
    ),
    spec_of(name="whole", columns=("*",), include_before=True, actions=CHANGES),
    spec_of(name="rows", columns=("a", "e", "at"), actions=CHANGES, capture=Capture(granularity=Granularity.ROW)),
    spec_of("w", name="wide", columns=("*",), actions=CHANGES),
)
PLANNER_OFF = ("seqscan", "indexscan", "bitmapscan", "tidscan", "nestloop", "hashjoin", "mergejoin", "sort", "material")
SETTINGS: dict[str, dict[str, str]] = {
    "read only unless said otherwise": {"default_transaction_read_only": "on"},
    "no security by rows": {"row_security": "off"},
    "null equals null": {"transform_null_equals": "on"},
    "strings with backslashes": {"standard_conforming_strings": "off", "escape_string_warning": "off"},
    "no quotes by backslash": {"backslash_quote": "off"},
    "all identifiers quoted": {"quote_all_identifiers": "on"},
    "no NULL in arrays": {"array_nulls": "off"},
    "xml": {"xmlbinary": "hex", "xmloption": "document"},
    "bytes and dates": {"bytea_output": "escape", "datestyle": "SQL, DMY", "timezone": "Asia/Kathmandu"},
    "names are variables": {"plpgsql.variable_conflict": "use_variable"},
    "names are columns": {"plpgsql.variable_conflict": "use_column"},
    "every check of PL/pgSQL": {
        "plpgsql.extra_errors": "all",
        "plpgsql.extra_warnings": "all",
        "plpgsql.check_asserts": "off",
        "plpgsql.print_strict_params": "on",
    },
    "bodies unchecked": {"check_function_bodies": "off"},
    "all compiled": {
        "jit": "on",
        "jit_above_cost": "0",
        "jit_inline_above_cost": "0",
        "jit_optimize_above_cost": "0",
    },
    "in parallel": {
        "debug_parallel_query": "regress",
        "parallel_setup_cost": "0",
        "parallel_tuple_cost": "0",
        "min_parallel_table_scan_size": "0",
    },
    "plans made anew": {"plan_cache_mode": "force_custom_plan"},
    "plans kept": {"plan_cache_mode": "force_generic_plan"},
    "planner without choice": {f"enable_{name}": "off" for name in PLANNER_OFF},
    "planner that gives up": {"from_collapse_limit": "1", "join_collapse_limit": "1", "geqo_threshold": "2"},
    "little memory": {"work_mem": "64kB", "max_stack_depth": "100kB", "temp_buffers": "800kB"},
    "no views": {"restrict_nonsystem_relation_kind": "view, foreign-table"},
    "serializable": {"default_transaction_isolation": "serializable", "default_transaction_deferrable": "on"},
    "impatient": {"lock_timeout": "1ms", "deadlock_timeout": "1ms"},
    "talkative": {"client_min_messages": "debug5", "track_functions": "all", "client_encoding": "LATIN1"},
}


async def written(database: Database, settings: dict[str, str]) -> list[list[dict[str, Any]]]:
    """The events of one round of writes under `settings`, of each watcher; the table is empty again."""
    async with await database.connect() as writer:
        for name, value in settings.items():
            await writer.execute("SELECT set_config(%s, %s, false)", [name, value])
        await writer.execute("BEGIN READ WRITE")
        for statement in WRITES:
            await writer.execute(statement.encode())
        await writer.execute("COMMIT")
    await database.execute("SET session_replication_role = replica; TRUNCATE t, w")
    found = []
    for spec in SPECS:
        watched = await opened(database.dsn, spec)
        async with watched.reader:
            found.append(await watched.data())
            rings = ", ".join(f"tablewatcher.{ring}" for ring in watched.names.rings)
            await watched.reader.execute(f"TRUNCATE {rings}".encode())
    return found


async def test_events_are_the_same_whatever_the_writer_has_set(any_database: Database) -> None:
    await any_database.execute(f"CREATE TYPE mood AS ENUM ('so'); {TABLE}; {WIDE}")
    for spec in SPECS:
        await apply(any_database.dsn, spec, names_of(spec))
    expected = await written(any_database, {})
    assert [len(events) for events in expected] == [90 + 2 + 1, 101 + 2 + 1, 101 + 2 + 1, 50]
    assert not any("truncated" in data for events in expected for data in events)
    version = any_database.server.version
    for name, settings in SETTINGS.items():
        known = dict(settings)
        if version < 16 and "debug_parallel_query" in known:
            known["force_parallel_mode"] = known.pop("debug_parallel_query")
        offered = {row[0] for row in await any_database.execute("SELECT lower(name) FROM pg_settings")}
        known = {key: value for key, value in known.items() if key in offered or "." in key}
        assert await written(any_database, known) == expected, name


@pytest.mark.parametrize("granularity", [Granularity.AUTO, Granularity.ROW])
@pytest.mark.parametrize("rows", [1, 3000])
async def test_a_short_lock_timeout_fails_no_write(rows: int, granularity: Granularity, any_database: Database) -> None:
    """While the listener has a lock on the slot it empties, the look at the ring's size cannot be had in time."""
    await any_database.execute("CREATE TABLE t (id int PRIMARY KEY, n text)")
    spec = spec_of(columns=("n",), actions=CHANGES, capture=Capture(granularity=granularity))
    watched = await watch(any_database.dsn, spec)
    many = f"INSERT INTO t SELECT g, repeat('x', 500) FROM generate_series(%s::int, %s::int + {rows - 1}) AS g"
    async with watched.reader, await any_database.connect() as listener, await any_database.connect() as writer:
        await writer.execute("SET lock_timeout = '1ms'")
        async with listener.transaction():
            lock = f"LOCK TABLE tablewatcher.{watched.names.rings[1]} IN ACCESS EXCLUSIVE MODE"
            await listener.execute(lock.encode())
            for first in range(0, 3000, rows):
                await writer.execute(many.encode(), [first, first])
        events = await watched.events()
    assert [event.key for event in events] == [str(key) for key in range(3000)]


@pytest.mark.parametrize("granularity", [Granularity.AUTO, Granularity.ROW])
async def test_a_deadlock_over_the_rings_size_fails_no_write(granularity: Granularity, any_database: Database) -> None:
    """As with `apply`, which changes the tables of a ring one after the other, on a server that soon looks for one."""
    await any_database.execute("CREATE TABLE t (id int PRIMARY KEY, n text)")
    spec = spec_of(columns=("n",), actions=CHANGES, capture=Capture(granularity=granularity))
    watched = await watch(any_database.dsn, spec)
    ring = [f"tablewatcher.{name}" for name in watched.names.rings]
    async with watched.reader, await any_database.connect() as changing, await any_database.connect() as writer:
        await any_database.execute(f"SELECT setval('tablewatcher.{watched.names.slot}', 1)")
        await writer.execute("SET deadlock_timeout = '100ms'; BEGIN; INSERT INTO t VALUES (-1, '')")
        await changing.execute(
            f"SET deadlock_timeout = '1min'; BEGIN; LOCK TABLE {ring[0]} IN ACCESS EXCLUSIVE MODE".encode()
        )
        waiting = asyncio.create_task(changing.execute(f"LOCK TABLE {ring[1]} IN ACCESS EXCLUSIVE MODE".encode()))
        asked = "SELECT 1 FROM pg_locks WHERE NOT granted AND relation = %s::regclass"
        await poll(lambda: any_database.execute(asked, ring[1]))
        await writer.execute("INSERT INTO t SELECT g, repeat('x', 500) FROM generate_series(0, 2999) AS g; COMMIT")
        await waiting
        await changing.execute("COMMIT")
        assert len(await watched.events()) == 3001
