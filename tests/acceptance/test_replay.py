"""`tablewatcher replay`: what was delivered and is still in the ring is sent again, and says that it is a replay."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from ..conftest import Database, HttpReceiver, Stream, poll
from .arrivals import Endpoint
from .checker import check
from .commands import tablewatcher
from .conftest import MakeListener
from .listeners import apply, http_sink, nats_sink, write_manifest
from .test_parking import put
from .writers import TABLES, Writers

pytestmark = pytest.mark.timeout(120)


async def replay(manifest: Path, database: Database, *words: str) -> dict[str, Any]:
    answer = await tablewatcher("replay", "-f", manifest, "--dsn", database.dsn, "-o", "json", *words)
    assert answer.code == 0, answer.err + answer.out
    (found,) = json.loads(answer.out)
    return dict(found)


async def test_replay_into_jetstream(
    tmp_path: Path, database: Database, stream: Stream, make_listener: MakeListener
) -> None:
    """The same ids in the events, others for JetStream, which would drop them as repeats."""
    manifest = write_manifest(tmp_path / "nats.yaml", nats_sink(stream.url, stream.prefix))
    await database.execute(TABLES)
    await apply(manifest, database.dsn)
    listener = make_listener(manifest, database.dsn)
    listener.start()
    await put(database, "a", "b", "a", "c")
    first = await stream.messages(4)
    found = await replay(manifest, database, "--since", "1h")
    assert (found["state"], found["events"]) == ("done", 4)
    messages = await stream.messages(8)
    again = messages[4:]
    number = found["request"]
    assert [message.headers["Nats-Msg-Id"] for message in again] == [
        f"{message.headers['Nats-Msg-Id']}/r{number}" for message in first
    ]
    for one, other in zip(first, again, strict=True):
        assert json.loads(other.data) == json.loads(one.data) | {"replay": number}
    found = await replay(manifest, database, "--since", "1h", "--key", "a")
    assert found["events"] == 2
    assert [json.loads(message.data)["partitionkey"] for message in (await stream.messages(10))[8:]] == ["a", "a"]
    await put(database, "d")
    assert "replay" not in json.loads((await stream.messages(11))[10].data)


async def test_replay_under_writers(
    tmp_path: Path, database: Database, http_receiver: HttpReceiver, make_listener: MakeListener
) -> None:
    """Live delivery waits meanwhile: nothing of it comes between, nothing is lost; after a kill it begins anew."""
    endpoint = Endpoint(http_receiver)
    manifest = write_manifest(tmp_path / "http.yaml", http_sink(endpoint.url))
    await database.execute(TABLES)
    await apply(manifest, database.dsn)
    listener, writers = make_listener(manifest, database.dsn), Writers(database.dsn, seed=33)
    listener.start()

    def numbers() -> list[bool]:
        return [b'"replay":' in request.body for request in http_receiver.requests]

    async with writers.running():
        await writers.progress(800)
        await endpoint.accepts(200)
        before = {found.change for found in endpoint.accepted}
        asked = asyncio.create_task(replay(manifest, database, "--since", "1d"))
        await poll(lambda: sum(numbers()) > 20, 30, every=0.005)
        await listener.kill()
        listener.start()
        found = await asked
        await writers.progress(200)
    assert found["events"] >= len(before)
    await writers.resolve()
    accepted = await endpoint.accepted_all(writers.history.ok)
    assert check(writers.history, accepted) == []
    again = numbers()
    last = len(again) - again[::-1].index(True)
    # From the second start of the replay on, until its end, there is nothing else.
    assert all(again[last - found["events"] : last])


async def test_what_is_refused_now_does_not_keep_live_delivery_waiting(
    tmp_path: Path, database: Database, http_receiver: HttpReceiver, make_listener: MakeListener
) -> None:
    """An endpoint that took an event may refuse it the second time. Nothing else comes that could prove it guilty."""
    endpoint = Endpoint(http_receiver)
    manifest = write_manifest(tmp_path / "http.yaml", http_sink(endpoint.url), maxAttempts=3)
    await database.execute(TABLES)
    await apply(manifest, database.dsn)
    listener = make_listener(manifest, database.dsn)
    listener.start()
    await put(database, "a", "bad", "b")
    await endpoint.accepts(3 - len(endpoint.accepted))
    endpoint.refused = {"bad"}
    found = await replay(manifest, database, "--since", "1h")
    assert "1 of them are refused" in found["detail"]
    await put(database, "c")
    await poll(lambda: "c" in {each.key for each in endpoint.accepted}, 10)
    endpoint.refused = set()
    await poll(lambda: [each.key for each in endpoint.accepted].count("bad") == 2, 20)


async def test_more_than_there_is_is_an_error(tmp_path: Path, database: Database) -> None:
    manifest = write_manifest(tmp_path / "http.yaml", http_sink("http://127.0.0.1:1/"))
    await database.execute(TABLES)
    await apply(manifest, database.dsn)
    await put(database, "a")
    (cursors,) = await database.execute(
        "SELECT string_agg('tablewatcher.' || relname, ', ') FROM pg_class WHERE relname ~ '^cursor_.*_0$'"
    )
    await database.execute(f"TRUNCATE {cursors[0]}")
    answer = await tablewatcher("replay", "-f", manifest, "--dsn", database.dsn, "--since", "1d")
    assert answer.code == 10
    assert "the ring holds events since 20" in answer.err
    assert "retentionSeconds" in answer.err
    wrong = await tablewatcher("replay", "-f", manifest, "--dsn", database.dsn, "--since", "yesterday")
    assert wrong.code == 2
    assert "10m" in wrong.err
