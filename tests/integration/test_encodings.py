"""Databases of other encodings than UTF-8: events are UTF-8 all the same, or the database is refused."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tablewatcher.errors import DatabaseError, Reason
from tablewatcher.naming import token
from tablewatcher.postgres.ring.history import History
from tablewatcher.spec.model import Capture, Granularity, NatsSink

from ..conftest import Database
from .capturing import names_of, plan, spec_of, watch

# A word that each of them can hold: of one byte a letter, of two, of three in one and not in UTF-8.
WORDS = {"LATIN1": "Größe", "WIN1252": "1 €", "KOI8R": "размер", "EUC_JP": "大きさ"}


@asynccontextmanager
async def encoded(database: Database, encoding: str) -> AsyncIterator[Database]:
    """A database of this encoding, beside `database`."""
    found = Database(database.server, f"{database.name}_{encoding.lower()}")
    await database.execute(
        f"CREATE DATABASE {found.name} TEMPLATE template0 ENCODING '{encoding}' LC_COLLATE 'C' LC_CTYPE 'C'"
    )
    # For the test's own statements: without it a client talks as the database does.
    await database.execute(f"ALTER DATABASE {found.name} SET client_encoding = 'UTF8'")
    try:
        yield found
    finally:
        await database.execute(f"DROP DATABASE {found.name} WITH (FORCE)")


@pytest.mark.parametrize("granularity", [Granularity.ROW, Granularity.STATEMENT])
@pytest.mark.parametrize("encoding", WORDS)
async def test_events_are_utf8(encoding: str, granularity: Granularity, any_database: Database) -> None:
    word = WORDS[encoding]
    async with encoded(any_database, encoding) as database:
        await database.execute(f'CREATE TABLE t (id text PRIMARY KEY, "{word}" text, j json)')
        spec = spec_of(columns=(word, "j"), include_before=True, capture=Capture(granularity=granularity))
        watched = await watch(database.dsn, spec)
        async with watched.reader:
            await database.execute(
                f"INSERT INTO t SELECT '{word}' || n, '{word}', '[\"{word}\"]' FROM generate_series(1, 40) n;"
                f" UPDATE t SET \"{word}\" = 'x' WHERE id = '{word}1'; INSERT INTO t VALUES (repeat('{word}', 600))"
            )
            events = await watched.events()
    assert [event.key for event in events[:40]] == [token(f"{word}{n}") for n in range(1, 41)]
    assert [len(event.key) for event in events[41:]] == [64]
    found = [json.loads(event.body)["data"] for event in events]
    row = {"id": f"{word}1", word: word, "j": [word]}
    assert found[0]["after"] == found[40]["before"] == row
    assert found[40]["after"] == {**row, word: "x"}
    assert found[41]["key"] == {"id": word * 600}


@pytest.mark.parametrize("granularity", [Granularity.ROW, Granularity.STATEMENT])
async def test_what_unicode_has_no_character_for_is_a_question_mark(
    granularity: Granularity, any_database: Database
) -> None:
    """In the body, in the key and in the subject; it holds up no other row, not even in a long text."""
    async with encoded(any_database, "WIN1252") as database:
        await database.execute("CREATE TABLE t (id text PRIMARY KEY, v text)")
        sink = NatsSink(("nats://127.0.0.1:4222",), "x.{column:v}")
        watched = await watch(
            database.dsn, spec_of(columns=("v",), sink=sink, capture=Capture(granularity=granularity))
        )
        async with watched.reader:
            await database.execute(
                "INSERT INTO t SELECT chr(129) || n, 'a' || chr(141) || '€' FROM generate_series(1, 40) n;"
                " INSERT INTO t VALUES ('long', repeat('€' || chr(129), 10000)), ('last', 'well')"
            )
            events = await watched.events()
            history = History(watched.reader, asyncio.Lock(), watched.names)
            assert await history.since(None, "last", watched.position) == (events[-1].ring_id, 1)
    assert [event.key for event in events] == [*(f"%3F{n}" for n in range(1, 41)), "long", "last"]
    assert [event.routing for event in events[:40]] == [["a%3F%E2%82%AC"]] * 40
    found = [json.loads(event.body)["data"]["after"] for event in events]
    assert found[0] == {"id": "?1", "v": "a?€"}
    assert found[-2] == {"id": "long", "v": "€?" * 10000}
    assert found[-1] == {"id": "last", "v": "well"}


@pytest.mark.parametrize("encoding", ["SQL_ASCII", "MULE_INTERNAL"])
async def test_what_does_not_turn_into_utf8_is_refused_as_that(encoding: str, any_database: Database) -> None:
    """Of the second the server refuses even a connection that asks for UTF-8: that is no fault of host or network."""
    spec = spec_of()
    async with encoded(any_database, encoding) as database:
        with pytest.raises(DatabaseError, match=r"encoding .* UTF-8") as refused:
            await plan(database.dsn, spec, names_of(spec))
    assert refused.value.reason is Reason.MANUAL_ACTION_REQUIRED


# Keys with such a byte, and without; by one statement of two rows, and of so many that they are gathered.
@pytest.mark.parametrize("rows", [2, 300])
@pytest.mark.parametrize("granularity", [Granularity.ROW, Granularity.STATEMENT])
@pytest.mark.parametrize(
    ("key", "tokens"),
    [("id", ["1", "1"]), ("id, c", ["1,%5C351", "1,%5C303"]), ("id, v", ["1,%C3%A9%F0%9F%98%80"] * 2)],
)
async def test_a_byte_that_is_no_utf8_is_said_in_digits(
    key: str, tokens: list[str], granularity: Granularity, rows: int, any_database: Database
) -> None:
    """A "char" may be such a byte. Until PostgreSQL 14 that is its text, which nobody else can read."""
    await any_database.execute(
        'CREATE TYPE pair AS (a "char", b text);'
        f' CREATE TABLE t (id int, c "char", v text, p pair, s text, PRIMARY KEY ({key}))'
    )
    spec = spec_of(
        # A column of another type keeps rows from being gathered by column.
        columns=("c", "v", "p") if rows == 2 else ("c", "v"),
        sink=NatsSink(("nats://127.0.0.1:4222",), "x.{column:c}"),
        include_before=True,
        capture=Capture(granularity=granularity),
    )
    watched = await watch(any_database.dsn, spec)
    async with watched.reader:
        await any_database.execute(
            "INSERT INTO t SELECT n, (-23)::\"char\", 'é😀', ROW('é', 'ü')::pair"
            f" FROM generate_series(1, {rows}) AS n; UPDATE t SET c = 'é' WHERE id = 1; DELETE FROM t WHERE id = 1"
        )
        await any_database.execute("INSERT INTO t VALUES (0, 'a', 'last')")
        events = await watched.events()
        history = History(watched.reader, asyncio.Lock(), watched.names)
        there = [await history.since(None, token, watched.position) for token in tokens]
    first, updated, deleted = events[0], events[rows], events[rows + 1]
    assert len(events) == rows + 3
    assert [first.key, updated.key, deleted.key] == [tokens[0], tokens[1], tokens[1]]
    assert updated.old_key == (tokens[0] if key == "id, c" else None)
    assert [first.routing, updated.routing] == [["%5C351"], ["%5C303"]]
    # An update that changes the key counts for both.
    assert there == ([(first.ring_id, 2), (updated.ring_id, 2)] if key == "id, c" else [(first.ring_id, 3)] * 2)
    after = [json.loads(event.body)["data"]["after"] for event in (first, updated)]
    assert [row["c"] for row in after] == ["\\351", "\\303"]
    assert [row["v"] for row in after] == ["é😀"] * 2
    assert all(row.get("p", {"b": "ü"})["b"] == "ü" for row in after)
    assert json.loads(deleted.body)["data"]["before"]["c"] == "\\303"
