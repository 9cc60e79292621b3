"""How much of a ring is meant by a replay: asked in stretches, so that others read their rings meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import asdict
from datetime import UTC, datetime, timedelta

import pytest

from tablewatcher.errors import DatabaseError
from tablewatcher.event import Event, again
from tablewatcher.postgres.asking import ask
from tablewatcher.postgres.install.apply import apply
from tablewatcher.postgres.requests import Kind
from tablewatcher.postgres.ring import history as module
from tablewatcher.postgres.ring.history import History

from ..conftest import Database
from .capturing import FIRST, Watched, names_of, spec_of, watch

SPEC = spec_of()
NAMES = names_of(SPEC)
PLAIN = 600
ODD = ("", "_", "a.b", "a,b", "é€", "x" * 200, "line\nbreak", "%2E")


@pytest.fixture(autouse=True)
def short_stretches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "STRETCH_BLOCKS", 1, raising=False)


@pytest.fixture
async def watched(any_database: Database) -> AsyncIterator[Watched]:
    """Keys of two parts, alone and many a row of the ring; some are changed, and some of what was written undone."""
    await any_database.execute("CREATE TABLE t (a int, b text, n int, PRIMARY KEY (a, b))")
    found = await watch(any_database.dsn, SPEC)
    async with await any_database.connect() as writing:
        await writing.execute(f"INSERT INTO t SELECT g, g::text, 0 FROM generate_series(1, {PLAIN}) AS g".encode())
        for nth, text in enumerate(ODD):
            await writing.execute("INSERT INTO t VALUES (%s, %s, 0)", [nth, text])
        await writing.execute("BEGIN; UPDATE t SET n = 1; ROLLBACK")
        await writing.execute("UPDATE t SET n = 2 WHERE a < 300")
        await writing.execute("UPDATE t SET b = b || '.' WHERE a > 100 AND a < 110")
    yield found
    await found.reader.close()


def history_of(watched: Watched, lock: asyncio.Lock | None = None) -> History:
    return History(watched.reader, lock or asyncio.Lock(), NAMES)


def expected(events: list[Event], key: str) -> tuple[int, int]:
    ids = [event.ring_id for event in events if key in event.lane_keys]
    return min(ids, default=0), len(ids)


async def test_each_key_is_found_by_its_token(watched: Watched) -> None:
    events, history = await watched.events(), history_of(watched)
    keys = {key for event in events[-50:] for key in event.lane_keys} | {event.key for event in events[580:620]}
    assert {"0,_", "1,_", "2,a%2Eb", "3,a%2Cb", "4,%C3%A9%E2%82%AC", "101,101", "101,101%2E"} <= keys
    for key in sorted(keys):
        assert await history.since(None, key, watched.position) == expected(events, key), key
    assert await history.since(None, None, watched.position) == (events[0].ring_id, len(events))


async def test_events_of_a_key_are_as_a_replay_of_all_has_them(any_database: Database, watched: Watched) -> None:
    """Also those that come live, told to be sent again."""
    live, history = await watched.events(), history_of(watched)
    outbox = watched.outbox.for_replay(7)
    page = await outbox.next_page(FIRST, len(live))
    assert page is not None
    assert [again(event, 7, structured=True).body for event in live] == [event.body for event in page.events]

    async def found(key: str, **bounds: int) -> list[Event] | None:
        given = {"most": 1000, "most_bytes": 1 << 20, **bounds}
        return await history.events(outbox, None, key, watched.position, **given)

    keys = {key for event in live[-50:] for key in event.lane_keys} | {
        "",
        "9,9,9",
        "1,",
        "105,105",
        "450,450",
        "599,599",
    }
    for key in sorted(keys):
        of_key = [asdict(event) for event in page.events if key in event.lane_keys]
        assert [asdict(event) for event in await found(key) or []] == of_key, key
    sizes = [len(event.body) for event in page.events if "105,105" in event.lane_keys]
    number, size = len(sizes), sum(sizes)
    assert len(await found("105,105", most=number) or []) == number
    assert await found("105,105", most=number - 1) is None
    assert len(await found("105,105", most_bytes=size) or []) == number
    assert await found("105,105", most_bytes=size - 1) is None
    before = watched.position
    await any_database.execute("UPDATE t SET b = '105' WHERE a = 105")
    assert len(await watched.events()) == 1
    assert len(await found("105,105") or []) == number + 1
    watched.position = before
    assert len(await found("105,105") or []) == number, "what is not delivered yet is no part of it"


@pytest.mark.parametrize("key", ["", "2", "2,a.b", "2,a%2eb", "3,a,b", "1,", "9,%00", "9,%FF", "9,é", "1,1,1", ","])
async def test_what_is_no_key_of_the_table_means_nothing(watched: Watched, key: str) -> None:
    await watched.events()
    assert await history_of(watched).since(None, key, watched.position) == (0, 0)


@pytest.mark.parametrize("key", [None, "5,5"])
async def test_others_have_the_connection_in_between(watched: Watched, key: str | None) -> None:
    await watched.events()
    lock, turns = asyncio.Lock(), 0

    async def another() -> None:
        nonlocal turns
        while True:
            async with lock:
                turns += 1
                await watched.reader.execute("SELECT 1")

    other = asyncio.create_task(another())
    await asyncio.sleep(0)
    await history_of(watched, lock).since(None, key, watched.position)
    other.cancel()
    assert turns > 10


@pytest.mark.parametrize("key", [None, "5,5"])
async def test_a_table_that_is_written_anew_meanwhile(
    any_database: Database, watched: Watched, key: str | None
) -> None:
    events = await watched.events()
    await _interrupted(watched, any_database, f"VACUUM FULL tablewatcher.{NAMES.rings[0]}", key, after=4)
    answer = await _interrupted(watched, any_database, f"VACUUM FULL tablewatcher.{NAMES.rings[0]}", key, after=2)
    assert answer == (expected(events, key) if key else (events[0].ring_id, len(events)))


async def test_a_table_that_is_emptied_meanwhile(any_database: Database, watched: Watched) -> None:
    await watched.events()
    answer = await _interrupted(watched, any_database, f"TRUNCATE tablewatcher.{NAMES.rings[0]}", None, after=3)
    assert answer == (0, 0)


async def _interrupted(
    watched: Watched, database: Database, statement: str, key: str | None, *, after: int
) -> tuple[int, int]:
    """The answer where `statement` is run once so many stretches are read."""
    lock = asyncio.Lock()

    async def another() -> None:
        for _ in range(after):
            async with lock:
                await asyncio.sleep(0)
        async with lock:
            await database.execute(statement)

    other = asyncio.create_task(another())
    await asyncio.sleep(0)
    answer = await history_of(watched, lock).since(None, key, watched.position)
    assert other.done()
    await other
    return answer


@pytest.mark.parametrize("slot", [0, 1])
async def test_a_repaired_ring_is_not_whole(any_database: Database, watched: Watched, slot: int) -> None:
    """Whichever table is dropped, also where what is left of it is older than what was in it."""
    await watched.events()
    before = datetime.now(UTC)
    history = history_of(watched)
    assert not (await history.extent()).lacks(before - timedelta(hours=1))
    await any_database.execute(
        f"SELECT setval('tablewatcher.{NAMES.slot}', 2); DROP TABLE tablewatcher.{NAMES.rings[slot]}"
    )
    await apply(any_database.dsn, SPEC, NAMES)
    told = (await history.extent()).lacks(before)
    assert "made again at 20" in told
    assert not (await history.extent()).lacks(datetime.now(UTC))
    with pytest.raises(DatabaseError, match="made again at"):
        await ask(any_database.dsn, NAMES, Kind.REPLAY, since=before)
    written = f"SELECT count(*) FROM tablewatcher.{NAMES.rings[2]} WHERE op = 'g'"
    assert await any_database.execute(written) == [(1,)], "it goes with the last of what was captured before"
