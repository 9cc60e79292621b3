"""A subject that names other columns by the time an event is sent: each goes where its own values say."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from tablewatcher.postgres.install.apply import apply
from tablewatcher.postgres.parked import Parked, Row
from tablewatcher.postgres.ring.history import History
from tablewatcher.spec.model import Capture, Format, Granularity, NatsSink, WatcherSpec

from ..conftest import Database
from .capturing import names_of, opened, spec_of, watching

TABLE = "CREATE TABLE t (id int PRIMARY KEY, a text, n numeric, j jsonb)"
# So many that some are gathered, of both kinds of chunks.
ROWS = 100
# After that of any lease.
EPOCH = 1 << 60


def named(*columns: str, **fields: object) -> WatcherSpec:
    """A watcher whose subject names these."""
    template = ".".join(["s", *(f"{{column:{column}}}" for column in columns)])
    return replace(spec_of(sink=NatsSink(("nats://127.0.0.1:4222",), template)), **fields)


async def write(database: Database, first: int) -> None:
    await database.execute(
        f"INSERT INTO t SELECT g, 'a ' || g, g + 0.50, '{{}}' FROM generate_series({first}, {first + ROWS - 1}) AS g;"
        f" UPDATE t SET a = NULL WHERE id = {first}; DELETE FROM t WHERE id = {first + 1}"
    )


@pytest.mark.parametrize("columns", [("a", "n"), ("a", "n", "j")], ids=["by column", "one by one"])
@pytest.mark.parametrize("granularity", [Granularity.AUTO, Granularity.ROW])
@pytest.mark.parametrize("form", [Format.STRUCTURED, Format.BINARY])
async def test_events_of_before_go_where_their_values_say(
    any_database: Database, form: Format, granularity: Granularity, columns: tuple[str, ...]
) -> None:
    fields = {"columns": columns, "capture": Capture(granularity=granularity), "format": form}
    # None at all, then one, another one, and both: of some, the last has as many as there are words.
    specs = [named(*each, **fields) for each in ((), ("a",), ("n",), ("a", "id"), ("n", "a"))]
    async with watching(any_database, TABLE, specs[0]) as watched:
        for place, spec in enumerate(specs):
            await apply(watched.dsn, spec, names_of(spec))
            await write(any_database, 1 + place * ROWS)
        for spec in specs[1:]:
            reader = await opened(watched.dsn, spec)
            async with reader.reader:
                events = await reader.events()
                # A replay of one key looks for its events by itself.
                history = History(reader.reader, asyncio.Lock(), reader.names)
                for key in ("1", "2", "90"):
                    same = [event.routing for event in events if event.key == key]
                    found = await history.events(reader.outbox, None, key, reader.position, most=9, most_bytes=9999)
                    assert found is not None
                    assert [event.routing for event in found] == same
            assert len(events) == len(specs) * (ROWS + 2)
            for event in events:
                number, is_first = int(event.key), event.op == "u"
                row = {"id": str(number), "a": "_" if is_first else f"a%20{number}", "n": f"{number}%2E50"}
                # Without includeBefore a delete holds its key alone.
                captured = specs[(number - 1) // ROWS].routing_columns
                if event.op == "d" and captured != spec.routing_columns:
                    row |= {"a": "_", "n": "_"}
                assert event.routing == [row[column] for column in spec.routing_columns]


async def test_words_of_an_earlier_version_stand(any_database: Database) -> None:
    """It wrote no sign of which columns they are of."""
    spec = named("n", "a", columns=("a", "n"))
    async with watching(any_database, TABLE, spec) as watched:
        await write(any_database, 1)
        for ring in watched.names.rings:
            await any_database.execute(f"UPDATE tablewatcher.{ring} SET routing = ARRAY['x', 'y'] WHERE bodies IS NULL")
        routes = [event.routing for event in await watched.events() if event.op != "i"]
    assert routes == [["x", "y"], ["x", "y"]]


async def test_what_is_aside_goes_where_its_values_say(any_database: Database) -> None:
    before, after, more = named("a", columns=("a", "n")), named("n", columns=("a", "n")), named("n", "a", "id")
    async with watching(any_database, TABLE, before) as watched:
        await any_database.execute("INSERT INTO t VALUES (1, 'x', 7)")
        (event,) = await watched.events()

        def parked(spec: WatcherSpec) -> Parked:
            return Parked(watched.reader, asyncio.Lock(), spec, watched.names)

        assert await parked(before).write(EPOCH, [Row(event)])
        for spec, words in ((before, ["x"]), (after, ["7"]), (more, ["7", "x", "1"])):
            (back,), _ = await parked(spec).first(["1"], 0)
            assert back.routing == words
