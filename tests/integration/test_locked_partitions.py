"""A partition that somebody has locked, as by emptying it in a transaction that stays open: whoever only looks at the
catalog waits for nobody."""

from __future__ import annotations

import asyncio

import pytest

from tablewatcher.errors import DatabaseError, Reason
from tablewatcher.postgres.connection.session import connect
from tablewatcher.postgres.install.apply import apply
from tablewatcher.postgres.ring.gaps import Gaps
from tablewatcher.postgres.standing import standing
from tablewatcher.spec.model import Action

from ..conftest import Database
from .capturing import names_of, plan, spec_of, watching

CHANGES = frozenset({Action.INSERT, Action.UPDATE, Action.DELETE})
SPEC, OTHER = spec_of("p", actions=CHANGES), spec_of("p", actions=CHANGES, name="other")
TABLES = (
    "CREATE TABLE p (id int PRIMARY KEY) PARTITION BY RANGE (id);"
    " CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (10) PARTITION BY RANGE (id);"
    " CREATE TABLE p11 PARTITION OF p1 FOR VALUES FROM (0) TO (10)"
)


async def test_what_is_there_is_seen_and_who_is_in_the_way_is_named(any_database: Database) -> None:
    async with watching(any_database, TABLES, SPEC) as watched, await any_database.connect() as holder:
        await holder.execute("BEGIN; TRUNCATE p11; INSERT INTO p11 VALUES (1)")
        async with asyncio.timeout(10):
            assert not await plan(any_database.dsn, SPEC, watched.names)
            assert not (await apply(any_database.dsn, SPEC, watched.names)).plan
            with pytest.raises(DatabaseError, match=f"pid {holder.info.backend_pid}") as refused:
                await apply(any_database.dsn, OTHER, names_of(OTHER), patience=0)
        assert refused.value.reason is Reason.TABLE_LOCKED


async def test_a_gap_waits_for_it_and_delivery_does_not(any_database: Database) -> None:
    async with (
        watching(any_database, TABLES, SPEC) as watched,
        await any_database.connect() as holder,
        await connect(any_database.dsn) as writer,
    ):
        gaps = Gaps(writer, asyncio.Lock(), watched.names)
        await holder.execute("BEGIN; TRUNCATE p11; INSERT INTO p11 VALUES (1)")
        await gaps.resume_capture(1_700_000_000)
        async with asyncio.timeout(10):
            await gaps.announce(0)
            found = await standing(any_database.dsn, watched.names)
        assert found is not None
        assert [who.pid for who in found.gaps[0].waits_for] == [holder.info.backend_pid]
        assert await watched.events() == []
        await holder.execute("COMMIT")
        await gaps.announce(0)
        assert sorted(event.op for event in await watched.events()) == ["g", "i"]
