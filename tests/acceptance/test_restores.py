"""Databases that are set back while a listener runs."""

from __future__ import annotations

import asyncio
import json
import subprocess
from pathlib import Path
from typing import Any

from tablewatcher.embedded import EmbeddedPostgres

from ..conftest import Database, Stream, poll
from .commands import tablewatcher
from .conftest import Forwarding, MakeListener
from .listeners import apply, nats_sink, write_manifest
from .writers import TABLES


async def test_events_after_a_restore_compare_above_those_before(
    tmp_path: Path, database: Database, stream: Stream, forwarding: Forwarding
) -> None:
    manifest = write_manifest(tmp_path / "nats.yaml", nats_sink(stream.url, stream.prefix))
    listener = await forwarding(manifest, database)
    await database.execute("INSERT INTO account VALUES ('kept', 1)")
    await stream.messages(1)
    command = [database.server.bin / "pg_dump", "--clean", database.dsn]
    dump = await asyncio.to_thread(subprocess.run, command, check=True, capture_output=True)
    await database.execute("INSERT INTO account VALUES ('a', 1); UPDATE account SET version = 2 WHERE key = 'a'")
    before = [json.loads(message.data) for message in await stream.messages(3)]

    restore = [database.server.bin / "psql", "-v", "ON_ERROR_STOP=1", "-1", "-q", database.dsn]
    await asyncio.to_thread(subprocess.run, restore, input=dump.stdout, check=True, capture_output=True)

    async def says_so() -> bool:
        _, reason, message = await listener.state()
        return reason == "TriggersDrifted" and "another table" in message

    await poll(says_so, 60)
    await apply(manifest, database.dsn)
    await poll(listener.forwards, 40)
    await database.execute("INSERT INTO account VALUES ('a', 3)")

    async def arrived() -> list[dict[str, Any]]:
        found = [json.loads(message.data) for message in await stream.messages(await stream.count())]
        last = found[-1]["data"]
        return found if last.get("after", {}).get("version") == 3 else []

    found = await poll(arrived, 40)
    after = found[-1]
    assert after["sequence"] > max(event["sequence"] for event in before)
    gaps = [event["data"]["gap"]["reason"] for event in found if "gap" in event["data"]]
    assert gaps == ["failover", "triggerRepaired"]


async def test_disks_that_are_set_back_under_a_listener(
    tmp_path: Path, mortal_postgres: EmbeddedPostgres, stream: Stream, make_listener: MakeListener
) -> None:
    """A snapshot of them, restored in place: the server starts as after a crash, on the same timeline."""
    database = Database(mortal_postgres, "postgres")
    manifest = write_manifest(tmp_path / "nats.yaml", nats_sink(stream.url, stream.prefix))
    await database.execute(TABLES)
    await apply(manifest, database.dsn)
    ((data,),) = await database.execute("SHOW data_directory")
    await asyncio.to_thread(mortal_postgres.stop)
    await asyncio.to_thread(subprocess.run, ["cp", "-a", data, f"{data}.snapshot"], check=True)
    await asyncio.to_thread(mortal_postgres.start)
    listener = make_listener(manifest, database.dsn)
    listener.start()
    await poll(listener.forwards, 40)
    for version in range(40):  # more than a sequence puts into the log ahead
        await database.execute(f"INSERT INTO account VALUES ('{version}', {version})")
    before = [json.loads(message.data) for message in await stream.messages(40)]

    await asyncio.to_thread(mortal_postgres.stop)
    await asyncio.to_thread(subprocess.run, ["rm", "-rf", data], check=True)
    await asyncio.to_thread(subprocess.run, ["mv", f"{data}.snapshot", data], check=True)
    await asyncio.to_thread(mortal_postgres.start)
    await database.execute("INSERT INTO account VALUES ('39', 1)")
    after = [json.loads(message.data) for message in await stream.messages(42)][40:]
    assert min(event["sequence"] for event in after) > max(event["sequence"] for event in before)
    assert sorted(event["data"].get("gap", {}).get("reason", "") for event in after) == ["", "failover"]


async def test_capture_that_is_made_anew_under_a_listener(
    tmp_path: Path, database: Database, stream: Stream, forwarding: Forwarding
) -> None:
    """Its ring is another, and nobody has seen what was written in between."""
    manifest = write_manifest(tmp_path / "nats.yaml", nats_sink(stream.url, stream.prefix))
    listener = await forwarding(manifest, database)
    await database.execute("INSERT INTO account SELECT g::text, g FROM generate_series(1, 9) AS g")
    before = [json.loads(message.data) for message in await stream.messages(9)]
    removed = await tablewatcher("destroy", "-f", manifest, "--dsn", database.dsn)
    assert removed.code == 0, removed.err
    await database.execute("INSERT INTO account VALUES ('unseen', 1)")
    await apply(manifest, database.dsn)
    await poll(listener.forwards, 40)
    await database.execute("INSERT INTO account VALUES ('seen', 1)")
    after = [json.loads(message.data) for message in await stream.messages(11)][9:]
    assert min(event["sequence"] for event in after) > max(event["sequence"] for event in before)
    assert sorted(event["data"].get("gap", {}).get("reason", "") for event in after) == ["", "failover"]
