"""When writers may be asked to wake a listener."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import psycopg
import pytest

from tablewatcher.embedded import EmbeddedPostgres
from tablewatcher.postgres.database import open_session
from tablewatcher.postgres.ring import wakeup
from tablewatcher.postgres.ring.upkeep import Ring
from tablewatcher.spec.model import Capture, Granularity

from ..conftest import POSTGRES_SETTINGS, Database, poll
from .capturing import spec_of, watch


async def test_nobody_is_asked_while_another_session_fills_the_queue(server_directory: Path) -> None:
    """One that listens and sits in a transaction keeps all notifications, and a full queue fails writers' commits."""
    settings = {**POSTGRES_SETTINGS, "max_notify_queue_pages": "64"}
    with EmbeddedPostgres(server_directory / "small_queue", 18, settings) as server:
        database = Database(server, "postgres")
        session = await open_session(database.dsn)
        try:
            assert await session.wakeup.usable()
            async with await database.connect() as sits:
                await sits.execute("LISTEN other")
                await sits.execute("BEGIN; SELECT 1")
                many = "SELECT pg_notify('other', repeat('x', 7000) || n) FROM generate_series(1, 40) AS n"
                await database.execute(many)
                assert not await session.wakeup.usable()
            await poll(session.wakeup.usable)
        finally:
            await session.close()


async def test_a_server_that_answers_nothing_is_given_up(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its system acknowledges what is sent, as a proxy does before a host that is gone."""
    monkeypatch.setattr(wakeup, "_PROBE_SECONDS", 0.2)
    monkeypatch.setattr(wakeup, "_ANSWER_SECONDS", 1.0, raising=False)
    session = await open_session(database.dsn)
    ours = "SELECT pid FROM pg_stat_activity WHERE application_name LIKE 'tablewatcher listener%' AND datname = "
    pids = [pid for (pid,) in await database.execute(f"{ours} current_database()")]
    assert len(pids) == 3
    try:
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        waiting = [asyncio.create_task(each.execute("SELECT 1")) for each in (session.reader, session.writer)]
        done, _ = await asyncio.wait(waiting, timeout=20)
        assert len(done) == 2
        assert all(isinstance(task.exception(), psycopg.OperationalError) for task in done)

        async def is_over() -> bool:
            return not session.alive

        await poll(is_over)
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)
        await session.close()


WRITES = ["INSERT INTO t SELECT g FROM generate_series(1, 50) AS g", "UPDATE t SET n = 1", "DELETE FROM t"]


@pytest.mark.parametrize("granularity", [Granularity.AUTO, Granularity.ROW])
async def test_writers_notify_while_they_are_asked_to_and_not_after(
    granularity: Granularity, any_database: Database
) -> None:
    """In each form; a listener that died leaves its wish behind, and it ends by itself."""
    await any_database.execute("CREATE TABLE t (id int PRIMARY KEY, n int)")
    watched = await watch(any_database.dsn, spec_of(capture=Capture(granularity=granularity)))
    wake = f"SELECT setval('tablewatcher.{watched.names.wake}', %s + %s * extract(epoch FROM now())::bigint)"
    session = await open_session(any_database.dsn)
    try:
        woken = await session.wakeup.subscribe(watched.names.channel)
        sentinel = await session.wakeup.subscribe("sentinel")
        for until, asked in (((60, 1), True), ((-1, 1), False), ((0, 0), False), ((60, 1), True)):
            await any_database.execute(wake, *until)
            for write in WRITES:
                woken.clear()
                sentinel.clear()
                await any_database.execute(write)
                # Notifications come in the order of commits: after this one none of the write is on its way.
                await any_database.execute("NOTIFY sentinel")
                async with asyncio.timeout(30):
                    await sentinel.wait()
                assert woken.is_set() is asked, (write, until)
    finally:
        await session.close()
        await watched.reader.close()


async def test_what_is_asked_of_writers_ends_within_ten_seconds(any_database: Database) -> None:
    """Whoever asked may die, or be cut off: NOTIFY at every commit costs writers most of their speed."""
    await any_database.execute("CREATE TABLE t (id int PRIMARY KEY)")
    watched = await watch(any_database.dsn, spec_of())
    ring = Ring(watched.reader, asyncio.Lock(), watched.names)

    async def seconds_left() -> float:
        wake = f"SELECT last_value - extract(epoch FROM clock_timestamp()) FROM tablewatcher.{watched.names.wake}"
        return float((await any_database.execute(wake))[0][0])

    async with watched.reader:
        await ring.arm()
        assert 0 < await seconds_left() <= 10
        await ring.disarm()
        assert await seconds_left() < 0
