"""Many watchers in one listener, which loses its database."""

from __future__ import annotations

import asyncio
import re
import time
from collections import Counter
from pathlib import Path

import nats

from ..conftest import Database, Stream, poll
from .commands import manifest, tablewatcher, write
from .conftest import MakeListener
from .listeners import nats_sink

WATCHERS = 60


async def test_all_watchers_come_back_at_once_on_a_handful_of_connections(
    tmp_path: Path, database: Database, stream: Stream, make_listener: MakeListener
) -> None:
    """Each with a connection of its own, or with a backoff that the others' faults feed, would fail here."""
    names = [f"t{nth}" for nth in range(WATCHERS)]
    for name in names:
        await database.execute(f"CREATE TABLE {name} (id int PRIMARY KEY)")
    sink = nats_sink(stream.url, stream.prefix)
    watchers = [
        manifest(name, table={"name": name}, columns=None, sink=sink, delivery={"backoff": {"maxSeconds": 1}})
        for name in names
    ]
    folder = write(tmp_path / "manifests", *watchers)
    applied = await tablewatcher("apply", "-f", folder, "--dsn", database.dsn)
    assert applied.code == 0, applied.err
    listener = make_listener(folder, database.dsn)
    listener.start()
    async with await nats.connect(stream.url) as client:
        for row in range(1, 4):
            for name in names:
                await database.execute(f"INSERT INTO {name} VALUES ({row})")

            async def all_stored(rows: int = row) -> bool:
                info = await client.jetstream().stream_info(stream.name)
                return bool(info.state.messages == rows * WATCHERS)

            await poll(all_stored, 60)
            ended = await database.execute(
                "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
                " WHERE datname = current_database() AND application_name LIKE 'tablewatcher listener%%'"
            )
            assert 0 < ended[0][0] <= 6
        await asked_together(database)
        found: Counter[str] = Counter()
        subscription = await client.jetstream().subscribe(f"{stream.prefix}.>", ordered_consumer=True)
        for _ in range(3 * WATCHERS):
            found[(await subscription.next_msg(20)).subject] += 1
    assert found == {f"{stream.prefix}.{name}.insert": 3 for name in names}


async def asked_together(database: Database) -> None:
    """Idle, all rings are looked at by one query, about once a second: not by as many as there are watchers."""
    looks: dict[object, str] = {}
    seconds, deadline = 5, float("inf")
    async with await database.connect() as looking:
        while time.monotonic() < deadline:
            cursor = await looking.execute(
                "SELECT query_start, query FROM pg_stat_activity"
                " WHERE datname = current_database() AND application_name = 'tablewatcher listener reader'"
                " AND query LIKE 'SELECT % WHERE %EXISTS (SELECT FROM %'"
            )
            looks |= dict(await cursor.fetchall())
            if looks:
                deadline = min(deadline, time.monotonic() + seconds)
            await asyncio.sleep(0.005)
    # As many of them as pg_stat_activity shows of the text, 1 kB.
    rings = [len(set(re.findall(r"ring_(\w+)_\d", query))) for query in looks.values()]
    assert 2 <= len(rings) <= 4 * seconds
    assert min(rings) > 1, looks
