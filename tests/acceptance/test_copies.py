"""Copies of a database and promoted standbys, as a listener meets them."""

from __future__ import annotations

import asyncio
import json
import re
import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

from tablewatcher.embedded import EmbeddedPostgres

from ..conftest import Database, HttpReceiver, Stream, poll
from ..replicas import caught_up, cut_off, promote, replicated
from .arrivals import Endpoint
from .checker import Arrival, check
from .conftest import MakeListener
from .listeners import Listener, apply, http_sink, nats_sink, write_manifest
from .writers import TABLES, Writers


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

    message = await poll(refused, 40)
    assert await stream.count() == 0
    word = message.partition("--adopt ")[2].partition("`")[0]
    await apply(manifest, copy.dsn, "--adopt", word)
    await poll(listener.forwards, 40)
    assert told(await events(stream, 3)) == ["original", "copied", "moved"]


def dsn_of(*servers: EmbeddedPostgres) -> str:
    """Of all of them, which have one password."""
    hosts = ",".join(f"127.0.0.1:{server.port}" for server in servers)
    return f"postgresql://postgres:{servers[0].password}@{hosts}/postgres"


async def is_refused_as_standby(listener: Listener) -> bool:
    return (await listener.state())[1] == "ReadOnlyReplica"


async def test_a_failover_that_loses_commits_is_told(
    tmp_path: Path,
    primary_and_standby: tuple[EmbeddedPostgres, EmbeddedPostgres],
    stream: Stream,
    make_listener: MakeListener,
) -> None:
    """The DSN names both servers, the standby first: the primary is found, and found again."""
    primary, standby = primary_and_standby
    old, new = Database(primary, "postgres"), Database(standby, "postgres")
    both = dsn_of(standby, primary)
    manifest = write_manifest(tmp_path / "nats.yaml", nats_sink(stream.url, stream.prefix))
    await old.execute(TABLES)
    await apply(manifest, both)
    listener, stray = make_listener(manifest, both), make_listener(manifest, new.dsn)
    listener.start()
    await old.execute("INSERT INTO account VALUES ('kept', 1)")
    assert told(await events(stream, 1)) == ["kept"]
    stray.start()
    await poll(lambda: is_refused_as_standby(stray), 40)
    await stray.close()
    await poll(lambda: asyncio.to_thread(caught_up, primary, standby), 40)
    await asyncio.to_thread(cut_off, standby)
    await old.execute("INSERT INTO account VALUES ('lost', 2)")
    assert told(await events(stream, 2)) == ["kept", "lost"]
    await asyncio.to_thread(primary.kill)
    await asyncio.to_thread(promote, standby)
    await new.execute("INSERT INTO account VALUES ('found', 3)")
    await poll(listener.forwards, 40)
    after = (await events(stream, 4))[2:]
    assert sorted(told(after)) == ["failover", "found"]
    assert all(event["sequence"].startswith("000002-") for event in after)
    assert len({event["id"] for event in await events(stream, 4)}) == 4


DURABLE = {"fsync": "off", "max_prepared_transactions": "0", "shared_buffers": "32MB"}


@pytest.fixture
def synchronous(server_directory: Path) -> Iterator[tuple[EmbeddedPostgres, EmbeddedPostgres]]:
    """A primary whose commits wait for its standby."""
    with replicated(server_directory, DURABLE) as (primary, standby):
        with psycopg.connect(primary.dsn(), autocommit=True) as connection:
            connection.execute("ALTER SYSTEM SET synchronous_standby_names = '*'")
            connection.execute("SELECT pg_reload_conf()")
            deadline = time.monotonic() + 40
            while connection.execute("SELECT sync_state FROM pg_stat_replication").fetchall() != [("sync",)]:
                assert time.monotonic() < deadline, "the standby is not waited for"
                time.sleep(0.02)
        yield primary, standby


def without_generation(found: Arrival) -> Arrival:
    """What was sent before and after the failover is the same but for this."""
    body = re.sub(rb'"sequence":"[0-9]{6}-', b'"sequence":"-', found.body)
    return Arrival(found.key, found.version, found.event_id, body)


async def test_a_failover_to_a_synchronous_standby_loses_nothing(
    tmp_path: Path,
    synchronous: tuple[EmbeddedPostgres, EmbeddedPostgres],
    http_receiver: HttpReceiver,
    make_listener: MakeListener,
) -> None:
    """Writers find the new primary too. What was visible on the old one, and so could be sent, is there."""
    primary, standby = synchronous
    both = dsn_of(primary, standby)
    endpoint = Endpoint(http_receiver)
    manifest = write_manifest(tmp_path / "http.yaml", http_sink(endpoint.url))
    await Database(primary, "postgres").execute(TABLES)
    await apply(manifest, both)
    listener, writers = make_listener(manifest, both), Writers(f"{both}?target_session_attrs=read-write", seed=23)
    listener.start()
    async with writers.running():
        await poll(listener.forwards, 40)
        await writers.progress(400)
        await asyncio.to_thread(primary.kill)
        await asyncio.to_thread(promote, standby)
        await poll(listener.forwards, 40)
        await writers.progress(300)
    assert writers.faults, "the failover was not felt"
    await writers.resolve()
    accepted = await endpoint.accepted_all(writers.history.ok)
    assert check(writers.history, [without_generation(found) for found in accepted]) == []
    await poll(lambda: endpoint.gaps, 40)
    assert [(gap["reason"], gap["certain"]) for gap in endpoint.gaps] == [("failover", False)]
