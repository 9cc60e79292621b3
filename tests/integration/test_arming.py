"""What sleeping rings ask of writers is renewed together, before it ends; where it cannot be, each is woken."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractContextManager

import pytest

from tablewatcher.postgres.database import Session, open_session
from tablewatcher.postgres.install.apply import apply, destroy
from tablewatcher.postgres.ring import arming
from tablewatcher.postgres.ring.arming import Arming, Wish
from tablewatcher.postgres.ring.wakeup import NoWakeup
from tablewatcher.spec.model import WatcherSpec

from ..conftest import Database, poll
from .capturing import names_of, spec_of

SPECS = [spec_of(table, name=table) for table in ("a", "b", "c")]
LONG_AGO = float("-inf")


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arming, "_LOOK_SECONDS", 0.1)


@pytest.fixture
async def session(any_database: Database) -> AsyncIterator[Session]:
    for spec in SPECS:
        await any_database.execute(f"CREATE TABLE {spec.table.name} (id int PRIMARY KEY)")
        await apply(any_database.dsn, spec, names_of(spec))
    opened = await open_session(any_database.dsn)
    yield opened
    await opened.close()


async def seconds_left(database: Database, spec: WatcherSpec) -> float:
    """For how long writers go on notifying."""
    wake = f"SELECT last_value - extract(epoch FROM clock_timestamp()) FROM tablewatcher.{names_of(spec).wake}"
    return float((await database.execute(wake))[0][0])


def kept(
    session: Session, spec: WatcherSpec, woken: asyncio.Event | None = None, asked: float = LONG_AGO
) -> AbstractContextManager[Wish]:
    return session.arming.kept(names_of(spec), woken or asyncio.Event(), asked)


async def test_who_sleeps_is_renewed_and_who_has_left_is_not(any_database: Database, session: Session) -> None:
    woken, begun = asyncio.Event(), asyncio.get_running_loop().time()
    with kept(session, SPECS[2]):
        pass
    with kept(session, SPECS[0], woken) as first, kept(session, SPECS[1], asked=begun) as second:

        async def renewed() -> bool:
            return first.asked >= begun

        await poll(renewed)
        # Not due yet, but they are to be due together.
        assert second.asked == first.asked
        assert all([5 < await seconds_left(any_database, spec) <= 10 for spec in SPECS[:2]])
        assert await seconds_left(any_database, SPECS[2]) < 0
        assert not woken.is_set()


async def test_nobody_is_asked_before_it_is_time(any_database: Database, session: Session) -> None:
    begun = asyncio.get_running_loop().time()
    with kept(session, SPECS[0], asked=begun) as wish:
        await asyncio.sleep(0.5)
        assert wish.asked == begun
        assert await seconds_left(any_database, SPECS[0]) < 0


async def test_all_are_woken_where_one_was_removed(any_database: Database, session: Session) -> None:
    """Each then asks for itself, and its own fault is its own."""
    await destroy(any_database.dsn, SPECS[0], names_of(SPECS[0]))
    woken = [asyncio.Event() for _ in SPECS]
    with kept(session, SPECS[0], woken[0]), kept(session, SPECS[1], woken[1]):
        async with asyncio.timeout(30):
            await woken[0].wait()
            await woken[1].wait()
    with kept(session, SPECS[1], woken[2]) as wish:

        async def renewed() -> bool:
            return wish.asked > LONG_AGO

        await poll(renewed)
    assert session.alive


async def test_they_are_woken_where_nobody_may_be_asked(any_database: Database, session: Session) -> None:
    blind, woken = Arming(session.writer, session.writer_lock, NoWakeup()), asyncio.Event()
    running = asyncio.create_task(blind.run())
    with blind.kept(names_of(SPECS[0]), woken, LONG_AGO):
        async with asyncio.timeout(30):
            await woken.wait()
    assert await seconds_left(any_database, SPECS[0]) < 0
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
