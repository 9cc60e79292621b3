"""What `/readyz` says of manifests that cannot be used: who asks must not take a listener of nothing for a good one."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tablewatcher.embedded import free_port
from tablewatcher.listener import service as services
from tablewatcher.listener.options import Options
from tablewatcher.listener.service import Service
from tablewatcher.naming import LOCAL_INSTANCE, watcher_names
from tablewatcher.postgres.install.apply import apply
from tablewatcher.spec.parse import read_manifests

from ..conftest import Database, HttpReceiver, poll

Answer = tuple[int, dict[str, Any]]
Asking = Callable[[], Awaitable[Answer]]


@contextlib.asynccontextmanager
async def listening(directory: Path, dsn: str) -> AsyncIterator[Asking]:
    """A listener of the manifests in `directory`; gives what asks its `/readyz`."""
    port = free_port()
    options = Options(files=(directory,), dsn=dsn, http_port=port)

    async def ask() -> Answer:
        async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{port}/readyz") as answer:
            return answer.status, json.loads(await answer.text())

    running = asyncio.create_task(Service(options).run())
    try:
        yield ask
    finally:
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running


def manifest(name: str, url: str) -> str:
    spec = {
        "database": {"secretRef": {"name": "unused"}},
        "table": {"name": "t"},
        "actions": ["insert"],
        "sink": {"http": {"url": url}},
    }
    kind = {"apiVersion": "tablewatcher.io/v1alpha1", "kind": "TableWatcher"}
    return json.dumps({**kind, "metadata": {"name": name, "namespace": "shop"}, "spec": spec})


@pytest.fixture(autouse=True)
def looks_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(services, "RELOAD_SECONDS", 0.1)


async def test_it_is_not_ready_without_a_manifest_that_can_be_used(
    tmp_path: Path, database: Database, http_receiver: HttpReceiver
) -> None:
    await database.execute("CREATE TABLE t (id int PRIMARY KEY)")
    good, bad = manifest("good", http_receiver.url), tmp_path / "bad.yaml"
    (spec,), _ = read_manifests(good, "good.json", require_secret=False)
    await apply(database.dsn, spec, watcher_names(LOCAL_INSTANCE, "shop", "good"))
    async with listening(tmp_path, database.dsn) as ask:

        async def says(*words: str) -> bool:
            """Not ready, and the manifests are why, in these words."""
            with contextlib.suppress(aiohttp.ClientConnectionError):  # it begins to listen
                status, body = await ask()
                assert (status, body["ready"]) == (503, False)
                return all(word in " ".join(body["unusableManifests"]) for word in words)
            return False

        async def is_ready() -> bool:
            status, body = await ask()
            return (status, body["ready"], body["unusableManifests"]) == (200, True, [])

        await poll(lambda: says("no TableWatcher manifest in", str(tmp_path)), 20)
        bad.write_text("spec: [")
        await poll(lambda: says(str(bad), "1 error in the manifest"), 20)
        (tmp_path / "good.json").write_text(good)

        async def only_the_good_one_forwards() -> bool:
            status, body = await ask()
            assert (status, body["ready"]) == (503, False)
            assert str(bad) in body["unusableManifests"][0]
            return [(name, found["ready"]) for name, found in body["watchers"].items()] == [("shop/good", True)]

        await poll(only_the_good_one_forwards, 20)
        bad.unlink()
        await poll(is_ready, 20)
