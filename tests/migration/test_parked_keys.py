"""Keys of events put aside are found by the order of their bytes, which no upgrade of a system changes."""

from __future__ import annotations

import asyncio

import pytest

from tablewatcher.errors import DatabaseError, Reason
from tablewatcher.postgres.connection.session import connect
from tablewatcher.postgres.install.apply import apply
from tablewatcher.postgres.parked import Parked, of_key

from ..conftest import Database
from ..integration.capturing import names_of, plan, spec_of

SPEC = spec_of()
NAMES = names_of(SPEC)
KEYS = ("a-b", "a_b", "aB", "Ab", "%C3%A4", "a,b")
# So that to read all of them is no way for a planner.
MANY = tuple(map(str, range(3000)))
# As the earlier version made them: in whatever order the database has.
EARLIER = """
DELETE FROM tablewatcher.migration WHERE version >= 8;
ALTER TABLE tablewatcher.watcher DROP COLUMN table_name;
DROP INDEX tablewatcher.parked_key, tablewatcher.parked_old_key;
CREATE INDEX parked_key ON tablewatcher.parked (hash, key, n);
CREATE INDEX parked_old_key ON tablewatcher.parked (hash, old_key, n) WHERE old_key IS NOT NULL
"""

FILL = """
INSERT INTO tablewatcher.parked
  (hash, ring_id, event_id, op, key, old_key, time, captured_at, sequence, data, attempts, reason, message)
SELECT %s, nth, 'e', 'u', key, CASE nth WHEN 1 THEN 'before' END, '', 0, '', '{}', 0, '', ''
FROM unnest(%s::text[]) WITH ORDINALITY AS k (key, nth)
"""
ORDERS = """
SELECT r.relname::text, c.collname::text
FROM pg_index i JOIN pg_class r ON r.oid = i.indexrelid
CROSS JOIN LATERAL unnest(i.indcollation) WITH ORDINALITY AS o (oid, nth) JOIN pg_collation c ON c.oid = o.oid
WHERE r.relname IN ('parked_key', 'parked_old_key') AND o.nth = 2 ORDER BY 1
"""


@pytest.fixture
async def database(any_database: Database) -> Database:
    """A ring with an event aside for each key, the first of which was `before`."""
    await any_database.execute("CREATE TABLE t (id text PRIMARY KEY)")
    await apply(any_database.dsn, SPEC, NAMES)
    await any_database.execute(FILL, NAMES.hash, [*KEYS, *MANY])
    await any_database.execute(EARLIER)
    return any_database


async def test_indexes_of_an_earlier_version_are_made_again(database: Database) -> None:
    await apply(database.dsn, SPEC, NAMES)
    assert not await plan(database.dsn, SPEC, NAMES)
    assert await database.execute(ORDERS) == [("parked_key", "C"), ("parked_old_key", "C")]
    async with await database.connect() as connection:
        await connection.execute("ANALYZE tablewatcher.parked")
        meant = f"hash = '{NAMES.hash}' AND {of_key('ANY (ARRAY[1::text])')}"
        found = await connection.execute(f"EXPLAIN SELECT FROM tablewatcher.parked WHERE {meant}".encode())
        explained = str(await found.fetchall())
    assert "parked_key" in explained
    assert "parked_old_key" in explained


async def test_they_are_made_once_however_often_a_lock_is_tried_for(database: Database) -> None:
    await database.execute(f"DROP FUNCTION tablewatcher.{NAMES.function} CASCADE")
    async with await database.connect() as blocker, blocker.transaction():
        await blocker.execute("INSERT INTO t VALUES ('x')")
        with pytest.raises(DatabaseError) as refused:
            await apply(database.dsn, SPEC, NAMES, patience=1.0)
    assert refused.value.reason is Reason.TABLE_LOCKED
    assert "schema tablewatcher was brought up, and nothing else was changed" in refused.value.message
    made = "SELECT relfilenode FROM pg_class WHERE relname IN ('parked_key', 'parked_old_key') ORDER BY 1"
    before = await database.execute(made)
    assert await database.execute(ORDERS) == [("parked_key", "C"), ("parked_old_key", "C")]
    steps = (await apply(database.dsn, SPEC, NAMES)).plan.steps
    assert not [step for step in steps if step.goes_ahead]
    assert await database.execute(made) == before


async def test_both_transactions_are_told_as_one_plan(database: Database) -> None:
    await database.execute(f"DROP FUNCTION tablewatcher.{NAMES.function} CASCADE")
    planned = await plan(database.dsn, SPEC, NAMES)
    assert (await apply(database.dsn, SPEC, NAMES)).plan == planned


@pytest.mark.parametrize("is_brought_up", [False, True])
async def test_events_are_found_before_and_after(database: Database, is_brought_up: bool) -> None:
    if is_brought_up:
        await apply(database.dsn, SPEC, NAMES)
    connection = await connect(database.dsn)
    async with connection:
        parked = Parked(connection, asyncio.Lock(), SPEC, NAMES)
        for nth, key in enumerate(KEYS, 1):
            events, more = await parked.first([key], 1)
            assert ([event.ring_id for event in events], more) == ([nth], set())
        assert sorted(await parked.lanes_of(["before"])) == sorted(["before", KEYS[0]])
        assert set(await parked.keys()) == {*KEYS, *MANY, "before"}
