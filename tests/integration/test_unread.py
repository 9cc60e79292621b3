"""What waits in a ring that nobody reads: counted where it is little, else estimated; and in one that is read."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from tablewatcher.listener.decide.behind import Behind
from tablewatcher.postgres.ring.chunks import IDS_A_ROW
from tablewatcher.postgres.ring.position import Position
from tablewatcher.postgres.ring.unread import COUNTED, Unread, unread
from tablewatcher.postgres.ring.upkeep import Ring

from ..conftest import Database
from .capturing import Watched, names_of, spec_of, watching

SPEC = spec_of()
NAMES = names_of(SPEC)


@pytest.fixture
async def watched(any_database: Database) -> AsyncIterator[Watched]:
    async with watching(any_database, "CREATE TABLE t (id int PRIMARY KEY, n int)", SPEC) as found:
        yield found


async def events(watched: Watched, position: Position | None = None) -> int:
    return (await unread(watched.reader, NAMES, position or watched.position)).events


async def insert(database: Database, first: int, last: int) -> None:
    await database.execute(f"INSERT INTO t SELECT generate_series({first}, {last})")


async def test_little_is_counted(any_database: Database, watched: Watched) -> None:
    assert await unread(watched.reader, NAMES, watched.position) == Unread()
    await insert(any_database, 1, 1)
    await insert(any_database, 2, 500)
    await any_database.execute("BEGIN; INSERT INTO t VALUES (0); ROLLBACK")
    found = await unread(watched.reader, NAMES, watched.position)
    assert found.events == 500
    assert 0 < found.oldest_seconds < 60
    await watched.events()
    assert await unread(watched.reader, NAMES, watched.position) == Unread()


async def test_what_commits_late_counts_once_it_has(any_database: Database, watched: Watched) -> None:
    async with await any_database.connect() as late:
        await late.execute("BEGIN; INSERT INTO t VALUES (1)")
        await insert(any_database, 2, 2)
        await watched.events()
        await insert(any_database, 3, 3)
        assert await events(watched) == 1
        await late.execute("COMMIT")
    assert await events(watched) == 2


@pytest.mark.parametrize("rows_a_statement", [1, 5000])
async def test_much_is_estimated(any_database: Database, watched: Watched, rows_a_statement: int) -> None:
    number = COUNTED * (100 if rows_a_statement == 1 else 500)
    step = f"INSERT INTO t SELECT generate_series(k, k + {rows_a_statement} - 1)"
    await any_database.execute(f"DO $$ BEGIN FOR k IN 1..{number} BY {rows_a_statement} LOOP {step}; END LOOP; END $$")
    assert await events(watched) == pytest.approx(number, rel=0.1)
    page = await watched.outbox.next_page(watched.position, number // 2)
    assert page is not None
    here = page.position(None)
    assert here.cur is not None
    assert await events(watched, here) == pytest.approx(number - len(page.events), rel=0.1)


async def test_of_a_batch_in_part_the_rest_is_counted(any_database: Database, watched: Watched) -> None:
    await insert(any_database, 1, 30)
    page = await watched.outbox.next_page(watched.position, 1000)
    assert page is not None
    last = page.events[-1].ring_id
    assert await events(watched, replace(page.position(last), after_id=last)) == 0
    assert 0 < await events(watched, page.position(page.events[10].ring_id)) <= 30


ROWS = "INSERT INTO t SELECT generate_series({0}, {1})"
SINGLY = "DO $$ BEGIN FOR nth IN {0}..{1} LOOP INSERT INTO t VALUES (nth); END LOOP; END $$"
ROLLED_BACK = f"BEGIN; {ROWS}; ROLLBACK"


@pytest.mark.parametrize(
    "statements",
    [
        # Past 80,000 its rows lie further apart: they are gathered one by one.
        pytest.param([(ROWS, 120_000)], id="one long statement"),
        pytest.param([(SINGLY, 6_000)], id="single rows"),
        pytest.param([(ROWS, 20_000), (SINGLY, 2_000), (ROWS, 33)], id="of every kind"),
        pytest.param([(SINGLY, 3_000), (ROLLED_BACK, 50_000), (SINGLY, 3_000)], id="with gaps"),
    ],
)
async def test_a_reader_knows_what_is_left_of_its_batch(
    any_database: Database, watched: Watched, statements: list[tuple[str, int]]
) -> None:
    behind, ring, first, left = Behind(), Ring(watched.reader, asyncio.Lock(), NAMES), 1, 0
    for statement, rows in statements:
        await any_database.execute(statement.format(first, first + rows - 1))
        first, left = first + rows, left + (0 if statement is ROLLED_BACK else rows)
    with behind.delivering(lambda: 0):
        behind.drawn((await ring.gauge()).last_id)
        page = await watched.page()
        while page is not None and page.rest is not None:
            left -= len(page.events)
            behind.read(page.events, page.rest)
            # The last row of the ring has ids without an event.
            assert left <= behind.waiting <= left + IDS_A_ROW
            page = await watched.page()
        assert page is not None
        assert left == len(page.events)
        behind.read(page.events, None)
        assert behind.waiting == 0


async def test_what_has_come_since_is_like_the_end_of_the_batch(any_database: Database, watched: Watched) -> None:
    behind, ring = Behind(), Ring(watched.reader, asyncio.Lock(), NAMES)
    await any_database.execute(ROWS.format(1, 100_000))
    with behind.delivering(lambda: 0):
        page = await watched.page()
        assert page is not None
        for first in range(100_001, 120_000, 1_000):
            await any_database.execute(ROWS.format(first, first + 999))
        behind.drawn((await ring.gauge()).last_id)
        behind.read(page.events, page.rest)
        assert behind.waiting == pytest.approx(120_000 - len(page.events), rel=0.25)
