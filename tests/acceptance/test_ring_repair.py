"""Somebody drops a part of the ring under a running listener: `apply` makes it again, and delivery goes on."""

from __future__ import annotations

import json
from pathlib import Path

import psycopg
import pytest

from tablewatcher.naming import watcher_names

from ..conftest import Database, HttpReceiver, poll
from .arrivals import Endpoint
from .conftest import Forwarding
from .listeners import apply, http_sink, write_manifest

NAMES = watcher_names("local", "faults", "dropped")


@pytest.mark.parametrize("part", ["rings", "cursors", "ids", "slot", "wake", "stop"])
async def test_a_part_of_the_ring_is_dropped(
    part: str, tmp_path: Path, database: Database, http_receiver: HttpReceiver, forwarding: Forwarding
) -> None:
    endpoint = Endpoint(http_receiver)
    manifest = write_manifest(tmp_path / "dropped.yaml", http_sink(endpoint.url))
    listener = await forwarding(manifest, database)
    await database.execute("INSERT INTO account VALUES ('before', 1)")
    await poll(lambda: len(endpoint.accepted) == 1, 40)
    gone = getattr(NAMES, part)
    kind = "SEQUENCE" if isinstance(gone, str) else "TABLE"
    for name in (gone,) if isinstance(gone, str) else gone:
        await database.execute(f"DROP {kind} tablewatcher.{name}")
    if part != "cursors":
        with pytest.raises(psycopg.errors.UndefinedTable):
            await database.execute("INSERT INTO account VALUES ('meanwhile', 1)")
    await apply(manifest, database.dsn)
    await database.execute(
        "INSERT INTO account VALUES ('after', 1); UPDATE account SET version = 2 WHERE key = 'before'"
    )

    def arrived() -> bool:
        # Where the cursor is made again the whole ring is sent once more, and rows overtake one another.
        return {each.key: each.version for each in endpoint.accepted} == {"before": 2, "after": 1}

    await poll(arrived, 60)
    await poll(listener.forwards, 40)
    assert [gap["reason"] for gap in endpoint.gaps] == (["ringRepaired"] if part == "rings" else [])
    first = dict.fromkeys(json.loads(each.body)["sequence"] for each in endpoint.accepted if each.key == "before")
    assert list(first) == sorted(first)
    assert len(first) > 1
