"""Rows of one statement lie in the ring together; they are read, counted and given up one by one."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import datetime

import psycopg
import pytest

from tablewatcher.errors import DatabaseError, Reason
from tablewatcher.postgres.connection.session import Connection, connect
from tablewatcher.postgres.progress import drained
from tablewatcher.postgres.ring.chunks import EVENTS, IDS_A_ROW
from tablewatcher.postgres.ring.cursor_log import CursorLog, Lease
from tablewatcher.postgres.ring.history import History, extent
from tablewatcher.postgres.ring.home import Home, adoption
from tablewatcher.postgres.ring.outbox import Outbox
from tablewatcher.postgres.ring.upkeep import Ring
from tablewatcher.postgres.standing import standing
from tablewatcher.spec.model import Capture, Condition, Granularity, NatsSink, Operator

from ..conftest import Database
from .capturing import Watched, names_of, spec_of, watch

SPEC = spec_of(columns=("s",), sink=NatsSink(("nats://127.0.0.1:4222",), "x.{column:s}"))
NAMES = names_of(SPEC)
# Rows a statement, in one transaction.
STATEMENTS = (1, 3, 150, 1, 1, 64, 2, 9, 300, 1)
# A key of two columns, and a routed column that is NULL now and then, or long.
EXPECTED = [
    (f"{nth},{g}", "s" * g if g % 3 else "_") for nth, rows in enumerate(STATEMENTS) for g in range(1, rows + 1)
]
KEYS = [key for key, _ in EXPECTED]


# Keys of the second type are not gathered by column.
@pytest.fixture(params=["text", "bpchar"], ids=["by column", "one by one"])
async def watched(any_database: Database, request: pytest.FixtureRequest) -> AsyncIterator[Watched]:
    await any_database.execute(f"CREATE TABLE t (a int, b {request.param}, s text, PRIMARY KEY (a, b))")
    found = await watch(any_database.dsn, SPEC)
    async with await any_database.connect() as writing, writing.transaction():
        for nth, rows in enumerate(STATEMENTS):
            await writing.execute(
                f"INSERT INTO t SELECT {nth}, g, CASE WHEN g % 3 > 0 THEN repeat('s', g) END"
                f" FROM generate_series(1, {rows}) g".encode()
            )
    of_columns = await any_database.execute(all_rings("bool_or(taken_at = 'infinity')"))
    assert ((True,) in of_columns) is (request.param == "text")
    yield found
    await found.reader.close()


@pytest.fixture
async def writer(any_database: Database) -> AsyncIterator[Connection]:
    async with await connect(any_database.dsn) as connection:
        yield connection


def all_rings(columns: str) -> str:
    return " UNION ALL ".join(f"SELECT {columns} FROM tablewatcher.{ring}" for ring in NAMES.rings)


async def test_each_event_is_as_if_it_lay_alone(any_database: Database, watched: Watched) -> None:
    events = await watched.events()
    assert [(event.key, event.routing) for event in events] == [(key, [route]) for key, route in EXPECTED]
    ids = [event.ring_id for event in events]
    assert ids == sorted(set(ids))
    assert len({event.event_id for event in events}) == len(events)
    for event in events:
        envelope = json.loads(event.body)
        a, _, b = event.key.partition(",")
        assert (envelope["id"], envelope["partitionkey"]) == (event.event_id, event.key)
        assert envelope["sequence"].endswith(f"-{event.ring_id:020d}")
        assert envelope["data"]["key"] == {"a": int(a), "b": b}
        assert datetime.fromisoformat(envelope["time"]).timestamp() == pytest.approx(event.captured_at, abs=1e-6)
    lengths = await any_database.execute(all_rings(EVENTS))
    assert len(lengths) < len(events)
    assert 10 < max(length for (length,) in lengths) <= IDS_A_ROW


async def test_chunks_come_after_many_looks_without(any_database: Database) -> None:
    """Such looks leave them out of their query."""
    await any_database.execute("CREATE TABLE t (id bigserial PRIMARY KEY, s text)")
    watched = await watch(any_database.dsn, spec_of(columns=("s",)))
    async with watched.reader:
        for rows in (1, 100, *[1] * 25, 100, 1, 100):
            await any_database.execute(f"INSERT INTO t (s) SELECT 'x' FROM generate_series(1, {rows})")
            assert len(await watched.data()) == rows


@pytest.mark.parametrize("limit", [1, 40, 1000])
async def test_what_is_left_is_read_alone(watched: Watched, limit: int) -> None:
    """Most pages are given up within; another reader goes on with just what was not delivered."""
    found: list[str] = []
    for turn in range(2 * len(KEYS)):
        outbox = Outbox(watched.reader, asyncio.Lock(), SPEC, NAMES, database="test")
        page = await outbox.next_page(watched.position, limit)
        if page is None:
            break
        number = len(page.events)
        here = number if turn % 3 == 2 else (turn * 17) % (number + 1)
        found += [event.key for event in page.events[:here]]
        watched.position = page.position(page.events[here].ring_id if here < number else None)
    assert found == KEYS


async def test_what_is_left_is_counted(any_database: Database, watched: Watched, writer: Connection) -> None:
    history = History(writer, asyncio.Lock(), NAMES)
    log = CursorLog(writer, asyncio.Lock(), NAMES, holder="a", sink_timeout=20)
    lease = await log.acquire(lambda _: False)
    assert isinstance(lease, Lease)
    page = await watched.outbox.next_page(lease.position, 1000)
    assert page is not None
    assert len(page.events) == len(KEYS)
    for here in (0, 2, 50, 154, 350, len(KEYS) - 1):
        await log.commit(lease.epoch, page.position(page.events[here].ring_id), durable=True)
        stands = await standing(any_database.dsn, NAMES)
        assert stands is not None
        assert stands.waiting == len(KEYS) - here
        assert stands.oldest_seconds is not None
        assert not await drained(any_database.dsn, NAMES, seconds=0)
    await log.commit(lease.epoch, page.position(None), durable=True)
    assert await drained(any_database.dsn, NAMES, seconds=0)
    reached = page.position(page.events[100].ring_id)
    assert await history.since(None, None, reached) == (page.events[0].ring_id, 100)
    done = page.position(None)
    assert await history.since(None, None, done) == (page.events[0].ring_id, len(KEYS))
    assert await history.since(None, KEYS[100], done) == (page.events[100].ring_id, 1)
    first = (await extent(writer, NAMES)).oldest
    assert first is not None
    assert await history.since(first, None, done) == (page.events[0].ring_id, len(KEYS))
    # All of it was captured long ago, as far as an hour from now.
    ((later,),) = await any_database.execute("SELECT now() + interval '1 hour'")
    assert await history.since(later, None, done) == (0, 0)
    ring = Ring(writer, asyncio.Lock(), NAMES)
    assert await ring.turn(0, page.cur, keep_seconds=600) == 1
    assert await ring.turn(1, page.cur, keep_seconds=600) == 2
    assert await ring.turn(2, page.cur, keep_seconds=600) is None, "what was captured a moment ago is kept"
    assert await ring.turn(2, page.cur, keep_seconds=0) == 0


async def test_a_database_that_moves_keeps_the_rest(
    any_database: Database, watched: Watched, writer: Connection
) -> None:
    log = CursorLog(writer, asyncio.Lock(), NAMES, holder="a", sink_timeout=20)
    lease = await log.acquire(lambda _: False)
    assert isinstance(lease, Lease)
    page = await watched.outbox.next_page(lease.position, 1000)
    assert page is not None
    await log.commit(lease.epoch, page.position(page.events[50].ring_id), release=True)
    await any_database.execute(";".join(adoption(NAMES, Home("7", 1, 1), table_oid=0)))
    moved = await log.acquire(lambda _: False)
    assert isinstance(moved, Lease)
    watched.position = moved.position
    events = await watched.events()
    assert events[-1].op == "g"
    # Of the chunk that was delivered in part everything comes again.
    kept = [event.key for event in events[:-1]]
    assert kept == KEYS[-len(kept) :]
    assert len(KEYS) - 50 <= len(kept) < len(KEYS) - 50 + IDS_A_ROW


async def test_a_listener_of_an_earlier_version_reads_no_chunk(any_database: Database, watched: Watched) -> None:
    """One of before there were any takes a row for one event, and names that by its microseconds.

    One of before they were gathered by column looks at when a chunk was captured.
    """
    await watched.events()
    of_columns = await any_database.execute(all_rings("taken_at = 'infinity'"))
    at = "coalesce(taken_at, at)" if (True,) in of_columns else "at"
    with pytest.raises(psycopg.errors.NumericValueOutOfRange):
        await any_database.execute(all_rings(f"(date_part('epoch', {at}) * 1000000)::bigint"))


async def test_large_rows_lie_alone(any_database: Database) -> None:
    await any_database.execute("CREATE TABLE t (id int PRIMARY KEY, s text)")
    watched = await watch(any_database.dsn, spec_of(columns=("s",)))
    async with watched.reader:
        size = "CASE WHEN g % 4 = 0 THEN 5000 WHEN g = 30 THEN 500000 ELSE 450 END"
        await any_database.execute(f"INSERT INTO t SELECT g, repeat('x', {size}) FROM generate_series(1, 60) g")
        data = {entry["key"]["id"]: entry for entry in await watched.data()}
        assert sorted(data) == list(range(1, 61))
        assert data[30].get("truncated")
        assert len(data[4]["after"]["s"]) == 5000
        largest = "coalesce(array_length(bodies, 1), 1), octet_length(coalesce(array_to_string(bodies, ''), data))"
        stored = await any_database.execute(all_rings(largest))
        assert all(number == 1 or octets < 2000 for number, octets in stored)
        assert {number for number, _ in stored} >= {1, 3}


# Of a block some rows are left out, by length of the event or of the key; some are larger than a chunk, which ends it.
LEFT_OUT = "CASE WHEN g % 700 = 650 THEN repeat('k', 1100) || g ELSE g::text END"
SIZES = "CASE WHEN g % 500 = 450 THEN 1200 WHEN g = {larger} THEN 2500 ELSE g % 50 END"


@pytest.mark.parametrize("where", [(), (Condition("n", Operator.GREATER_THAN, ("90",)),)])
@pytest.mark.parametrize(("max_event", "larger"), [(1000, 0), (262_144, 0), (262_144, 3000), (262_144, 60)])
async def test_blocks_of_rows_are_told_as_rows_are(
    max_event: int, larger: int, where: tuple[Condition, ...], any_database: Database
) -> None:
    await any_database.execute("CREATE TABLE t (a text, n int, s text, PRIMARY KEY (a, n))")
    told = []
    for granularity in (Granularity.ROW, Granularity.STATEMENT):
        capture = Capture(granularity=granularity, max_event_bytes=max_event)
        told.append(
            await watch(any_database.dsn, spec_of(name=granularity, columns=("s",), where=where, capture=capture))
        )
    async with told[0].reader, told[1].reader:
        for rows in (33, 96, 97, 5000):
            await any_database.execute(
                f"INSERT INTO t SELECT {LEFT_OUT}, {rows} + g / 10, repeat('s', {SIZES.format(larger=larger)})"
                f" FROM generate_series(1, {rows}) AS g"
            )
        by_row, as_set = [await each.events() for each in told]
    assert [event.ring_id for event in as_set] == sorted({event.ring_id for event in as_set})
    found = [{event.key: json.loads(event.body)["data"] for event in events} for events in (by_row, as_set)]
    assert len(by_row) == len(as_set) == len(found[0])
    assert found[0] == found[1]


# Alone, in the first page of its batch, and in a later one.
@pytest.mark.parametrize(("before", "limit"), [(0, 1000), (500, 1000), (500, 100)])
async def test_what_a_later_version_has_written_in_another_form_is_refused_by_name(
    any_database: Database, before: int, limit: int
) -> None:
    """The next form has this mark. What counts events is right about it all the same."""
    await any_database.execute("CREATE TABLE t (a int, b text, s text, PRIMARY KEY (a, b))")
    watched, ring = await watch(any_database.dsn, SPEC), f"tablewatcher.{NAMES.rings[0]}"
    async with watched.reader:
        await any_database.execute(f"INSERT INTO t SELECT 1, n, 's' FROM generate_series(1, {before}) AS n")
        await any_database.execute("INSERT INTO t SELECT 2, n, 's' FROM generate_series(1, 64) AS n")
        await any_database.execute(
            f"UPDATE {ring} SET data = 'later', bodies = bodies[1:2] || 'x'::text"
            f" WHERE taken_at = 'infinity' AND id > (SELECT max(id) - 200 FROM {ring})"
        )
        with pytest.raises(DatabaseError, match="later version") as refused:
            await watched.page(limit)
    assert refused.value.reason is Reason.MANUAL_ACTION_REQUIRED
    stands = await standing(any_database.dsn, NAMES)
    assert stands is not None
    assert stands.waiting == before + 64
    assert stands.oldest_seconds is not None
    assert not await drained(any_database.dsn, NAMES, seconds=0)
