"""A listener's connections while its manifests change."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from pathlib import Path

import pytest
from prometheus_client import generate_latest
from psycopg.conninfo import conninfo_to_dict

from tablewatcher.embedded import free_port
from tablewatcher.listener import service as services
from tablewatcher.listener.options import Options
from tablewatcher.listener.service import Service
from tablewatcher.postgres.database import open_session

from ..conftest import Database, poll


@pytest.fixture(autouse=True)
def looks_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(services, "RELOAD_SECONDS", 0.1)


async def connections(database: Database) -> int:
    found = await database.execute(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
        " AND application_name LIKE 'tablewatcher listener%'"
    )
    return int(found[0][0])


def write_manifest(path: Path, secret: str, name: str = "w") -> None:
    spec = {
        "database": {"secretRef": {"name": secret}},
        "table": {"name": "t"},
        "actions": ["insert"],
        "sink": {"http": {"url": "http://127.0.0.1:9/"}},
    }
    metadata = {"name": name, "namespace": "shop"}
    kind = {"apiVersion": "tablewatcher.io/v1alpha1", "kind": "TableWatcher"}
    path.write_text(json.dumps({**kind, "metadata": metadata, "spec": spec}))


async def test_connections_that_no_manifest_names_any_more_are_closed(tmp_path: Path, database: Database) -> None:
    """Else each change of a Secret's name would cost the database three connections until the listener ends."""
    manifest = tmp_path / "w.json"
    for secret in ("one", "second"):
        (tmp_path / secret).mkdir()
        for name, value in conninfo_to_dict(database.dsn).items():
            (tmp_path / secret / name).write_text(str(value))
    write_manifest(manifest, "one")
    service = asyncio.create_task(
        Service(Options(files=(manifest,), secrets_dir=tmp_path, http_port=free_port())).run()
    )
    try:

        async def are_three() -> bool:
            return await connections(database) == 3

        await poll(are_three, 20)
        before = await database.execute("SELECT clock_timestamp()")
        write_manifest(manifest, "second")

        async def are_new() -> bool:
            found = await database.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
                " AND application_name LIKE 'tablewatcher listener%%' AND backend_start > %s",
                before[0][0],
            )
            return found[0][0] == 3

        await poll(are_new, 20)
        await poll(are_three, 10)
    finally:
        service.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await service


async def test_metrics_of_a_watcher_go_with_its_manifest(tmp_path: Path, database: Database) -> None:
    """Else `listener_connected == 0` would alert until the listener ends, about what nobody wants any more."""
    for name in ("goes", "stays"):
        write_manifest(tmp_path / f"{name}.json", "unused", name)
    service = Service(Options(files=(tmp_path,), dsn=database.dsn, http_port=free_port()))
    running = asyncio.create_task(service.run())

    async def are_told(*names: str) -> bool:
        text = generate_latest(service._metrics.registry).decode()
        return set(re.findall(r'watcher="(\w+)"', text)) == set(names)

    try:
        await poll(lambda: are_told("goes", "stays"), 20)
        (tmp_path / "goes.json").unlink()
        await poll(lambda: are_told("stays"), 20)
    finally:
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running


async def test_a_subscription_that_was_cut_short_is_made_by_the_next_one(database: Database) -> None:
    """The connections outlive a watcher that is stopped while it begins to listen."""
    session = await open_session(database.dsn)
    try:
        async with session.wakeup.lock:
            cut = asyncio.create_task(session.wakeup.subscribe("ch"))
            await asyncio.sleep(0)
            cut.cancel()
            await asyncio.gather(cut, return_exceptions=True)
        woken = await session.wakeup.subscribe("ch")
        await database.execute("NOTIFY ch")
        async with asyncio.timeout(30):
            await woken.wait()
    finally:
        await session.close()


async def test_nobody_listens_for_watchers_that_are_gone(database: Database) -> None:
    session = await open_session(database.dsn)

    async def heard() -> set[str]:
        # Its lock, as for every statement there: else it may take the answer for a notification, and we wait for ever.
        async with session.wakeup.lock:
            found = await session.wakeup._connection.execute("SELECT pg_listening_channels() AS name")
        return {row["name"] for row in await found.fetchall()}

    try:
        stays = await session.wakeup.subscribe("stays")
        for nth in range(3):
            await session.wakeup.subscribe(f"goes_{nth}")
        assert await session.wakeup.subscribe("stays") is stays
        assert await heard() == {"stays"}
        await session.wakeup.subscribe("goes_0")
        comes_back = await session.wakeup.subscribe("goes_0")
        assert await heard() == {"stays", "goes_0"}
        await database.execute("NOTIFY goes_0")
        async with asyncio.timeout(30):
            await comes_back.wait()
    finally:
        await session.close()
