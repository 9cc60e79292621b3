"""Commands that wait for their requests, several at a time."""

from __future__ import annotations

from datetime import timedelta

from tablewatcher.postgres.asking import ask, followed
from tablewatcher.postgres.install.apply import apply
from tablewatcher.postgres.requests import Kind

from ..conftest import Database
from .capturing import names_of, spec_of

DONE = "UPDATE tablewatcher.request SET state = 'done'"


async def test_one_that_ends_takes_nothing_from_another(database: Database) -> None:
    """Both were done at once. What was done long ago goes."""
    await database.execute("CREATE TABLE t (id int PRIMARY KEY)")
    spec = spec_of()
    names = names_of(spec)
    await apply(database.dsn, spec, names)
    before = await ask(database.dsn, names, Kind.REPLAY)
    await database.execute(DONE + ", asked_at = asked_at - interval '2 hours'")
    first, second = [await ask(database.dsn, names, Kind.REPLAY) for _ in range(2)]
    await database.execute(DONE)
    for each in (second, first):
        assert not (await followed(database.dsn, names, each, lambda *_: True)).is_open
    there = await database.execute("SELECT id FROM tablewatcher.request ORDER BY id")
    assert before.id not in {number for (number,) in there}


async def test_a_span_is_one_on_the_database_s_clock(database: Database) -> None:
    """The machine of whoever asks may have another time, and what was captured since would be left out in silence."""
    await database.execute("CREATE TABLE t (id int PRIMARY KEY)")
    spec = spec_of()
    names = names_of(spec)
    await apply(database.dsn, spec, names)
    ((before,),) = await database.execute("SELECT clock_timestamp()")
    asked = await ask(database.dsn, names, Kind.REPLAY, since=timedelta(minutes=10))
    ((after,),) = await database.execute("SELECT clock_timestamp()")
    assert asked.since is not None
    assert before <= asked.since + timedelta(minutes=10) <= after
