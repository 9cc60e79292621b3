"""Events put aside: a row holds all of an event, is written once, and gives the same bytes back."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from tablewatcher.event import Event
from tablewatcher.postgres.asking import ask, listed
from tablewatcher.postgres.connection.session import Connection, connect
from tablewatcher.postgres.parked import PIECE_EVENTS, Held, Parked, Row
from tablewatcher.postgres.requests import Dropped, Kind, Request, Requests, State
from tablewatcher.postgres.ring.cursor_log import CursorLog, Lease, LeaseLost
from tablewatcher.spec.model import Format

from ..conftest import Database
from .capturing import Watched, names_of, spec_of, watch

SPEC = spec_of(columns=("*",))
NAMES = names_of(SPEC)
# Of an owner whom nobody has superseded.
EPOCH = 1 << 60


@pytest.fixture
async def database(any_database: Database) -> Database:
    await any_database.execute("CREATE TABLE t (id text PRIMARY KEY, n int)")
    return any_database


@pytest.fixture
async def watched(database: Database) -> AsyncIterator[Watched]:
    found = await watch(database.dsn, SPEC)
    yield found
    await found.reader.close()


@pytest.fixture
async def writer(watched: Watched) -> AsyncIterator[Connection]:
    connection = await connect(watched.dsn)
    yield connection
    await connection.close()


def parked_of(writer: Connection, mode: Format = Format.STRUCTURED) -> Parked:
    return Parked(writer, asyncio.Lock(), replace(SPEC, format=mode), NAMES)


async def events_of(database: Database, watched: Watched, *keys: str) -> list[Event]:
    """One inserted row a key, and the events of that; a key `a>b` is an update from the one to the other."""
    for key in keys:
        old, _, new = key.partition(">")
        if new:
            await database.execute(f"UPDATE t SET id = '{new}' WHERE id = '{old}'")
        else:
            await database.execute(f"INSERT INTO t VALUES ('{key}', 1) ON CONFLICT (id) DO UPDATE SET n = t.n + 1")
    return await watched.events()


@pytest.mark.parametrize("mode", list(Format))
async def test_an_event_comes_back_as_the_database_made_it(
    database: Database, watched: Watched, writer: Connection, mode: Format
) -> None:
    """Byte by byte but for its number: whoever compares bodies must see the same event."""
    spec = replace(SPEC, format=mode)
    text = json.dumps({"by": ',"data":{"'})
    await database.execute(
        "BEGIN; SET LOCAL tablewatcher.context = '" + text + "';"
        """ SET LOCAL tablewatcher.traceparent = '00-",\\"data\\":-01'; INSERT INTO t VALUES ('ä b', 1); COMMIT"""
    )
    outbox = watched.outbox
    binary = type(outbox)(watched.reader, asyncio.Lock(), spec, NAMES, database="test")
    found = await binary.next_page(watched.position, 10)
    assert found is not None
    (event,) = found.events
    parked = parked_of(writer, mode)
    assert await parked.write(EPOCH, [Row(event, 3, "SinkUnreachable", "400")])
    (back,), more = await parked.first([event.key], 0)
    assert more == set()
    assert back.body == event.body
    (again,), _ = await parked.first([event.key], 7)
    replayed = await binary.for_replay(7).next_page(watched.position, 10)
    assert replayed is not None
    assert again.body == replayed.events[0].body
    assert again.message_id == f"{event.event_id}/r7"
    if mode is Format.STRUCTURED:
        assert json.loads(again.body) == json.loads(event.body) | {"replay": 7}
    for name in ("ring_id", "event_id", "op", "key", "old_key", "traceparent", "routing", "captured_at"):
        assert getattr(back, name) == getattr(event, name), name


async def test_a_row_may_be_read_in_the_other_format(database: Database, watched: Watched, writer: Connection) -> None:
    """The manifest may change between parking and replay."""
    (event,) = await events_of(database, watched, "a")
    assert await parked_of(writer).write(EPOCH, [Row(event)])
    (binary,), _ = await parked_of(writer, Format.BINARY).first(["a"], 0)
    found = json.loads(event.body)
    assert json.loads(binary.body) == found["data"]
    assert (binary.time, binary.sequence) == (found["time"], found["sequence"])


async def test_written_again_an_event_keeps_its_place(database: Database, watched: Watched, writer: Connection) -> None:
    first, second, third = await events_of(database, watched, "a", "a", "a")
    parked = parked_of(writer)
    two = await parked.write(EPOCH, [Row(first, 2, "SinkUnreachable", "400"), Row(second)])
    one = await parked.write(EPOCH, [Row(second), Row(third), Row(first, 3, "SinkUnreachable", "422")])
    back, _ = await parked.first(["a"], 0)
    assert [event.ring_id for event in back] == [first.ring_id, second.ring_id, third.ring_id]
    rows, number = await listed(watched.dsn, NAMES, 10)
    assert number == 3
    assert [(row.attempts, row.message) for row in rows] == [(5, "422"), (0, ""), (0, "")]
    sizes = [len(event.body) for event in (await parked_of(writer, Format.BINARY).first(["a"], 0))[0]]
    assert await parked.held() == Held(3, sum(sizes))
    assert (two, one) == (Held(2, sum(sizes[:2])), Held(1, sizes[2])), "only what was not there before counts"
    assert await parked.delete([*back[:2], *back[:2]]) == two
    assert await parked.delete(back[:2]) == Held()
    assert [event.ring_id for event in (await parked.first(["a"], 0))[0]] == [third.ring_id]


async def test_an_owner_that_was_replaced_writes_nothing(
    database: Database, watched: Watched, writer: Connection
) -> None:
    (event,) = await events_of(database, watched, "a")
    lease = await CursorLog(writer, asyncio.Lock(), NAMES, holder="new", sink_timeout=1).acquire(lambda _: True)
    assert isinstance(lease, Lease)
    parked = parked_of(writer)
    assert await parked.write(lease.epoch - 1, [Row(event)]) is None
    assert await parked.keys() == []
    assert await parked.write(lease.epoch, [Row(event)])


async def test_an_owner_that_was_replaced_opens_no_request_again(
    database: Database, watched: Watched, writer: Connection
) -> None:
    """It may wake up behind its successor, with numbers of its own."""
    (event,) = await events_of(database, watched, "a")
    parked, lock = parked_of(writer), asyncio.Lock()
    assert await parked.write(EPOCH, [Row(event, 8)])
    await ask(watched.dsn, NAMES, Kind.SKIP)
    await ask(watched.dsn, NAMES, Kind.REPLAY)
    lease = await CursorLog(writer, lock, NAMES, holder="new", sink_timeout=1).acquire(lambda _: True)
    assert isinstance(lease, Lease)
    old, new = (Requests(writer, lock, NAMES, epoch=epoch) for epoch in (lease.epoch - 1, lease.epoch))
    skip, replay = await new.open()
    await new.update(replace(replay, state=State.DONE, done=7, total=7))
    for write in (old.update, old.note):
        with pytest.raises(LeaseLost):
            await write(replace(replay, state=State.RUNNING, done=3))
    with pytest.raises(LeaseLost):
        await old.drop(skip)
    assert await new.open() == [skip]
    assert await parked.keys() == ["a"], "dropped by whom the request is not"
    assert await database.execute("SELECT done FROM tablewatcher.request WHERE kind = 'replay'") == [(7,)]
    await new.drop(skip)
    assert await new.open() == []


async def test_what_is_deleted_counts_as_sent_at_once(database: Database, watched: Watched, writer: Connection) -> None:
    """Whoever goes on with the request after a kill finds what is gone counted."""
    events = await events_of(database, watched, "a", "a", "b")
    parked, requests = parked_of(writer), Requests(writer, asyncio.Lock(), NAMES, epoch=EPOCH)
    assert await parked.write(EPOCH, [Row(event) for event in events])
    asked = await ask(watched.dsn, NAMES, Kind.PARKED)
    assert await requests.note(replace(asked, state=State.RUNNING)) == 0
    back, _ = await parked.first(["a", "b"], asked.id)
    for piece in (back[:2], back[1:], back):
        await parked.delete(piece)
    (going_on,) = await requests.open()
    assert (going_on.done, going_on.total) == (3, 3)


async def test_pieces_and_lanes(database: Database, watched: Watched, writer: Connection) -> None:
    """A change of key binds two keys; what does not fit in a piece is told."""
    events = await events_of(database, watched, "a", "b", "c", "a>d", "d")
    parked = parked_of(writer)
    assert await parked.write(EPOCH, [Row(event) for event in events])
    assert set(await parked.keys()) == {"a", "b", "c", "d"}
    assert set(await parked.lanes_of(["d"])) == {"a", "d"}
    loop = f"FOR i IN 1..{PIECE_EVENTS} LOOP UPDATE t SET n = n + 1 WHERE id = 'b'; END LOOP"
    await database.execute(f"DO $$ BEGIN {loop}; END $$")
    many = await watched.events()
    assert await parked.write(EPOCH, [Row(event) for event in many])
    piece, more = await parked.first(["b", "c"], 0)
    assert len(piece) == PIECE_EVENTS
    assert more == {"b"}


async def test_what_is_skipped_lets_its_followers_go(database: Database, watched: Watched, writer: Connection) -> None:
    first, second, other, alone = await events_of(database, watched, "a", "a", "b", "c")
    parked = parked_of(writer)
    assert await parked.write(EPOCH, [Row(first, 8), Row(second), Row(other, 8), Row(alone, 8)])
    requests = Requests(writer, asyncio.Lock(), NAMES, epoch=EPOCH)

    async def skip(**meant: str) -> Dropped:
        await ask(watched.dsn, NAMES, Kind.SKIP, **meant)
        (asked,) = await requests.open()
        dropped = await requests.drop(asked)
        going_on = await requests.open()
        assert [(each.kind, each.keys) for each in going_on] == [(Kind.PARKED, dropped.freed)] * bool(dropped.freed)
        for each in going_on:
            await requests.update(replace(each, state=State.DONE))
        return dropped

    assert await skip(event_id=second.event_id) == Dropped(1, [], [])
    assert await parked.write(EPOCH, [Row(second)])
    assert await skip(event_id=first.event_id) == Dropped(1, ["a"], [])
    assert await skip(key="b") == Dropped(1, [], ["b"])
    assert await skip() == Dropped(2, [], ["a", "c"])
    told = [row[0] for row in await database.execute("SELECT message FROM tablewatcher.request ORDER BY id")]
    assert "1 dropped, of key b" in told
    assert told[-1] == "2 dropped, of keys a, c"
    many = await events_of(database, watched, *map(str, range(12)))
    assert await parked.write(EPOCH, [Row(event) for event in many])
    await skip()
    ((last,),) = await database.execute("SELECT message FROM tablewatcher.request ORDER BY id DESC LIMIT 1")
    assert last == "12 dropped, of keys 0, 1, 10, 11, 2, 3, 4, 5, 6, 7 and 2 more"


async def test_a_request_is_refused_where_it_means_nothing(database: Database, watched: Watched) -> None:
    for meant in ({"key": "zz"}, {"event_id": "0" * 32}):
        with pytest.raises(Exception, match="parked list"):
            await ask(watched.dsn, NAMES, Kind.PARKED, **meant)
    asked = await ask(watched.dsn, NAMES, Kind.REPLAY, since=datetime(2020, 1, 1, tzinfo=UTC))
    assert isinstance(asked, Request), "the ring is complete yet: nothing is missing before any time"
    await database.execute("INSERT INTO t VALUES ('x', 1)")
    await database.execute(f"TRUNCATE tablewatcher.{NAMES.cursors[0]}")
    with pytest.raises(Exception, match="the ring holds events since"):
        await ask(watched.dsn, NAMES, Kind.REPLAY, since=datetime(2020, 1, 1, tzinfo=UTC))
