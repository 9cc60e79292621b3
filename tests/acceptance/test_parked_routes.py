"""Events that were put aside because of the subject that their watcher had: they go where the one it has now leads."""

from __future__ import annotations

import json
from pathlib import Path

from tablewatcher.naming import LONGEST_SUBJECT

from ..conftest import Database, Stream, poll
from .conftest import Forwarding
from .listeners import apply, nats_sink, write_manifest
from .parking import command, is_aside
from .writers import put


async def test_they_go_where_a_new_subject_leads(
    tmp_path: Path, database: Database, stream: Stream, forwarding: Forwarding
) -> None:
    """A value is too long for any subject, and somebody has the subject name another column for that."""
    manifest = write_manifest(tmp_path / "nats.yaml", nats_sink(stream.url, stream.prefix), maxAttempts=2)

    def route_by(column: str) -> None:
        found = json.loads(manifest.read_text())
        found["spec"] |= {"columns": ["version", "note"]}
        found["spec"]["sink"]["nats"]["subject"] = f"{stream.prefix}.{{column:{column}}}"
        manifest.write_text(json.dumps(found))

    route_by("note")
    await forwarding(manifest, database)
    await database.execute(f"INSERT INTO account VALUES ('long', 1, repeat('n', {LONGEST_SUBJECT}))")

    async def all_aside() -> bool:
        await put(database, "good")
        return await is_aside(database, "long", "long", "long")

    await database.execute("UPDATE account SET version = 2, note = 'short' WHERE key = 'long'")
    await database.execute("UPDATE account SET version = 3, note = 'of another' WHERE key = 'long'")
    await poll(all_aside, 40)
    route_by("version")
    await apply(manifest, database.dsn)

    async def is_taken() -> bool:
        # More than one: until the listener has read the new manifest it goes by the subject of the old one.
        await database.execute("INSERT INTO account VALUES (gen_random_uuid()::text, 77, 'x')")
        return f"{stream.prefix}.77" in [message.subject for message in await stream.messages()]

    await poll(is_taken, 40)
    answer = await command(manifest, database, "parked", "replay")
    assert (answer.code, json.loads(answer.out)[0]["events"]) == (0, 3), answer.out
    of_long = [message.subject for message in await stream.messages() if b'"partitionkey":"long"' in message.data]
    assert of_long == [f"{stream.prefix}.{version}" for version in (1, 2, 3)]
