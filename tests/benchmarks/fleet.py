"""What a listener with many watchers takes: memory, connections, processor time while nothing happens."""

from __future__ import annotations

import asyncio
import json
import subprocess
import time
import urllib.error
import urllib.request

import psycopg
from anchors import floor_megabytes
from stage import Stage, memory_megabytes, new_stream, processor_seconds

from tablewatcher.embedded import free_port

IDLE_SECONDS = 10.0


def fleet(stage: Stage, watchers: int) -> dict[str, float]:
    """One listener, `watchers` tables in one database, nothing written."""
    asyncio.run(new_stream(stage))
    names = [f"fleet{nth}" for nth in range(watchers)]
    paths = [stage.manifest(name) for name in names]
    for name in names:
        stage.sql(f"CREATE TABLE {name} (id bigint PRIMARY KEY, status text, total numeric)")
    subprocess.run(stage.command("apply"), check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    found = _watched(stage)
    subprocess.run(stage.command("destroy"), check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    for path in paths:
        path.unlink()
    return found


def _watched(stage: Stage) -> dict[str, float]:
    port = free_port()
    with (stage.directory / "fleet.log").open("ab") as log:
        process = subprocess.Popen(stage.command("listen", "--http-port", str(port)), stderr=log)
    try:
        started = time.perf_counter()
        while not _ready(port):
            assert time.perf_counter() - started < 120, "not ready within two minutes"
            time.sleep(0.1)
        ready = time.perf_counter() - started
        time.sleep(IDLE_SECONDS)
        used = processor_seconds(process.pid)
        time.sleep(IDLE_SECONDS)
        used = processor_seconds(process.pid) - used
        megabytes, floor = memory_megabytes(process.pid), floor_megabytes()
        return {
            "ready_after_s": ready,
            "listener_mb": megabytes,
            "floor_mb": floor,
            "listener_mb_of_floor": megabytes / floor,
            "database_connections": _connections(stage),
            "idle_processor_share": used / IDLE_SECONDS,
        }
    finally:
        process.terminate()
        process.wait(60)


def _ready(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz") as answer:
            return bool(json.load(answer)["ready"])
    except (urllib.error.URLError, OSError):
        return False


def _connections(stage: Stage) -> int:
    with psycopg.connect(stage.dsn) as connection:
        row = connection.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'tablewatcher listener%'"
        ).fetchone()
    assert row is not None
    return int(row[0])
