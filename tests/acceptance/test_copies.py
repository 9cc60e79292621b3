"""Copies of a database and promoted standbys, as a listener meets them."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

from tablewatcher.embedded import EmbeddedPostgres

from ..conftest import POSTGRES_SETTINGS, Database, Stream, poll
from ..replicas import cut_off, promote, standby_of
from .conftest import MakeListener
from .listeners import Listener, apply, nats_sink, write_manifest
from .writers import TABLES

pytestmark = pytest.mark.timeout(90)


async def events(stream: Stream, count: int) -> list[dict[str, Any]]:
    return [json.loads(message.data) for message in await stream.messages(count)]


def told(found: list[dict[str, Any]]) -> list[str]:
    """Keys, and the reasons of gaps."""
    return [event["data"]["gap"]["reason"] if "gap" in event["data"] else event["partitionkey"] for event in found]


@pytest.fixture
def copy(database: Database) -> Iterator[Database]:
    name = f"copy_{secrets.token_hex(4)}"
    yield Database(database.server, name)
    with psycopg.connect(database.server.dsn(), autocommit=True) as connection:
        connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))


async def test_a_copy_delivers_nothing_until_it_is_adopted(
    tmp_path: Path, database: Database, copy: Database, stream: Stream, make_listener: MakeListener
) -> None:
    manifest = write_manifest(tmp_path / "nats.yaml", nats_sink(stream.url, stream.prefix))
    await database.execute(TABLES)
    await apply(manifest, database.dsn)
    await database.execute("INSERT INTO account VALUES ('original', 1)")
    make = sql.SQL("CREATE DATABASE {} TEMPLATE {}")
    await Database(database.server, "postgres").execute(
        make.format(sql.Identifier(copy.name), sql.Identifier(database.name)).as_string()
    )
    await copy.execute("INSERT INTO account VALUES ('copied', 2)")
    listener = make_listener(manifest, copy.dsn)
    listener.start()

    async def refused() -> str:
        ready, reason, message = await listener.state()
        return message if reason == "CloneRefused" and not ready else ""

    message = await poll(refused, 20)
    assert await stream.count() == 0
    word = message.partition("--adopt ")[2].partition("`")[0]
    await apply(manifest, copy.dsn, "--adopt", word)
    await poll(listener.forwards, 20)
    assert told(await events(stream, 3)) == ["original", "copied", "moved"]


@pytest.fixture
def pair(server_directory: Path) -> Iterator[tuple[EmbeddedPostgres, EmbeddedPostgres]]:
    """A primary and its standby."""
    with EmbeddedPostgres(server_directory / "primary", 18, POSTGRES_SETTINGS) as primary:
        standby = standby_of(primary, server_directory / "standby", POSTGRES_SETTINGS)
        with standby:
            yield primary, standby


async def is_refused_as_standby(listener: Listener) -> bool:
    return (await listener.state())[1] == "ReadOnlyReplica"


async def test_a_failover_that_loses_commits_is_told(
    tmp_path: Path, pair: tuple[EmbeddedPostgres, EmbeddedPostgres], stream: Stream, make_listener: MakeListener
) -> None:
    """The DSN names both servers, the standby first: the primary is found, and found again."""
    primary, standby = pair
    old, new = Database(primary, "postgres"), Database(standby, "postgres")
    both = f"postgresql://postgres:{primary.password}@127.0.0.1:{standby.port},127.0.0.1:{primary.port}/postgres"
    manifest = write_manifest(tmp_path / "nats.yaml", nats_sink(stream.url, stream.prefix))
    await old.execute(TABLES)
    await apply(manifest, both)
    listener, stray = make_listener(manifest, both), make_listener(manifest, new.dsn)
    listener.start()
    await old.execute("INSERT INTO account VALUES ('kept', 1)")
    assert told(await events(stream, 1)) == ["kept"]
    stray.start()
    await poll(lambda: is_refused_as_standby(stray), 20)
    await stray.close()
    await asyncio.to_thread(cut_off, standby)
    await old.execute("INSERT INTO account VALUES ('lost', 2)")
    assert told(await events(stream, 2)) == ["kept", "lost"]
    await asyncio.to_thread(primary.kill)
    await asyncio.to_thread(promote, standby)
    await new.execute("INSERT INTO account VALUES ('found', 3)")
    await poll(listener.forwards, 20)
    after = (await events(stream, 4))[2:]
    assert sorted(told(after)) == ["failover", "found"]
    assert all(event["sequence"].startswith("000002-") for event in after)
    assert len({event["id"] for event in await events(stream, 4)}) == 4
