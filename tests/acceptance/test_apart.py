"""Watchers of one listener stand apart from each other, and from what is not there yet."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp

from tablewatcher.embedded import EmbeddedPostgres

from ..conftest import Database, HttpReceiver, ReceivedRequest, Stream, poll
from .commands import manifest, tablewatcher, write
from .conftest import MakeListener
from .doors import Door
from .listeners import Listener, apply, nats_sink, write_manifest
from .writers import TABLES, put

ROWS = 5000
SECONDS = 2.0


async def told(listener: Listener) -> dict[str, Any]:
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"http://127.0.0.1:{listener.port}/readyz") as answer,
    ):
        return {"status": answer.status, **json.loads(await answer.text())["watchers"]}


async def test_a_sink_that_says_nothing_holds_nobody_and_no_transaction(
    tmp_path: Path,
    database: Database,
    stream: Stream,
    http_receiver: HttpReceiver,
    make_listener: MakeListener,
    free_port: Callable[[], int],
) -> None:
    """An old snapshot of ours would keep the application's dead rows from being removed for as long as a sink hangs."""
    names = ("silent", "away", "well")
    answering = asyncio.Event()

    async def say_nothing(_: ReceivedRequest) -> int:
        await answering.wait()
        return 204

    http_receiver.respond = say_nothing
    sinks = {
        "silent": {"http": {"url": http_receiver.url, "timeoutSeconds": 60}},
        "away": {"nats": {"servers": [f"nats://127.0.0.1:{free_port()}"], "subject": "x"}},
        "well": {"nats": {"servers": [stream.url], "subject": f"{stream.prefix}.{{action}}"}},
    }
    for name in names:
        await database.execute(f"CREATE TABLE {name} (id int PRIMARY KEY, status text)")
    files = write(tmp_path / "manifests", *(manifest(name, table={"name": name}, sink=sinks[name]) for name in names))
    applied = await tablewatcher("apply", "-f", files, "--dsn", database.dsn)
    assert applied.code == 0, applied.err
    for name in ("silent", "away"):
        await database.execute(f"INSERT INTO {name} SELECT generate_series(1, {ROWS})")
    listener = make_listener(files, database.dsn)
    listener.start()
    # As many as are under way at once.
    await http_receiver.wait_for(16, 40)
    ((since,),) = await database.execute("SELECT clock_timestamp()")
    await database.execute("INSERT INTO well VALUES (1)")
    await stream.messages(1, 20)
    await asyncio.sleep(SECONDS)
    open_since = await database.execute(
        "SELECT application_name, state, query FROM pg_stat_activity"
        " WHERE datname = current_database() AND application_name LIKE 'tablewatcher listener%%'"
        " AND (xact_start < %s OR state LIKE 'idle in transaction%%')",
        since,
    )
    assert open_since == []
    found = await told(listener)
    assert (found["status"], found["shop/well"]["ready"]) == (503, True)
    assert (found["shop/away"]["ready"], found["shop/away"]["reason"]) == (False, "SinkUnreachable")
    answering.set()
    await http_receiver.wait_for(ROWS, 60)


async def test_a_listener_waits_for_a_database_that_is_not_there_yet(
    tmp_path: Path,
    mortal_postgres: EmbeddedPostgres,
    mortal_database: Database,
    stream: Stream,
    make_listener: MakeListener,
) -> None:
    """Longer than a command would, and says so wherever somebody looks."""
    await mortal_database.execute(TABLES)
    manifest = write_manifest(tmp_path / "late.yaml", nats_sink(stream.url, stream.prefix))
    await apply(manifest, mortal_database.dsn)
    await put(mortal_database, "a", "b")
    async with Door(mortal_postgres.port) as door:
        await door.shut()
        way = mortal_database.dsn.replace(f":{mortal_postgres.port}/", f":{door.port}/") + "?sslmode=disable"
        listener = make_listener(manifest, way)
        listener.start()

        async def is_said() -> bool:
            ready, reason, _ = await listener.state()
            return not ready and reason == "DatabaseUnreachable"

        await poll(is_said, 40)
        # Pauses of 0.25 s, doubled up to 5 s: more than ten seconds.
        await poll(lambda: door.knocks >= 7, 60)
        assert await is_said()
        assert (await told(listener))["status"] == 503
        assert await listener.metric("listener_connected") == 0
        assert 7 <= door.knocks < 20
        door.open()
        await stream.messages(2, 40)
        await poll(listener.forwards, 40)
        assert await listener.metric("listener_connected") == 1
