"""A listener that meets what a later version has written: it delivers nothing, and says why all the while."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from typing import Any

from ..conftest import Database, HttpReceiver, poll
from .commands import tablewatcher
from .conftest import Forwarding
from .listeners import http_sink, write_manifest

ROWS = 500


async def test_what_ends_delivery_as_often_as_it_begins_is_what_status_and_doctor_say(
    tmp_path: Path, database: Database, http_receiver: HttpReceiver, forwarding: Forwarding
) -> None:
    manifest = write_manifest(tmp_path / "http.yaml", http_sink(http_receiver.url, max_events=500))
    listener = await forwarding(manifest, database)
    await listener.kill()
    await database.execute(f"INSERT INTO account (key, version) SELECT n, 1 FROM generate_series(1, {ROWS}) AS n")
    ((ring,),) = await database.execute("SELECT format('tablewatcher.ring_%s_0', hash) FROM tablewatcher.watcher")
    await database.execute(f"UPDATE {ring} SET data = '2' || data WHERE taken_at = 'infinity'")
    listener.start()

    async def status() -> dict[str, Any]:
        answer = await tablewatcher("status", "-f", manifest, "--dsn", database.dsn, "-o", "json")
        (found,) = json.loads(answer.out)
        return dict(found)

    async def refuses() -> bool:
        return (await status())["says"] == "ManualActionRequired"

    await poll(refuses, 40)
    for _ in range(6):
        found = await status()
        assert (found["state"], found["says"], found["waiting"]) == ("failing", "ManualActionRequired", ROWS)
        assert found["lastError"].startswith("a later version of TableWatcher has written to this ring")
        await asyncio.sleep(0.5)
    answer = await tablewatcher("doctor", "-f", manifest, "--dsn", database.dsn)
    assert re.search(r"fail +listener .* ManualActionRequired: a later version", answer.out), answer.out
    assert http_receiver.requests == []
    # As that version would, were it to deliver them.
    await database.execute(f"UPDATE {ring} SET data = substr(data, 2) WHERE taken_at = 'infinity'")
    await poll(lambda: sum(len(json.loads(request.body)) for request in http_receiver.requests) == ROWS, 60)

    async def forwards() -> bool:
        return (await status())["says"] == "Forwarding"

    await poll(forwards, 40)
