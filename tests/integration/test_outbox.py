"""The ring: everything that commits is read once, in whatever order it commits, and nothing unread is thrown away."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tablewatcher.event import Event
from tablewatcher.naming import key_token
from tablewatcher.postgres.connection.session import Connection, connect
from tablewatcher.postgres.install.apply import apply, destroy
from tablewatcher.postgres.ring import cursor_log
from tablewatcher.postgres.ring.chunks import EVENTS
from tablewatcher.postgres.ring.cursor_log import CursorLog, Held, Lease
from tablewatcher.postgres.ring.gaps import Gaps
from tablewatcher.postgres.ring.outbox import PAGE_BYTES, Outbox
from tablewatcher.postgres.ring.position import Position
from tablewatcher.postgres.ring.snapshot import Snapshot
from tablewatcher.postgres.ring.upkeep import Ring
from tablewatcher.postgres.standing import standing
from tablewatcher.spec.model import DeliveryPolicy

from ..conftest import Database
from .capturing import Watched, names_of, spec_of, watch

SPEC = spec_of()
NAMES = names_of(SPEC)


@pytest.fixture
async def database(any_database: Database) -> Database:
    await any_database.execute("CREATE TABLE t (id int PRIMARY KEY, n int)")
    return any_database


@pytest.fixture
async def watched(database: Database) -> AsyncIterator[Watched]:
    found = await watch(database.dsn, SPEC)
    yield found
    await found.reader.close()


@pytest.fixture
async def writer(database: Database) -> AsyncIterator[Connection]:
    """The listener's connection for cursors and upkeep."""
    connection = await connect(database.dsn)
    yield connection
    await connection.close()


def ring_of(writer: Connection) -> Ring:
    return Ring(writer, asyncio.Lock(), NAMES)


async def keys(watched: Watched) -> list[str]:
    return [event.key for event in await watched.events()]


async def test_late_commits_are_delivered_once_and_stall_nobody(database: Database, watched: Watched) -> None:
    async with await database.connect() as early, await database.connect() as undone:
        await early.execute("BEGIN; INSERT INTO t VALUES (1)")
        await undone.execute("BEGIN; INSERT INTO t VALUES (2)")
        await database.execute("INSERT INTO t VALUES (3)")
        assert await keys(watched) == ["3"]
        await early.execute("INSERT INTO t VALUES (4)")
        await database.execute("INSERT INTO t VALUES (5)")
        assert await keys(watched) == ["5"]
        await undone.execute("ROLLBACK")
        await early.execute("COMMIT")
        await database.execute("INSERT INTO t VALUES (6)")
        assert await keys(watched) == ["1", "4", "6"]
    assert await keys(watched) == []


async def test_many_writers_at_once(database: Database, watched: Watched) -> None:
    """Rolled back and slow ones among them: each row once, each key in order."""

    async def write(number: int) -> None:
        async with await database.connect() as connection:
            for turn in range(20):
                await connection.execute(f"BEGIN; INSERT INTO t VALUES ({number * 100 + turn}, 0)".encode())
                await asyncio.sleep(0.002 * (number % 4))
                await connection.execute(b"ROLLBACK" if turn % 5 == 4 else b"COMMIT")
                await connection.execute(f"UPDATE t SET n = {turn} WHERE id = {number * 100}".encode())

    async def read() -> None:
        while not writers.done():
            found.extend(await watched.events())
        found.extend(await watched.events())

    found: list[Event] = []
    writers = asyncio.gather(*(write(number) for number in range(8)))
    await read()
    await writers
    rows = await database.execute(
        " UNION ALL ".join(f"SELECT id FROM tablewatcher.{ring} WHERE bodies IS NULL" for ring in NAMES.rings)
    )
    assert sorted(event.ring_id for event in found) == sorted(row[0] for row in rows)
    for number in range(8):
        ids = [event.ring_id for event in found if event.key == str(number * 100)]
        assert ids == sorted(ids)
        assert len(ids) == 20


def one_by_one(first: int, last: int, *, step: int = 1) -> str:
    """One transaction whose statements insert `step` rows each."""
    row = f"INSERT INTO t SELECT generate_series(k, least(k + {step} - 1, {last}))"
    return f"DO $$ BEGIN FOR k IN {first}..{last} BY {step} LOOP {row}; END LOOP; END $$"


@pytest.mark.parametrize(("rows", "limit"), [(25, 10), (30, 10), (20, 10), (10, 10), (11, 10)])
async def test_a_big_batch_goes_on_after_a_reconnect(
    rows: int, limit: int, database: Database, watched: Watched
) -> None:
    async with await database.connect() as late:
        await late.execute("BEGIN; INSERT INTO t VALUES (0)")
        await database.execute(one_by_one(1, rows))
        found = []
        for _ in range(rows):
            connection = await connect(database.dsn)
            outbox = Outbox(connection, asyncio.Lock(), SPEC, NAMES, database="test")
            page = await outbox.next_page(watched.position, limit)
            await connection.close()
            if page is None:
                break
            found += [event.key for event in page.events]
            watched.position = page.position(None)
            await database.execute(f"INSERT INTO t VALUES ({1000 + len(found)}) ON CONFLICT DO NOTHING") if len(
                found
            ) == limit else None
        assert found[:rows] == [str(key) for key in range(1, rows + 1)]
        assert found[rows:] in ([], [str(1000 + limit)])
        await late.execute("COMMIT")
    assert await keys(watched) == ["0"]


@pytest.mark.parametrize("step", [1, 60])
async def test_a_rewritten_ring_loses_no_row(step: int, database: Database, watched: Watched) -> None:
    async with await database.connect() as doomed:
        await doomed.execute("BEGIN; INSERT INTO t SELECT generate_series(-500, -1)")
        await doomed.execute("ROLLBACK")
    last = 35 if step == 1 else 200
    await database.execute(one_by_one(1, last, step=step))
    found: list[int] = []
    sizes = []
    while (page := await watched.outbox.next_page(watched.position, 10)) is not None:
        found += [int(event.key) for event in page.events]
        sizes.append(len(page.events))
        watched.position = page.position(None)
        # The pages to come are known by address; this moves every row to the front of the table.
        await database.execute(f"VACUUM FULL tablewatcher.{NAMES.rings[0]}")
    assert found == list(range(1, last + 1))
    assert len(sizes) > 3
    assert (max(sizes) > 10) == (step > 1)


async def test_a_position_within_a_page(database: Database, watched: Watched) -> None:
    await database.execute("INSERT INTO t SELECT generate_series(1, 9)")
    page = await watched.outbox.next_page(watched.position, 100)
    assert page is not None
    watched.position = page.position(page.events[4].ring_id)
    assert await keys(watched) == [str(key) for key in range(5, 10)]


async def test_what_is_read_is_on_disk(database: Database, watched: Watched) -> None:
    """Commits that do not wait for the disk are seen at once; they are given out only once they are on it."""
    async with await database.connect() as writing:
        await writing.execute("SET synchronous_commit = off")
        for key in range(20):
            await writing.execute("INSERT INTO t VALUES (%s)", [key])
            cursor = await writing.execute("SELECT pg_current_wal_insert_lsn()::text")
            ((written,),) = await cursor.fetchall()
            page = await watched.page()
            assert page is not None
            assert [event.key for event in page.events] == [str(key)]
            assert await database.execute("SELECT pg_current_wal_flush_lsn() >= %s::pg_lsn", written) == [(True,)]


async def delivered(watched: Watched) -> Snapshot:
    await watched.events()
    return watched.position.prev


async def test_turning_never_loses_a_row(database: Database, watched: Watched, writer: Connection) -> None:
    ring = ring_of(writer)
    nothing = watched.position.prev
    async with await database.connect() as straggler:
        await straggler.execute("BEGIN; INSERT INTO t VALUES (0)")
        slot, expected = 0, []
        for key in range(1, 7):
            await database.execute(f"INSERT INTO t VALUES ({key})")
            expected.append(str(key))
            for seen in (nothing, await delivered(watched)):
                turned = await ring.turn(slot, seen, keep_seconds=0)
                slot = slot if turned is None else turned
        # The straggler wrote into slot 0 and holds it: the ring stands before it.
        assert slot == 2
        await straggler.execute("INSERT INTO t VALUES (10); COMMIT")
    assert await ring.turn(slot, nothing, keep_seconds=0) is None
    assert await keys(watched) == ["0", "10"]
    assert await ring.turn(1, await delivered(watched), keep_seconds=0) is None, "slot 1 is not the one that is written"
    assert await ring.turn(slot, await delivered(watched), keep_seconds=600) is None
    assert await ring.turn(slot, await delivered(watched), keep_seconds=0) == 0


async def test_a_clock_that_was_ahead_for_a_while_keeps_no_rows(
    database: Database, watched: Watched, writer: Connection
) -> None:
    await database.execute("INSERT INTO t VALUES (1)")
    await database.execute(
        f"UPDATE tablewatcher.{NAMES.rings[0]} SET at = at + interval '1 year', taken_at = taken_at + interval '1 year'"
    )
    seen, ring = await delivered(watched), ring_of(writer)
    for keep in (600, 0):
        assert [await ring.turn(slot, seen, keep_seconds=keep) for slot in range(3)] == [1, 2, 0]


async def test_nothing_is_of_a_time_that_is_still_to_come(database: Database, watched: Watched) -> None:
    """As after the clock was set back, where that is told to people."""
    report = "INSERT INTO tablewatcher.progress (hash, epoch, holder, spec_generation, forwarding, reason, message"
    newest = f"SELECT max(epoch) FROM tablewatcher.{NAMES.cursors[0]}"
    said = f"'{NAMES.hash}', ({newest}), 'h', 1, true, 'Forwarding', '', now() + interval '5 min'"
    await database.execute(f"{report}, changed_at) SELECT {said}")
    await database.execute("INSERT INTO t VALUES (1)")
    await database.execute(f"UPDATE tablewatcher.{NAMES.rings[0]} SET at = at + interval '5 min'")
    found = await standing(database.dsn, NAMES)
    assert found is not None
    assert (found.waiting, found.oldest_seconds, found.said_seconds) == (1, 0, 0)


async def test_turning_skips_a_slot_that_is_being_dumped(
    database: Database, watched: Watched, writer: Connection
) -> None:
    async with await database.connect() as dump:
        await dump.execute(f"BEGIN; LOCK TABLE tablewatcher.{NAMES.rings[1]} IN ACCESS SHARE MODE")
        assert await ring_of(writer).turn(0, await delivered(watched), keep_seconds=0) is None
    assert await ring_of(writer).turn(0, await delivered(watched), keep_seconds=0) == 1


@pytest.mark.parametrize(
    ("rows", "expected"), [*((rows, range(512, 5000)) for rows in (1, 7, 32)), (60_000, range(5000, 40_000))]
)
async def test_overflow_stops_capture_and_not_the_writers(
    database: Database, writer: Connection, rows: int, expected: range
) -> None:
    watched = await watch(database.dsn, spec_of(delivery=DeliveryPolicy(overflow_bytes=200_000)))
    ring = ring_of(writer)
    async with watched.reader:
        insert = f"INSERT INTO t SELECT n * {rows} + generate_series(1, {rows})"
        await database.execute(f"DO $$ BEGIN FOR n IN 1..{max(6000 // rows, 1)} LOOP {insert}; END LOOP; END $$")
        stopped = await ring.gauge()
        assert stopped.stopped_at > 0
        await database.execute("INSERT INTO t VALUES (-1)")
        captured = len(await watched.events())
        assert captured in expected
        # As it is when capture resumes: there is room again.
        await database.execute(f"TRUNCATE {', '.join(f'tablewatcher.{name}' for name in NAMES.rings)}")
        gaps = Gaps(writer, asyncio.Lock(), NAMES)
        await gaps.resume_capture(stopped.stopped_at)
        await gaps.announce(0)
        await database.execute("INSERT INTO t VALUES (-2)")
        events = await watched.events()
        assert [event.op for event in events] == ["g", "i"]
        assert b'"reason":"overflow"' in events[0].body
        assert (await ring.gauge()).stopped_at == 0


@pytest.mark.parametrize(
    ("bound", "captured"), [(300_000, range(5000, 60_000)), (4_000_000, range(80_032, 190_000))], ids=["block", "row"]
)
async def test_one_statement_stops_at_the_bound_in_its_midst(database: Database, bound: int, captured: range) -> None:
    """It looks by itself, with nobody else there: where rows are gathered in blocks, and one by one after these."""
    watched = await watch(database.dsn, spec_of(delivery=DeliveryPolicy(overflow_bytes=bound)))
    async with watched.reader:
        await database.execute("INSERT INTO t SELECT generate_series(1, 200000)")
    ((events, size),) = await database.execute(
        "SELECT sum(n), sum(bytes) FROM ("
        + " UNION ALL ".join(
            f"SELECT (SELECT coalesce(sum({EVENTS}), 0) FROM tablewatcher.{ring}) AS n,"
            f" pg_total_relation_size('tablewatcher.{ring}') AS bytes"
            for ring in NAMES.rings
        )
        + ") AS r"
    )
    assert await database.execute("SELECT count(*) FROM t") == [(200_000,)]
    assert events in captured
    assert bound < size < 2 * bound


def log_of(connection: Connection, holder: str, sink_timeout: float = 20) -> CursorLog:
    return CursorLog(connection, asyncio.Lock(), NAMES, holder=holder, sink_timeout=sink_timeout)


async def test_lease(database: Database, watched: Watched, writer: Connection) -> None:
    async with await connect(database.dsn) as other:
        first, second = log_of(writer, "a"), log_of(other, "b")
        began = time.monotonic()
        one = await first.acquire(lambda _: False)
        assert isinstance(one, Lease)
        held = await second.acquire(lambda _: False)
        assert isinstance(held, Held)
        assert held.holder == "a"
        assert 25 - (time.monotonic() - began) < held.seconds <= 25
        # Known to be dead, or released, or expired: the next one takes over with a higher epoch.
        two = await second.acquire(lambda holder: holder == "a")
        assert isinstance(two, Lease)
        assert two.epoch == one.epoch + 1
        assert not await first.commit(one.epoch, one.position)
        moved = Position(Snapshot.parse("5:9:6,7"), Snapshot.parse("9:12:"), 44)
        assert await second.commit(two.epoch, moved, release=True)
        brief = log_of(writer, "c", sink_timeout=-5)
        three = await brief.acquire(lambda _: False)
        assert isinstance(three, Lease)
        assert (three.epoch, three.position) == (two.epoch + 1, moved)
        # One that looks for the first time: another may have seen an earlier proof, and knows that this one is new.
        four = await log_of(other, "d").acquire(lambda _: False)
        assert isinstance(four, Lease)
        assert four.epoch == three.epoch + 1


async def test_what_turns_the_ring_never_sets_the_cursor_back(watched: Watched, writer: Connection) -> None:
    """The turned ring gets the newest row: one that was written while whoever turned it waited for the connection."""
    lock = asyncio.Lock()
    log = CursorLog(writer, lock, NAMES, holder="a", sink_timeout=20)
    lease = await log.acquire(lambda _: False)
    assert isinstance(lease, Lease)
    moved = Position(Snapshot.parse("5:9:6,7"), Snapshot.parse("9:12:"), 44)
    async with lock:
        written = asyncio.create_task(log.commit(lease.epoch, moved))
        await asyncio.sleep(0)
        turned = asyncio.create_task(log.repeat())
        await asyncio.sleep(0)
    assert await written
    assert await turned
    log.slot = 1
    assert await log.repeat()
    again = await log.acquire(lambda _: True)
    assert isinstance(again, Lease)
    assert again.position == moved


async def test_who_slept_while_the_ring_was_made_again_has_no_lease_in_it(
    database: Database, watched: Watched, writer: Connection
) -> None:
    """Of whatever epoch: what it still holds went with the old ring, and others may have sent newer events since."""
    async with await connect(database.dsn) as other:
        slept, awake = log_of(writer, "a"), log_of(other, "b")
        for _ in range(3):
            old = await slept.acquire(lambda _: True)
        assert isinstance(old, Lease)
        await destroy(database.dsn, watched.spec, watched.names)
        await apply(database.dsn, watched.spec, watched.names)
        assert not await slept.commit(old.epoch, old.position)
        new = await awake.acquire(lambda _: False)
        assert isinstance(new, Lease)
        assert not await slept.commit(old.epoch, old.position)
        assert await awake.commit(new.epoch, new.position)


async def test_a_clock_that_was_set_back_keeps_no_lease(
    database: Database,
    watched: Watched,
    writer: Connection,
    monkeypatch: pytest.MonkeyPatch,
    eventually: Callable[..., Awaitable[Any]],
) -> None:
    """By a day, here. Whoever proves its lease has it all the same."""
    monkeypatch.setattr(cursor_log, "LONGEST_SECONDS", 0.3)
    async with await connect(database.dsn) as other:
        first, second = log_of(writer, "a"), log_of(other, "b")
        one = await first.acquire(lambda _: False)
        assert isinstance(one, Lease)

        async def taken() -> bool:
            return isinstance(await second.acquire(lambda _: False), Lease)

        began = time.monotonic()
        while time.monotonic() - began < 0.5:
            assert await first.commit(one.epoch, one.position)
            await database.execute(f"UPDATE tablewatcher.{NAMES.cursors[0]} SET expires_at = now() + interval '1 day'")
            assert not await taken()
        await eventually(taken)


async def _set_clock(database: Database, minutes: int) -> None:
    """What is written by now lies that far from where the clock is, as after one that was set by as much."""
    await database.execute(
        f"UPDATE tablewatcher.{NAMES.cursors[0]} SET expires_at = expires_at - make_interval(mins => %s)", minutes
    )


@pytest.mark.parametrize("minutes", [5, -5], ids=["forth", "back"])
async def test_a_clock_that_is_set_while_one_stands_by_changes_no_lease(
    database: Database,
    watched: Watched,
    writer: Connection,
    minutes: int,
    eventually: Callable[..., Awaitable[Any]],
) -> None:
    """Nobody takes over from who has just proved its lease, and nobody waits for longer than a lease lasts."""
    async with await connect(database.dsn) as other:
        first, second = log_of(writer, "a", sink_timeout=-2), log_of(other, "b")
        one = await first.acquire(lambda _: False)
        assert isinstance(one, Lease)
        held = await second.acquire(lambda _: False)
        assert isinstance(held, Held)
        await _set_clock(database, minutes)
        again = await second.acquire(lambda _: False)
        assert isinstance(again, Held)
        assert 0 < again.seconds <= held.seconds <= 3

        async def taken() -> bool:
            return isinstance(await second.acquire(lambda _: False), Lease)

        await eventually(taken, 6)


async def proved_after_a_look(first: CursorLog, second: CursorLog) -> Lease:
    """The lease of `first`, proved once more since `second` saw that it is held."""
    lease = await first.acquire(lambda _: False)
    assert isinstance(lease, Lease)
    assert isinstance(await second.acquire(lambda _: False), Held)
    assert await first.commit(lease.epoch, lease.position)
    return lease


async def test_a_proof_that_was_not_there_a_look_ago_is_good_whatever_the_clock_says(
    database: Database, watched: Watched, writer: Connection
) -> None:
    """The clock is set between the proof and the look. What is released is free all the same."""
    async with await connect(database.dsn) as other:
        first, second = log_of(writer, "a"), log_of(other, "b")
        one = await proved_after_a_look(first, second)
        await _set_clock(database, 5)
        held = await second.acquire(lambda _: False)
        assert isinstance(held, Held)
        assert 0 < held.seconds <= cursor_log.LEASE_SECONDS
        assert await first.commit(one.epoch, one.position, release=True)
        assert isinstance(await second.acquire(lambda _: False), Lease)


async def test_a_clock_that_is_set_back_between_a_proof_and_the_look_at_it_keeps_no_lease(
    database: Database, watched: Watched, writer: Connection
) -> None:
    """It lasts as long as leases of that listener did before: it was five minutes."""
    async with await connect(database.dsn) as other:
        first, second = log_of(writer, "a"), log_of(other, "b")
        one = await proved_after_a_look(first, second)
        assert isinstance(await second.acquire(lambda _: False), Held)
        assert await first.commit(one.epoch, one.position)
        await _set_clock(database, -5)
        held = await second.acquire(lambda _: False)
        assert isinstance(held, Held)
        assert cursor_log.LEASE_SECONDS + 15 < held.seconds < cursor_log.LEASE_SECONDS + 30
        # Its successor's may last longer.
        two = await log_of(writer, "c", sink_timeout=90).acquire(lambda _: True)
        assert isinstance(two, Lease)
        held = await second.acquire(lambda _: False)
        assert isinstance(held, Held)
        assert held.seconds > 85


async def test_only_one_of_many_gets_the_lease(database: Database, watched: Watched) -> None:
    async def attempt(name: str) -> Lease | Held:
        async with await connect(database.dsn) as connection:
            return await log_of(connection, name).acquire(lambda _: False)

    outcomes = await asyncio.gather(*(attempt(str(nth)) for nth in range(8)))
    assert sum(isinstance(outcome, Lease) for outcome in outcomes) == 1


Text = st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]), max_size=12)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(keys=st.lists(st.lists(st.none() | Text, min_size=1, max_size=4), min_size=1, max_size=20))
def test_token_in_sql_is_the_token_in_python(keys: list[list[str | None]], token: Callable[..., list[str]]) -> None:
    assert token(keys) == [key_token(tuple(key)) for key in keys]


@pytest.fixture
def token(any_database: Database) -> Callable[..., list[str]]:
    asyncio.run(_installed(any_database))

    def ask(keys: list[list[str | None]]) -> list[str]:
        with psycopg.connect(any_database.dsn) as connection:
            cursor = connection.cursor()
            return [text for key in keys for (text,) in cursor.execute("SELECT tablewatcher.token(%s)", [key])]

    return ask


async def _installed(database: Database) -> None:
    await database.execute("CREATE TABLE t (id int PRIMARY KEY)")
    await apply(database.dsn, SPEC, NAMES)


async def test_large_rows_after_small_ones_come_in_pages_of_bounded_size(any_database: Database) -> None:
    await any_database.execute("CREATE TABLE t (id int PRIMARY KEY, body text)")
    watched = await watch(any_database.dsn, spec_of(columns=("body",)))
    # What repeats is stored compressed: a page is bounded by what it is in memory.
    await any_database.execute("INSERT INTO t SELECT g, 'x' FROM generate_series(1, 50) g")
    await any_database.execute("INSERT INTO t SELECT g, repeat('y', 200000) FROM generate_series(51, 150) g")
    sizes, found = [], []
    while (page := await watched.page(limit=1000)) is not None:
        sizes.append(sum(len(event.body) for event in page.events))
        found += [int(event.key) for event in page.events]
    assert found == list(range(1, 151))
    assert len(sizes) == 3
    assert max(sizes) < PAGE_BYTES + 250_000
    await watched.reader.close()
