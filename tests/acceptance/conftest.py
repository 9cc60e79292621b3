"""Listeners of one test, and servers that it may kill."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import nats
import pytest
from nats.js.api import StreamConfig

from tablewatcher.embedded import EmbeddedNats, EmbeddedPostgres

from ..conftest import Database, Stream, poll
from ..versions import newest_postgres
from .listeners import Listener, apply
from .writers import TABLES

MakeListener = Callable[..., Listener]
Forwarding = Callable[..., Awaitable[Listener]]


@pytest.fixture
async def make_listener(tmp_path: Path) -> AsyncIterator[MakeListener]:
    """`make_listener(manifest, dsn, *options)`: one that is not started yet. None may have met a fault it did not
    foresee."""
    made: list[Listener] = []

    def make(manifest: Path, dsn: str, *options: object) -> Listener:
        made.append(Listener(manifest, dsn, tmp_path / f"listener-{len(made)}.log", options))
        return made[-1]

    yield make
    for listener in made:
        await listener.close()
    for listener in made:
        text = listener.log.read_text() if listener.log.exists() else ""
        assert "Traceback" not in text, text[-4000:]
        assert "unexpected fault" not in text, text[-4000:]


@pytest.fixture
def forwarding(make_listener: MakeListener) -> Forwarding:
    """`await forwarding(manifest, database)`: a listener that forwards, of a watcher just applied on new tables, the
    writers' or those that other SQL makes."""

    async def made(manifest: Path, database: Database, tables: str = TABLES) -> Listener:
        await database.execute(tables)
        await apply(manifest, database.dsn)
        listener = make_listener(manifest, database.dsn)
        listener.start()
        await poll(listener.forwards, 40)
        return listener

    return made


@pytest.fixture
def mortal_postgres(server_directory: Path) -> Iterator[EmbeddedPostgres]:
    """A server of this test. Its commits survive the death of its processes, which is all that happens to it here:
    what is written, but not yet flushed, is with the kernel."""
    settings = {"fsync": "off", "max_prepared_transactions": "0", "shared_buffers": "32MB"}
    with newest_postgres(server_directory / "postgres", settings) as server:
        yield server


@pytest.fixture
def mortal_database(mortal_postgres: EmbeddedPostgres) -> Database:
    return Database(mortal_postgres, "postgres")


@pytest.fixture
def mortal_nats(server_directory: Path) -> Iterator[EmbeddedNats]:
    with EmbeddedNats(server_directory / "nats") as server:
        yield server


@pytest.fixture(params=[False, True], ids=["plain", "batches"])
async def mortal_stream(request: pytest.FixtureRequest, mortal_nats: EmbeddedNats) -> Stream:
    """In files, on `mortal_nats`; one takes batches, one does not."""
    tag = secrets.token_hex(4)
    stream = Stream(f"MORTAL_{tag}", f"mortal-{tag}", mortal_nats.url)
    async with await nats.connect(mortal_nats.url) as client:
        config = StreamConfig(name=stream.name, subjects=[f"{stream.prefix}.>"], allow_batched=request.param)
        await client.jetstream().add_stream(config)
    return stream
