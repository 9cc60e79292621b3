"""Somebody locks tables of one watcher for long: others of the same listener and database go on."""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from tablewatcher.listener.observe import Observer
from tablewatcher.listener.target import Target
from tablewatcher.listener.watch import Watch
from tablewatcher.metrics import Metrics
from tablewatcher.postgres.install.apply import apply
from tablewatcher.sinks.address import AddressPolicy
from tablewatcher.spec.model import HttpSink

from ..conftest import Database, HttpReceiver, ReceivedRequest, poll
from ..pgbouncer import PgBouncer
from .capturing import names_of, spec_of
from .sinks.events import MemorySecrets

TABLES = ("a", "b")
LOCKED_SECONDS = 12
MOST_SECONDS = 4


@pytest.fixture(params=["direct", "pooled"])
def dsn(request: pytest.FixtureRequest, database: Database, server_directory: Path) -> Iterator[str]:
    """The listener's; through a pooler it finds what there is by looking alone."""
    if request.param == "direct":
        yield database.dsn
        return
    with PgBouncer(server_directory / "pooler", database.server, "transaction") as pooler:
        yield pooler.dsn(database.name, database.server.password)


async def test_the_ring_of_another(database: Database, dsn: str, http_receiver: HttpReceiver) -> None:
    """Its changes wait; then they arrive as well."""
    came: dict[str, float] = {}

    async def note(request: ReceivedRequest) -> int:
        came[json.loads(request.body)["partitionkey"]] = time.monotonic()
        return 204

    http_receiver.respond = note
    async with AsyncExitStack() as stack:
        target = Target(lambda: dsn)
        stack.push_async_callback(target.close)
        for table in TABLES:
            await database.execute(f"CREATE TABLE {table} (id text PRIMARY KEY)")
            spec = spec_of(table, name=table, sink=HttpSink(http_receiver.url))
            await apply(database.dsn, spec, names_of(spec))
            observer = Observer(spec, Metrics(CollectorRegistry()), "here")
            watch = Watch(spec, names_of(spec), target, MemorySecrets(), observer, addresses=AddressPolicy())
            stack.push_async_callback(watch.stop)
            await database.execute(f"INSERT INTO {table} VALUES ('{table}')")
        await poll(lambda: len(came) == len(TABLES), 40)
        rings = ", ".join(f"tablewatcher.{ring}" for ring in names_of(spec_of("a", name="a")).rings)
        wrote: dict[str, float] = {}
        async with await database.connect() as hindering, hindering.transaction():
            await hindering.execute("INSERT INTO a VALUES ('meanwhile')")
            await hindering.execute(f"LOCK TABLE {rings} IN ACCESS EXCLUSIVE MODE".encode())
            end = time.monotonic() + LOCKED_SECONDS
            for number in itertools.takewhile(lambda _: time.monotonic() < end, itertools.count()):
                wrote[f"b{number}"] = time.monotonic()
                await database.execute(f"INSERT INTO b VALUES ('b{number}')")
                await asyncio.sleep(0.1)
        await poll(lambda: came.keys() >= {*wrote, "meanwhile"}, 40)
        assert max(came[key] - at for key, at in wrote.items()) < MOST_SECONDS
