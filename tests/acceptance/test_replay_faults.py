"""A replay whose listener is killed or taken over from, or whose events are refused: what was promised comes."""

from __future__ import annotations

import asyncio
import json
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from ..conftest import Database, HttpReceiver, ReceivedRequest, poll
from .arrivals import Endpoint
from .checker import check
from .conftest import Forwarding, MakeListener
from .listeners import http_sink, write_manifest
from .pairs import Pair
from .parking import command, is_aside
from .turning_ring import delivered, fill, has_seen, is_replaying
from .writers import Writers, put

REQUESTS = "SELECT id, state, done, total, message FROM tablewatcher.request ORDER BY id"


async def replayed(manifest: Path, database: Database, *words: str) -> dict[str, Any]:
    """What `tablewatcher replay` has come to, whatever that is."""
    answer = await command(manifest, database, "replay", *words)
    (found,) = json.loads(answer.out)
    return dict(found)


def again(receiver: HttpReceiver) -> list[dict[str, Any]]:
    """Events that came as part of a replay, in order."""
    return [json.loads(request.body) for request in receiver.requests if b'"replay":' in request.body]


def number_again(receiver: HttpReceiver) -> int:
    """How many have come so."""
    return sum(b'"replay":' in request.body for request in receiver.requests)


def slow_again(receiver: HttpReceiver) -> None:
    """Those take a moment each from now on: there is time to end a listener in their midst."""
    answer = receiver.respond

    async def respond(request: ReceivedRequest) -> Any:
        if b'"replay":' in request.body:
            await asyncio.sleep(0.03)
        return answer(request)

    receiver.respond = respond


def keys_again(receiver: HttpReceiver) -> Counter[str]:
    """How often each key has."""
    return Counter(event["partitionkey"] for event in again(receiver))


async def test_what_is_delivered_behind_an_event_that_waits_is_sent_again(
    tmp_path: Path, database: Database, http_receiver: HttpReceiver, forwarding: Forwarding
) -> None:
    """The cursor stands before that event for as long as it is refused; the others have come all the same."""
    endpoint = Endpoint(http_receiver)
    endpoint.refused = {"bad"}
    manifest = write_manifest(tmp_path / "http.yaml", http_sink(endpoint.url), maxAttempts=100)
    await forwarding(manifest, database)
    await database.execute("INSERT INTO account (key, version) VALUES ('a', 1), ('bad', 1), ('b', 1), ('c', 1)")
    await poll(lambda: {each.key for each in endpoint.accepted} == {"a", "b", "c"}, 40)
    found = await replayed(manifest, database, "--since", "1h")
    assert (found["state"], found["events"]) == ("done", 3), found
    assert keys_again(http_receiver) == {"a": 1, "b": 1, "c": 1}
    endpoint.refused = set()
    await poll(lambda: "bad" in {each.key for each in endpoint.accepted}, 40)
    assert "bad" not in keys_again(http_receiver)


async def test_what_is_tried_on_is_sent_by_a_successor(
    tmp_path: Path, database: Database, http_receiver: HttpReceiver, forwarding: Forwarding
) -> None:
    """The command ends while an event is refused. It was promised to be tried on, whoever is killed meanwhile."""
    endpoint = Endpoint(http_receiver)
    manifest = write_manifest(tmp_path / "http.yaml", http_sink(endpoint.url), maxAttempts=100)
    listener = await forwarding(manifest, database)
    await put(database, "a", "bad", "b")
    await poll(lambda: len(endpoint.accepted) == 3, 40)
    endpoint.refused = {"bad"}
    found = await replayed(manifest, database, "--since", "1h")
    assert (found["state"], found["events"]) == ("running", 3), found
    assert found["detail"].endswith("; 1 of them is not accepted yet and tried on")
    await listener.kill()
    endpoint.refused, sent = set(), len(endpoint.accepted)
    listener.start()
    await poll(lambda: endpoint.accepted[sent:] and _is_done(database), 40)
    # What the others have got once more is enough.
    assert {each.key for each in endpoint.accepted[sent:]} == {"bad"}
    assert (await database.execute(REQUESTS))[0][4].startswith("3 sent again")


async def _is_done(database: Database) -> bool:
    return {state for _, state, *_ in await database.execute(REQUESTS)} == {"done"}


async def test_what_is_put_aside_is_told(
    tmp_path: Path, database: Database, http_receiver: HttpReceiver, forwarding: Forwarding
) -> None:
    endpoint = Endpoint(http_receiver)
    manifest = write_manifest(tmp_path / "http.yaml", http_sink(endpoint.url), maxAttempts=2)
    await forwarding(manifest, database)
    await put(database, "a", "bad", "b", "c")
    await poll(lambda: len(endpoint.accepted) == 4, 40)
    endpoint.refused = {"bad"}
    asked = asyncio.create_task(replayed(manifest, database, "--since", "1h"))

    async def all_aside() -> bool:
        await put(database, "more")
        return await is_aside(database, "bad")

    await poll(all_aside, 40)
    found = await asked

    async def is_told() -> bool:
        ((_, state, done, _, message),) = await database.execute(REQUESTS)
        return state == "done" and f"{done} sent again; 1 of them was refused and is put aside" in message

    await poll(is_told, 40)
    assert found["state"] in ("running", "done")


async def test_a_kill_takes_no_rows_from_a_replay(
    tmp_path: Path, database: Database, http_receiver: HttpReceiver, forwarding: Forwarding
) -> None:
    """The ring would turn, and is kept from that for what is to be sent: by a successor too, from its first look on."""
    endpoint, manifest = Endpoint(http_receiver), tmp_path / "http.yaml"
    listener = await delivered(manifest, database, endpoint, forwarding)
    live = len(http_receiver.requests)
    asked = asyncio.create_task(replayed(manifest, database, "--since", "1h"))
    await poll(lambda: is_replaying(database), 40)
    await fill(database, listener)
    for _ in range(3):
        await listener.kill()
        listener.start()
        await poll(lambda: has_seen(database, listener), 40)
    await endpoint.rise()
    found = await asked
    # And what was delivered before the last of them began it again.
    assert found["state"] == "done", found
    assert found["events"] >= 1100
    sent = {event["id"] for batch in again(http_receiver) for event in batch}
    assert sent >= {event["id"] for request in http_receiver.requests[:live] for event in json.loads(request.body)}


@pytest.mark.parametrize("words", [(), ("--key", "hot-1")], ids=["all", "of a key"])
async def test_a_standby_takes_over_in_the_middle(
    tmp_path: Path, database: Database, http_receiver: HttpReceiver, make_listener: MakeListener, words: tuple[str, ...]
) -> None:
    """The one that slept goes on in the middle of what it had begun to send, and does no harm."""
    pair = await Pair.made(tmp_path / "pair.yaml", database, http_receiver, make_listener, 2)
    writers = Writers(database.dsn, seed=34, count=3)
    async with writers.running():
        await writers.progress(300)
        before = [each for each in pair.endpoint.accepted if not words or each.key == words[1]]
        # By then the cursor has passed these, for whoever takes over.
        await pair.endpoint.accepts(150)
        slow_again(http_receiver)
        asked = asyncio.create_task(replayed(pair.manifest, database, "--since", "1d", *words))
        await poll(lambda: number_again(http_receiver), 40, every=0.002)
        pair.active.send(signal.SIGSTOP)
        await poll(pair.standby.forwards, 60)
        seen = number_again(http_receiver)
        await poll(lambda: number_again(http_receiver) > seen + 5, 40)
        pair.active.send(signal.SIGCONT)
        await poll(pair.active.stands_by, 40)
        found = await asked
        await writers.progress(50)
    assert found["state"] == "done", found
    sent = {event["id"] for event in again(http_receiver) if event["replay"] == found["request"]}
    assert {each.event_id for each in before} <= sent
    assert found["events"] <= len(sent)
    await writers.resolve()
    assert check(writers.history, await pair.endpoint.accepted_all(writers.history.ok)) == []


async def test_two_replays_and_kills(
    tmp_path: Path, database: Database, http_receiver: HttpReceiver, forwarding: Forwarding
) -> None:
    """Each has all of its own, under its own number, in the order in which they were asked for."""
    endpoint = Endpoint(http_receiver)
    manifest = write_manifest(tmp_path / "http.yaml", http_sink(endpoint.url))
    listener, writers = await forwarding(manifest, database), Writers(database.dsn, seed=35, count=3)
    async with writers.running():
        await writers.progress(300)
        before = list(endpoint.accepted)
        await endpoint.accepts(150)
        slow_again(http_receiver)
        ways: list[tuple[str, ...]] = [("--since", "1d"), ("--since", "1d", "--key", "hot-2")]
        both = [asyncio.create_task(replayed(manifest, database, *words)) for words in ways]
        for more in (30, 80):
            enough = number_again(http_receiver) + more
            await poll(lambda enough=enough: number_again(http_receiver) > enough, 40, every=0.005)
            await listener.kill()
            listener.start()
        found = await asyncio.gather(*both)
        await writers.progress(50)
    for each, key in zip(found, (None, "hot-2"), strict=True):
        assert each["state"] == "done", each
        sent = {event["id"] for event in again(http_receiver) if event["replay"] == each["request"]}
        assert {event.event_id for event in before if key in (None, event.key)} <= sent
        assert each["events"] <= len(sent)
    await writers.resolve()
    assert check(writers.history, await endpoint.accepted_all(writers.history.ok)) == []
