"""Events refused for good: put aside with what follows them, sent again or dropped, never lost, never overtaken."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from ..conftest import Database, HttpReceiver, poll
from .arrivals import Endpoint
from .checker import check
from .conftest import MakeListener
from .listeners import apply, http_sink, write_manifest
from .parking import changes, command, has_parked, is_aside, parked, watched
from .writers import TABLES, Writers, put

POISON = {"w0-1", "w3-5", "hot-2"}


async def test_poison_keys_under_writers(
    tmp_path: Path, database: Database, http_receiver: HttpReceiver, make_listener: MakeListener
) -> None:
    """Their events and what follows is put aside, all other keys flow; mended, they arrive in order, among new ones."""
    endpoint = Endpoint(http_receiver)
    endpoint.refused = POISON
    manifest = await watched(database, endpoint, tmp_path / "http.yaml")
    listener, writers = make_listener(manifest, database.dsn), Writers(database.dsn, seed=31)
    listener.start()
    async with writers.running():
        await poll(lambda: has_parked(listener), 40)
        await writers.progress(600)
        await endpoint.accepts(100)
        found = await parked(manifest, database)
        assert {event["key"] for event in found["events"]} <= POISON
        heads = [event for event in found["events"] if event["attempts"]]
        assert all(event["attempts"] >= 3 and "400" in event["message"] for event in heads)
        endpoint.refused = set()
        answer = await command(manifest, database, "parked", "replay")
        assert answer.code == 0, answer.out
        await writers.progress(200)
    await writers.resolve()
    accepted = await endpoint.accepted_all(writers.history.ok)
    assert check(writers.history, accepted) == []
    await poll(listener.forwards, 40)
    assert (await parked(manifest, database))["count"] == 0


async def test_listener_is_killed_around_parking(
    tmp_path: Path, database: Database, http_receiver: HttpReceiver, make_listener: MakeListener
) -> None:
    endpoint = Endpoint(http_receiver)
    endpoint.refused = POISON
    manifest = await watched(database, endpoint, tmp_path / "http.yaml", maxAttempts=2)
    # Slow ones: what they write while no listener runs has to be sent, one event a request, before the test can end.
    listener, writers = make_listener(manifest, database.dsn), Writers(database.dsn, seed=32, pause=0.5)
    listener.start()

    async def killed() -> None:
        await listener.kill()
        listener.start()

    async with writers.running():
        for _ in range(3):
            held = await database.execute("SELECT count(*) FROM tablewatcher.parked")
            await poll(lambda: has_parked(listener), 40)
            await writers.progress(150)

            async def more(before: int = held[0][0]) -> bool:
                return (await database.execute("SELECT count(*) FROM tablewatcher.parked"))[0][0] > before

            await poll(more, 40, every=0.005)
            await killed()
        endpoint.refused = set()
        replay = asyncio.create_task(command(manifest, database, "parked", "replay"))
        await poll(lambda: POISON & {found.key for found in endpoint.accepted}, 40, every=0.002)
        await killed()
        assert (await replay).code == 0
    await writers.resolve()
    await poll(lambda: is_aside(database), 40)
    accepted = await endpoint.accepted_all(writers.history.ok)
    assert check(writers.history, accepted) == []


async def test_an_endpoint_that_refuses_everything_parks_nothing(
    tmp_path: Path, database: Database, http_receiver: HttpReceiver, make_listener: MakeListener
) -> None:
    endpoint = Endpoint(http_receiver)
    endpoint.refused = {f"k{nth}" for nth in range(40)}
    manifest = await watched(database, endpoint, tmp_path / "http.yaml", maxAttempts=1)
    listener = make_listener(manifest, database.dsn)
    listener.start()
    await put(database, *sorted(endpoint.refused))

    async def says_why() -> bool:
        ready, reason, message = await listener.state()
        return not ready and reason == "SinkUnreachable" and "400" in message

    await poll(says_why, 40)
    seen = len(endpoint.attempts)
    await poll(lambda: len(endpoint.attempts) > seen + 3, 40)
    assert (await parked(manifest, database))["count"] == 0
    endpoint.refused = set()
    await poll(lambda: len(endpoint.accepted) == 40, 40)
    await poll(listener.forwards, 40)


async def test_halt_stops_until_the_event_is_accepted(
    tmp_path: Path, database: Database, http_receiver: HttpReceiver, make_listener: MakeListener
) -> None:
    endpoint = Endpoint(http_receiver)
    endpoint.refused = {"bad"}
    manifest = await watched(database, endpoint, tmp_path / "http.yaml", onExhausted="Halt")
    listener = make_listener(manifest, database.dsn)
    listener.start()
    await put(database, "bad")

    async def halted() -> bool:
        await put(database, "good")
        ready, reason, message = await listener.state()
        return not ready and reason == "ManualActionRequired" and "onExhausted: Park" in message and "bad" in message

    async def tried_twice() -> None:
        attempts = len(endpoint.attempts)
        await poll(lambda: len(endpoint.attempts) >= attempts + 2, 40)

    await poll(halted, 40, every=0.1)
    # What was under way when everything stopped has come by then.
    await tried_twice()
    accepted = len(endpoint.accepted)
    await put(database, "good", "other")
    await tried_twice()
    assert len(endpoint.accepted) == accepted, "something passed the event at which everything stops"
    endpoint.refused = set()
    await poll(lambda: ("bad", 1) in changes(endpoint) and ("other", 1) in changes(endpoint), 40)
    await poll(listener.forwards, 40)


async def test_skip_drops_and_lets_followers_go(
    tmp_path: Path, database: Database, http_receiver: HttpReceiver, make_listener: MakeListener
) -> None:
    """Asked while no listener runs, it is done when one comes."""
    endpoint = Endpoint(http_receiver)
    endpoint.refused = {"bad", "worse"}
    manifest = await watched(database, endpoint, tmp_path / "http.yaml")
    listener = make_listener(manifest, database.dsn)
    listener.start()
    await put(database, "bad", "bad", "worse")

    async def both_aside() -> bool:
        await put(database, "good")
        return await is_aside(database, "bad", "bad", "worse")

    await poll(both_aside, 40)
    await put(database, "bad")
    await poll(lambda: is_aside(database, "bad", "bad", "bad", "worse"), 40)
    assert (await parked(manifest, database))["count"] == 4
    assert await listener.terminate() == 0
    first, *_ = (await parked(manifest, database, "--key", "bad"))["events"]
    assert (first["action"], first["attempts"] >= 3) == ("insert", True)
    of_id = await parked(manifest, database, "--id", first["id"])
    assert (of_id["count"], of_id["events"]) == (1, [first])
    unknown = await command(manifest, database, "parked", "skip", "--id", "0" * 32)
    assert unknown.code == 10
    answer = await command(manifest, database, "parked", "skip", "--id", first["id"])
    assert answer.code == 0, answer.out
    assert json.loads(answer.out)[0]["state"] == "asked"
    endpoint.refused = {"worse"}
    listener.start()
    await poll(lambda: ("bad", 3) in changes(endpoint), 40)
    assert [change for change in changes(endpoint) if change[0] == "bad"] == [("bad", 2), ("bad", 3)]
    await poll(lambda: is_aside(database, "worse"), 40)
    again = await command(manifest, database, "parked", "replay", "--key", "worse")
    assert again.code == 10
    assert json.loads(again.out)[0]["reason"] == "EventsParked"
    answer = await command(manifest, database, "parked", "skip")
    assert answer.code == 0, answer.out
    await put(database, "bad")
    await poll(lambda: ("bad", 4) in changes(endpoint), 40)
    endpoint.refused = set()
    await put(database, "worse")
    await poll(lambda: ("worse", 2) in changes(endpoint), 40)


@pytest.mark.parametrize("status", [500, 403])
async def test_a_fault_of_the_endpoint_for_one_event_alone(
    tmp_path: Path, database: Database, http_receiver: HttpReceiver, make_listener: MakeListener, status: int
) -> None:
    """These are the endpoint's fault, unless others are accepted in between, each time."""
    endpoint = Endpoint(http_receiver)
    accept = http_receiver.respond

    def respond(request: Any) -> Any:
        if b'"partitionkey":"bad"' in request.body:
            return web.Response(status=status)
        return accept(request)

    http_receiver.respond = respond
    manifest = await watched(database, endpoint, tmp_path / "http.yaml")
    listener = make_listener(manifest, database.dsn)
    listener.start()
    await put(database, "bad")

    async def aside() -> bool:
        await put(database, "good")
        return await is_aside(database, "bad")

    await poll(aside, 40)
    await poll(lambda: has_parked(listener), 40)


async def test_what_came_back_during_a_shutdown_is_not_sent_after_its_successors(
    tmp_path: Path, database: Database, http_receiver: HttpReceiver, make_listener: MakeListener
) -> None:
    """SIGTERM finds the first event of a key that came back under way; the others go out while the listener drains."""
    endpoint = Endpoint(http_receiver)
    endpoint.refused = {"bad"}
    accept = http_receiver.respond
    manifest = await watched(database, endpoint, tmp_path / "http.yaml")
    listener = make_listener(manifest, database.dsn)
    listener.start()
    await put(database, "bad", "bad")

    async def aside() -> bool:
        await put(database, "good")
        return await is_aside(database, "bad", "bad")

    await poll(aside, 40)
    endpoint.refused = set()
    ending: list[asyncio.Task[int]] = []

    async def respond(request: Any) -> Any:
        if b'"partitionkey":"bad"' in request.body and not ending:
            ending.append(asyncio.create_task(listener.terminate()))
            await asyncio.sleep(0.5)
        return accept(request)

    http_receiver.respond = respond
    replay = asyncio.create_task(command(manifest, database, "parked", "replay"))
    await poll(lambda: bool(ending), 40)
    assert await ending[0] == 0
    assert [change for change in changes(endpoint) if change[0] == "bad"] == [("bad", 1), ("bad", 2)]
    assert await is_aside(database), "what is delivered is still aside: it would be sent after what follows it"
    listener.start()
    assert (await replay).code == 0
    await put(database, "bad")
    await poll(lambda: ("bad", 3) in changes(endpoint), 40)
    assert [change for change in changes(endpoint) if change[0] == "bad"] == [("bad", 1), ("bad", 2), ("bad", 3)]


async def test_the_lease_is_released_even_where_what_came_back_cannot_be_written_down(
    tmp_path: Path, database: Database, http_receiver: HttpReceiver, make_listener: MakeListener
) -> None:
    """Or a successor elsewhere would wait until it runs out."""
    endpoint = Endpoint(http_receiver)
    endpoint.refused = {"bad"}
    manifest = await watched(database, endpoint, tmp_path / "http.yaml", maxAttempts=2)
    listener = make_listener(manifest, database.dsn)
    listener.start()
    await put(database, "bad", "bad")

    async def aside() -> bool:
        await put(database, "good")
        return await is_aside(database, "bad", "bad")

    await poll(aside, 40)
    accept, came, is_locked = http_receiver.respond, asyncio.Event(), asyncio.Event()
    endpoint.refused = set()

    async def respond(request: Any) -> Any:
        if b'"partitionkey":"bad"' in request.body and not came.is_set():
            came.set()
            await is_locked.wait()
            await asyncio.sleep(0.5)
        return accept(request)

    http_receiver.respond = respond
    async with await database.connect() as other:
        replay = asyncio.create_task(command(manifest, database, "parked", "replay"))
        await asyncio.wait_for(came.wait(), 40)
        await other.execute("BEGIN; LOCK TABLE tablewatcher.parked IN EXCLUSIVE MODE")
        is_locked.set()
        assert await listener.terminate() == 0
        (cursor,) = await database.execute(
            "SELECT 'tablewatcher.' || relname FROM pg_class WHERE relname ~ '^cursor_.*_0$' AND relkind = 'r'"
        )
        newest = f"SELECT expires_at = '-infinity' FROM {cursor[0]} ORDER BY epoch DESC, n DESC LIMIT 1"
        assert await database.execute(newest) == [(True,)]
    listener.start()
    assert (await replay).code == 0
    await put(database, "bad")
    await poll(lambda: ("bad", 3) in changes(endpoint), 40)
    bad = [version for key, version in changes(endpoint) if key == "bad"]
    assert bad[-2:] == [2, 3]


async def test_a_bad_event_before_a_truncation_is_judged_by_it(
    tmp_path: Path, database: Database, http_receiver: HttpReceiver, make_listener: MakeListener
) -> None:
    """Nothing else is sent; and a truncation that is refused itself is judged by what comes after it."""
    refused, accepted = {b'"partitionkey":"bad"'}, list[tuple[str, str]]()

    def respond(request: Any) -> web.Response:
        if any(mark in request.body for mark in refused):
            return web.Response(status=422)
        found = json.loads(request.body)
        accepted.append((found["data"]["action"], found["partitionkey"]))
        return web.Response(status=204)

    http_receiver.respond = respond
    manifest = write_manifest(tmp_path / "http.yaml", http_sink(http_receiver.url), maxAttempts=2)
    found = json.loads(manifest.read_text())
    found["spec"]["actions"].append("truncate")
    manifest.write_text(json.dumps(found))
    await database.execute(TABLES)
    await apply(manifest, database.dsn)
    listener = make_listener(manifest, database.dsn)
    listener.start()
    await put(database, "bad")
    await database.execute("TRUNCATE account")
    await poll(lambda: [action for action, _ in accepted] == ["truncate"], 40)
    aside = "SELECT op, key, message ~ '422' FROM tablewatcher.parked ORDER BY n"

    async def holds(*rows: tuple[str, str, bool]) -> bool:
        return await database.execute(aside) == list(rows)

    await poll(lambda: holds(("i", "bad", True)), 40)
    await poll(lambda: has_parked(listener), 40)
    refused.add(b'"action":"truncate"')
    await database.execute("TRUNCATE account")
    await put(database, "later")
    await poll(lambda: accepted[1:] == [("insert", "later")], 40)
    await poll(lambda: holds(("i", "bad", True), ("t", accepted[0][1], True)), 40)
