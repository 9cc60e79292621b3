"""A gap is told once, and only when nobody is left who may still commit what capture has not seen."""

from __future__ import annotations

import asyncio
import datetime
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tablewatcher.postgres.connection.session import Connection, connect
from tablewatcher.postgres.drift import Drift
from tablewatcher.postgres.install.apply import apply
from tablewatcher.postgres.ring.gaps import Gaps
from tablewatcher.postgres.ring.holders import holders
from tablewatcher.postgres.ring.upkeep import Ring
from tablewatcher.spec.model import Action

from ..conftest import Database
from ..versions import OLDEST
from .capturing import Watched, names_of, plan, spec_of, watch, watching

SPEC = spec_of(actions=frozenset({Action.INSERT, Action.UPDATE, Action.DELETE}))
NAMES = names_of(SPEC)
STOPPED = 1_700_000_000


@pytest.fixture
async def watched(any_database: Database) -> AsyncIterator[Watched]:
    async with watching(
        any_database, "CREATE TABLE t (id int PRIMARY KEY, n int); CREATE TABLE other (id int)", SPEC
    ) as found:
        yield found


@pytest.fixture
async def writer(watched: Watched) -> AsyncIterator[Connection]:
    async with await connect(watched.dsn) as connection:
        yield connection


@pytest.fixture
def gaps(writer: Connection) -> Gaps:
    return Gaps(writer, asyncio.Lock(), NAMES)


@pytest.fixture
def ring(writer: Connection) -> Ring:
    return Ring(writer, asyncio.Lock(), NAMES)


async def told(watched: Watched) -> list[dict[str, Any]]:
    """The gaps among all that has come."""
    return [json.loads(event.body)["data"]["gap"] for event in await watched.events() if event.op == "g"]


async def stopped(database: Database) -> None:
    """Capture has stopped, as after an overflow."""
    await database.execute(f"SELECT setval('tablewatcher.{NAMES.stop}', {STOPPED})")


async def test_a_gap_waits_for_those_that_ran_without_capture(
    any_database: Database, watched: Watched, gaps: Gaps, ring: Ring
) -> None:
    async with (
        await any_database.connect() as blind,
        await any_database.connect() as elsewhere,
        await any_database.connect() as reading,
    ):
        await stopped(any_database)
        await blind.execute("BEGIN; INSERT INTO t VALUES (1)")
        await elsewhere.execute("BEGIN; INSERT INTO other VALUES (1)")
        await reading.execute("BEGIN; SELECT pg_current_xact_id(); SELECT FROM t")
        await gaps.resume_capture(STOPPED)
        for _ in range(3):
            await gaps.announce(0)
            assert await told(watched) == []
        assert (await ring.gauge()).gaps == 1
        # One that began after capture did is not waited for.
        async with await any_database.connect() as late:
            await late.execute("BEGIN; INSERT INTO t VALUES (2)")
            await blind.execute("INSERT INTO t VALUES (3); COMMIT")
            await gaps.announce(0)
            (gap,) = await told(watched)
    assert gap["reason"] == "overflow"
    assert gap["certain"] is True
    assert datetime.datetime.fromisoformat(gap["from"]).timestamp() == STOPPED - 1
    assert datetime.datetime.fromisoformat(gap["until"]) > datetime.datetime.fromisoformat(gap["from"])
    assert (await ring.gauge()).gaps == 0
    await gaps.announce(0)
    assert await told(watched) == []


async def test_a_gap_that_waits_for_long_is_told_twice(any_database: Database, watched: Watched, gaps: Gaps) -> None:
    async with await any_database.connect() as blind:
        await stopped(any_database)
        await blind.execute("BEGIN; INSERT INTO t VALUES (1)")
        await gaps.resume_capture(STOPPED)
        await gaps.announce(0)
        assert await told(watched) == []
        await gaps.announce(0, patience=0)
        (first,) = await told(watched)
        assert (first["reason"], first["certain"], first["open"]) == ("overflow", True, True)
        assert "until" not in first
        await gaps.announce(0, patience=0)
        assert await told(watched) == []
        await blind.execute("COMMIT")
    await gaps.announce(0, patience=0)
    (last,) = await told(watched)
    assert "open" not in last
    assert last["from"] == first["from"]
    assert last["until"] > last["from"]


async def test_writers_of_a_partition_are_waited_for(any_database: Database) -> None:
    await any_database.execute("CREATE TABLE t (id int PRIMARY KEY) PARTITION BY RANGE (id)")
    await any_database.execute("CREATE TABLE t1 PARTITION OF t FOR VALUES FROM (0) TO (100)")
    watched = await watch(any_database.dsn, SPEC)
    async with watched.reader, await connect(any_database.dsn) as connection, await any_database.connect() as blind:
        gaps = Gaps(connection, asyncio.Lock(), NAMES)
        await stopped(any_database)
        await blind.execute("BEGIN; INSERT INTO t1 VALUES (1)")
        await gaps.resume_capture(STOPPED)
        await gaps.announce(0)
        assert await told(watched) == []
        await blind.execute("ROLLBACK")
        await gaps.announce(0)
        assert len(await told(watched)) == 1


async def test_a_listener_that_dies_in_between_tells_it_later(
    any_database: Database, watched: Watched, gaps: Gaps
) -> None:
    """Noted, but capture not started: the next one starts it, and the gap reaches from the first stop."""
    await stopped(any_database)
    await gaps.resume_capture(STOPPED)
    await any_database.execute(f"SELECT setval('tablewatcher.{NAMES.stop}', {STOPPED + 60})")
    await gaps.announce(0)
    assert await told(watched) == []
    await gaps.resume_capture(STOPPED + 60)
    await gaps.announce(2)
    (gap,) = await told(watched)
    assert datetime.datetime.fromisoformat(gap["from"]).timestamp() == STOPPED - 1


async def test_a_function_replaced_by_hand(any_database: Database, watched: Watched, gaps: Gaps) -> None:
    await any_database.execute(
        f"CREATE OR REPLACE FUNCTION tablewatcher.{NAMES.function}() RETURNS trigger"
        " LANGUAGE plpgsql SECURITY DEFINER AS 'BEGIN RETURN NULL; END'"
    )
    async with await any_database.connect() as blind:
        await blind.execute("BEGIN; INSERT INTO t VALUES (1)")
        assert await apply(watched.dsn, SPEC, NAMES)
        await gaps.announce(0)
        assert await told(watched) == []
        await blind.execute("COMMIT")
    await gaps.announce(0)
    assert [(gap["reason"], gap["certain"]) for gap in await told(watched)] == [("functionReplaced", False)]
    assert not await plan(watched.dsn, SPEC, NAMES)


async def test_a_changed_manifest_is_no_gap(any_database: Database, watched: Watched, ring: Ring) -> None:
    await apply(watched.dsn, spec_of(actions=SPEC.actions, columns=("n",)), NAMES)
    assert (await ring.gauge()).gaps == 0
    assert await told(watched) == []


TAMPERING = {
    "ALTER TABLE t DISABLE TRIGGER USER": "turned off",
    "ALTER TABLE t DISABLE TRIGGER USER; ALTER TABLE t ENABLE TRIGGER USER": "for a while",
    f'ALTER TABLE t ENABLE REPLICA TRIGGER "{NAMES.trigger}"': "turned off",
    f'DROP TRIGGER "{NAMES.trigger}" ON t': "missing",
    f"DROP FUNCTION tablewatcher.{NAMES.function} CASCADE": "missing",
    "DROP TABLE t": "missing",
    "CREATE TABLE new (LIKE t INCLUDING ALL); ALTER TABLE t RENAME TO old; ALTER TABLE new RENAME TO t": "another",
    f"CREATE OR REPLACE FUNCTION tablewatcher.{NAMES.function}() RETURNS trigger LANGUAGE plpgsql AS"
    " 'BEGIN RETURN NULL; END'": "replaced",
    f'CREATE OR REPLACE TRIGGER "{NAMES.trigger}" AFTER INSERT ON t FOR EACH ROW'
    f" EXECUTE FUNCTION tablewatcher.{NAMES.function}()": "missing or turned off",
}


@pytest.mark.parametrize("statement", [each for each in TAMPERING if OLDEST >= 14 or "REPLACE TRIGGER" not in each])
async def test_the_listener_sees_that_capture_is_gone(
    statement: str, any_database: Database, watched: Watched, writer: Connection
) -> None:
    drift = Drift(writer, asyncio.Lock(), NAMES, SPEC)
    assert await drift.look() == ""
    await any_database.execute(statement)
    assert TAMPERING[statement] in await drift.look()
    assert "tablewatcher apply" in await drift.look()
    if statement != "DROP TABLE t":
        await apply(watched.dsn, SPEC, NAMES)
        assert await drift.look() == ""


async def test_a_table_that_became_a_partition(any_database: Database) -> None:
    """What is inserted through its parent fires no trigger for statements of its own: never in silence."""
    await any_database.execute("CREATE TABLE t (id int PRIMARY KEY); CREATE TABLE p (LIKE t) PARTITION BY RANGE (id)")
    spec = spec_of()
    watched = await watch(any_database.dsn, spec)
    async with watched.reader:
        drift = Drift(watched.reader, asyncio.Lock(), NAMES, spec)
        assert await drift.look() == ""
        await any_database.execute(
            "ALTER TABLE p ATTACH PARTITION t FOR VALUES FROM (0) TO (10); INSERT INTO p VALUES (1)"
        )
        assert "partition" in await drift.look()
        await apply(any_database.dsn, spec, NAMES)
        assert await drift.look() == ""
        assert not await plan(any_database.dsn, spec, NAMES)
        await any_database.execute("INSERT INTO p VALUES (2)")
        gap, insert = await watched.data()
    assert (gap["gap"]["reason"], gap["gap"]["certain"]) == ("triggerRepaired", False)
    assert insert["key"] == {"id": 2}


async def test_a_partition_that_is_turned_off(any_database: Database) -> None:
    await any_database.execute("CREATE TABLE t (id int PRIMARY KEY) PARTITION BY RANGE (id)")
    await any_database.execute("CREATE TABLE t1 PARTITION OF t FOR VALUES FROM (0) TO (100)")
    await apply(any_database.dsn, SPEC, NAMES)
    async with await connect(any_database.dsn) as connection:
        drift = Drift(connection, asyncio.Lock(), NAMES, SPEC)
        assert await drift.look() == ""
        await any_database.execute("ALTER TABLE t1 DISABLE TRIGGER USER")
        assert "partition" in await drift.look()


async def test_who_holds_the_ring(any_database: Database, watched: Watched, writer: Connection) -> None:
    async with await any_database.connect() as slow:
        await slow.execute("SET application_name = 'batch'; BEGIN; INSERT INTO t VALUES (1)")
        assert await holders(writer, NAMES, older_than=60) == []
        (found,) = await holders(writer, NAMES, older_than=0)
        assert (found.pid, found.gid, found.application) == (slow.info.backend_pid, None, "batch")
        assert str(slow.info.backend_pid) in str(found)
        await slow.execute("ROLLBACK")
    assert await holders(writer, NAMES, older_than=0) == []


async def test_a_prepared_transaction_that_was_forgotten(two_phase: Database) -> None:
    await two_phase.execute("CREATE TABLE t (id int PRIMARY KEY)")
    watched = await watch(two_phase.dsn, SPEC)
    async with watched.reader, await connect(two_phase.dsn) as connection:
        await stopped(two_phase)
        await two_phase.execute("BEGIN; INSERT INTO t VALUES (1); PREPARE TRANSACTION 'blind'")
        gaps = Gaps(connection, asyncio.Lock(), NAMES)
        await gaps.resume_capture(STOPPED)
        await two_phase.execute("BEGIN; INSERT INTO t VALUES (2); PREPARE TRANSACTION 'seen'")
        (held,) = await holders(connection, NAMES, older_than=0)
        assert (held.pid, held.gid) == (None, "seen")
        assert held.since is not None
        await gaps.announce(0)
        assert await told(watched) == []
        await two_phase.execute("COMMIT PREPARED 'blind'")
        await gaps.announce(0)
        assert len(await told(watched)) == 1
        await two_phase.execute("COMMIT PREPARED 'seen'")
        assert [event.key for event in await watched.events()] == ["2"]
