"""Events held against logical decoding, which reads the WAL and knows nothing of triggers: which there are, what each
tells, and in which order those of a row come."""

from __future__ import annotations

import asyncio
import json
import os
import random
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tablewatcher.postgres.quoting import identifier

from ..conftest import POSTGRES_SETTINGS, Database, Stream, poll
from ..versions import newest_postgres
from .conftest import MakeListener
from .decoding.pgoutput import Decoded, decoded
from .decoding.tables import TYPES, Sample, tables
from .decoding.telling import Told, Values, Watcher, by_key, watchers
from .decoding.writing import write
from .listeners import Listener, apply, nats_sink

# Other tables, watchers and statements, or more of them.
SEED = os.environ.get("TABLEWATCHER_DECODING", "1")
SECONDS = float(os.environ.get("TABLEWATCHER_DECODING_SECONDS", "8"))
WRITERS = 5
PATIENCE = 90.0


@pytest.fixture
def decoding(server_directory: Path) -> Iterator[Database]:
    """A server that can be asked what its WAL says."""
    settings = {"wal_level": "logical", "max_prepared_transactions": "20"}
    # Decoding ends where the WAL is flushed, and is asked right after the last commit.
    settings = {**POSTGRES_SETTINGS, **settings, "synchronous_commit": "on"}
    with newest_postgres(server_directory / "decoding", settings) as server:
        yield Database(server, "postgres")


@pytest.mark.timeout(SECONDS + 2 * PATIENCE)
async def test_events_tell_what_logical_decoding_tells(
    decoding: Database, stream: Stream, make_listener: MakeListener, tmp_path: Path
) -> None:
    chance = random.Random(SEED)
    made = tables(chance)
    await decoding.execute(TYPES + ";".join(table.ddl for table in made))
    for name in [name for table in made for name in (table.name, *table.parts)]:
        await decoding.execute(f"ALTER TABLE {identifier(name)} REPLICA IDENTITY FULL")
    named = ", ".join(identifier(table.name) for table in made)
    await decoding.execute(f"CREATE PUBLICATION witness FOR TABLE {named} WITH (publish_via_partition_root)")
    found = watchers(made, chance, nats_sink(stream.url, stream.prefix))
    manifests = _manifests(found, tmp_path / "manifests")
    await apply(manifests, decoding.dsn)
    await decoding.execute("SELECT pg_create_logical_replication_slot('witness', 'pgoutput')")

    listener = make_listener(manifests, decoding.dsn)
    await _written(decoding, made, listener)
    changes = await _decoded(decoding)
    values = await _values(decoding, made, changes)
    expected = {each.name: [told for change in changes if (told := each.told(change, values))] for each in found}
    events = await _arrived(stream, sum(map(len, expected.values())))
    for watcher in found:
        _held(watcher, expected[watcher.name], events[watcher.name])


def _manifests(found: Sequence[Watcher], place: Path) -> Path:
    place.mkdir()
    for each in found:
        manifest = {
            "apiVersion": "tablewatcher.io/v1alpha1",
            "kind": "TableWatcher",
            "metadata": {"name": each.name, "namespace": "faults"},
            "spec": dict(each.spec),
        }
        (place / f"{each.name}.yaml").write_text(json.dumps(manifest))
    return place


async def _written(database: Database, made: Sequence[Sample], listener: Listener) -> None:
    """By several sessions at once, while the listener is killed and started again."""
    listener.start()
    until = time.monotonic() + SECONDS
    async with asyncio.TaskGroup() as group:
        writing = [
            group.create_task(asyncio.to_thread(write, database.dsn, made, f"{SEED}-{nth}", until))
            for nth in range(WRITERS)
        ]
        await asyncio.sleep(SECONDS / 2)
        await listener.kill()
        listener.start()
    ends = sum((each.result() for each in writing), Counter())
    assert min(ends[end] for end in ("commit", "rollback", "two phases")) > 0, ends


async def _decoded(database: Database) -> list[Decoded]:
    rows = await database.execute(
        "SELECT data FROM pg_logical_slot_get_binary_changes('witness', NULL, NULL, 'proto_version', '1',"
        " 'publication_names', 'witness')"
    )
    await database.execute("SELECT pg_drop_replication_slot('witness')")
    return list(decoded(bytes(data) for (data,) in rows))


async def _values(database: Database, made: Sequence[Sample], changes: Sequence[Decoded]) -> Values:
    """The JSON of every text that was decoded, as the database writes it."""
    types = {table.name: table.types for table in made}
    texts = defaultdict(set)
    for change in changes:
        for row in (change.old, change.new):
            for name, text in (row or {}).items():
                if text is not None:
                    texts[types[change.table][name]].add(text)
    values = {}
    async with await database.connect() as connection:
        await connection.execute("SET TimeZone = 'UTC'")
        for each, of_type in texts.items():
            query = f"SELECT text, to_json(text::{each})::text FROM unnest(%s::text[]) AS text"
            async for text, value in await connection.execute(query.encode(), [list(of_type)]):
                values[each, text] = _loads(value)
    return values


async def _arrived(stream: Stream, count: int) -> dict[str, list[dict[str, Any]]]:
    """The events of each watcher by its name, in the order of the stream, each once."""

    async def all_there() -> bool:
        return await stream.count() >= count

    await poll(all_there, PATIENCE)
    found, ids = defaultdict(list), set()
    for message in await stream.messages():
        event = _loads(message.data)
        if event["id"] not in ids:
            ids.add(event["id"])
            found[event["source"].rpartition("/")[2]].append(event)
    return found


def _loads(text: str | bytes) -> Any:
    """Numbers as they are written."""
    return json.loads(text, parse_float=str, parse_int=str)


def _held(watcher: Watcher, expected: Sequence[Told], events: Sequence[dict[str, Any]]) -> None:
    told = [watcher.arrived(event) for event in events]
    missing, extra = Counter(expected) - Counter(told), Counter(told) - Counter(expected)
    assert not missing, (watcher, list(missing)[:3], list(extra)[:3])
    assert not extra, (watcher, list(extra)[:3])
    if not watcher.table.key:
        return  # order holds between equal rows alone
    came = by_key(told)
    for key, of_row in by_key(expected).items():
        assert came[key] == of_row, (watcher, key)
    newest: dict[str, str] = {}
    for event in events:
        assert event["sequence"] > newest.get(event["partitionkey"], ""), event
        newest[event["partitionkey"]] = event["sequence"]
