"""A watcher that an earlier version made is brought up to this one, with what it holds."""

from __future__ import annotations

from pathlib import Path

import pytest

from tablewatcher.errors import DatabaseError, Reason
from tablewatcher.postgres.database import Progress, open_session
from tablewatcher.postgres.install.apply import apply, destroy
from tablewatcher.postgres.progress import drained
from tablewatcher.postgres.standing import standing
from tablewatcher.spec.model import Capture, NatsSink

from ..conftest import Database
from ..integration.capturing import names_of, opened, plan, spec_of

EARLIER = (Path(__file__).parent / "watcher_0_1.sql").read_text()
SINK = NatsSink(("nats://127.0.0.1:4222",), "s.{column:status}")
SPEC = spec_of("bench", columns=("status", "total"), sink=SINK, capture=Capture(allow_skip=True))
NAMES = names_of(SPEC)


@pytest.fixture
async def database(any_database: Database) -> Database:
    await any_database.execute("CREATE TABLE bench (id bigint PRIMARY KEY, status text, total numeric)")
    await any_database.execute(EARLIER)
    await any_database.execute("INSERT INTO bench VALUES (1, 'old', 1); UPDATE bench SET total = 2")
    return any_database


async def test_what_an_earlier_version_caught_is_delivered_by_this_one(database: Database) -> None:
    assert (await apply(database.dsn, SPEC, NAMES)).plan
    assert not await plan(database.dsn, SPEC, NAMES)
    await database.execute("INSERT INTO bench VALUES (2, 'new', 1)")
    await database.execute("SET tablewatcher.skip = on; INSERT INTO bench VALUES (3, 'skipped', 1)")
    await database.execute("INSERT INTO bench SELECT g, 'many', 1 FROM generate_series(4, 200) g")
    watched = await opened(database.dsn, SPEC)
    async with watched.reader:
        events = await watched.events()
        assert [(event.op, event.key, event.routing) for event in events] == [
            ("i", "1", ["old"]),
            ("u", "1", ["old"]),
            ("i", "2", ["new"]),
            *(("i", str(key), ["many"]) for key in range(4, 201)),
        ]
        ids = [event.ring_id for event in events]
        assert ids == sorted(set(ids))
    await destroy(database.dsn, SPEC, NAMES)
    assert await database.execute("SELECT FROM pg_namespace WHERE nspname = 'tablewatcher'") == []


async def test_what_is_undelivered_is_told_of_a_watcher_as_it_was(database: Database) -> None:
    stands = await standing(database.dsn, NAMES)
    assert stands is not None
    assert stands.waiting == 2
    assert not await drained(database.dsn, NAMES, seconds=0)


async def test_a_listener_of_this_version_is_heard_before_the_upgrade(database: Database) -> None:
    """Its words are written and read without what the table has no column for."""
    session = await open_session(database.dsn)
    try:
        for known in (False, True):
            await session.report(NAMES, Progress(0, "h", 1, True, "Forwarding", "an event got 409", refused=True))
            stands = await standing(database.dsn, NAMES)
            assert stands is not None
            assert (stands.message, stands.refused) == ("an event got 409", known)
            await apply(database.dsn, SPEC, NAMES)
        await session.report(NAMES, Progress(0, "h", 1, True, "Forwarding", ""))
        stands = await standing(database.dsn, NAMES)
        assert stands is not None
        assert not stands.refused
    finally:
        await session.close()


async def test_a_writer_in_the_middle_of_it_is_not_held_up(database: Database) -> None:
    async with await database.connect() as writer, writer.transaction():
        await writer.execute("INSERT INTO bench VALUES (2, 'open', 1)")
        with pytest.raises(DatabaseError) as refused:
            await apply(database.dsn, SPEC, NAMES, patience=0.1)
        assert refused.value.reason is Reason.TABLE_LOCKED
        await writer.execute("SET LOCAL lock_timeout = '1s'")
        await writer.execute("INSERT INTO bench VALUES (3, 'open', 1)")
    assert (await apply(database.dsn, SPEC, NAMES)).plan
    watched = await opened(database.dsn, SPEC)
    async with watched.reader:
        assert [event.key for event in await watched.events()] == ["1", "1", "2", "3"]


async def test_what_a_second_role_is_told_can_be_run_before_the_upgrade(database: Database) -> None:
    """It names no table that the earlier version has not made."""
    await database.execute("CREATE ROLE second_of_two LOGIN PASSWORD 'p'")
    try:
        for words in ("must run: ", "another role has made it"):
            with pytest.raises(DatabaseError) as refused:
                await apply(database.dsn_of("second_of_two", "p"), SPEC, NAMES)
            assert refused.value.reason is Reason.PERMISSION_DENIED
            assert words in refused.value.message
            await database.execute(refused.value.message.partition("must run: ")[2] or "SELECT")
    finally:
        await database.execute("DROP OWNED BY second_of_two; DROP ROLE second_of_two")
