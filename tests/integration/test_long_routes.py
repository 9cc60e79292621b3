"""Values of a column that the subject names, of any length: the ring keeps no more of one than a subject takes."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tablewatcher.naming import LONGEST_SUBJECT, token
from tablewatcher.sinks.base import Verdict
from tablewatcher.spec.model import Capture, Granularity, NatsSink

from ..conftest import Database, Stream
from .capturing import Watched, spec_of, watch
from .running import running_time
from .sinks.conftest import nats_sink

LONG = "repeat('a b', 350000)"
SIGNS = LONGEST_SUBJECT + 1
SINK = NatsSink(("nats://127.0.0.1:4222",), "x.{column:s}")
FORMS = [Granularity.AUTO, Granularity.ROW]
# Of the fast form nothing is left without `gone`; of the one by names, with `odd`, which jsonb cannot hold.
WITHOUT = {"as it was": "", "a column renamed": "ALTER TABLE t RENAME gone TO other;"}


async def stored(database: Database, watched: Watched) -> list[tuple[int, int]]:
    """Of every row of the ring: how many routes it has, and the signs of the longest."""
    rings = " UNION ALL ".join(f"SELECT id, routing FROM tablewatcher.{ring}" for ring in watched.names.rings)
    return await database.execute(
        f"SELECT cardinality(routing), (SELECT max(length(part)) FROM unnest(routing) AS u (part)) FROM ({rings}) AS r"
        " ORDER BY id"
    )


@pytest.mark.parametrize("granularity", FORMS)
@pytest.mark.parametrize("changed", WITHOUT)
async def test_no_more_is_kept_than_makes_a_subject_too_long(
    granularity: Granularity, changed: str, any_database: Database
) -> None:
    await any_database.execute("CREATE TABLE t (id int PRIMARY KEY, s text, odd json, gone int)")
    spec = spec_of(columns=("s", "odd", "gone"), sink=SINK, capture=Capture(granularity=granularity))
    watched = await watch(any_database.dsn, spec)
    async with watched.reader:
        await any_database.execute(
            f"{WITHOUT[changed]} INSERT INTO t VALUES (1, {LONG}), (2, 'short'); UPDATE t SET id = id + 10;"
            f" INSERT INTO t SELECT g, repeat('é', 5000) FROM generate_series(100, 160) AS g;"
            f""" INSERT INTO t VALUES (3, {LONG}, '"\\u0000"'); DELETE FROM t"""
        )
        assert max(longest for _, longest in await stored(any_database, watched)) == SIGNS
        async with running_time() as took:
            events = await watched.events()
        assert took.seconds < 2
    routes = {event.key: set() for event in events}
    for event in events:
        assert event.routing is not None
        routes[event.key] |= set(event.routing)
    assert routes["2"] | routes["12"] == {"short"}
    assert all(len(word) > LONGEST_SUBJECT for key, found in routes.items() if key not in {"2", "12"} for word in found)


async def test_rows_of_an_earlier_function_are_read_as_soon(any_database: Database) -> None:
    """Whatever stands in the ring: an event whose route no subject has room for is refused, the others go on."""
    await any_database.execute("CREATE TABLE t (id int PRIMARY KEY, s text)")
    watched = await watch(any_database.dsn, spec_of(columns=("s",), sink=SINK))
    just = "a" * LONGEST_SUBJECT
    async with watched.reader:
        await any_database.execute("INSERT INTO t SELECT g, 'a b' FROM generate_series(1, 3) AS g")
        await any_database.execute(f"UPDATE t SET s = '{just}'")
        ring = f"tablewatcher.{watched.names.rings[0]}"
        await any_database.execute(f"UPDATE {ring} SET routing = ARRAY[{LONG}] WHERE key = '{{2}}'")
        async with running_time() as took:
            events = await watched.events()
        assert took.seconds < 2
    found = [(event.key, event.routing) for event in events if event.key != "2"]
    assert found == [("1", ["a%20b"]), ("3", ["a%20b"]), ("1", [just]), ("3", [just])]
    # That of the second row, which as a token would have two million bytes.
    assert [len(event.routing[0]) for event in events if event.key == "2" and event.routing] == [SIGNS, SIGNS]


async def test_it_is_refused_as_too_long_and_other_rows_go_on(database: Database, stream: Stream) -> None:
    await database.execute("CREATE TABLE t (id int PRIMARY KEY, s text)")
    subject = f"{stream.prefix}.{{column:s}}"
    watched = await watch(database.dsn, spec_of(columns=("s",), sink=replace(SINK, subject=subject)))
    async with watched.reader:
        await database.execute(f"INSERT INTO t VALUES (1, 'eu'), (2, {LONG}), (3, 'u s')")
        events = await watched.events()
    sink = nats_sink(stream.url, subject=subject, columns=("s",))
    await sink.open()
    outcomes = await sink.deliver(events)
    await sink.close()
    by_event = zip(events, outcomes, strict=True)
    ((key, message),) = [(event.key, each.message) for event, each in by_event if each.verdict is Verdict.REJECTED]
    assert key == "2"
    assert "longer than" in message
    subjects = {message.subject for message in await stream.messages(2)}
    assert subjects == {f"{stream.prefix}.eu", f"{stream.prefix}.u%20s"}


@pytest.mark.parametrize("text", ["é☃😀 ", "a b", "%_-,.*>", "\x01\x7f\t", "\\1\\&", "x" * 500 + " "])
async def test_a_long_text_is_the_token_it_always_was(text: str, any_database: Database) -> None:
    await any_database.execute("CREATE TABLE t (id int PRIMARY KEY)")
    watched = await watch(any_database.dsn, spec_of())
    async with watched.reader:
        for given in (text, text * 7):
            ((made,),) = await any_database.execute("SELECT tablewatcher.token(ARRAY[%s::text, %s])", given, "")
            assert made == f"{token(given)},_"
        # What a second is too short for where it goes by the square.
        async with running_time() as took:
            times = 100_000 // len(text)
            await any_database.execute("SELECT tablewatcher.token(ARRAY[repeat(%s::text, %s)])", text, times)
        assert took.seconds < 2
