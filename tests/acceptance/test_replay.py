"""`tablewatcher replay`: what was delivered and is still in the ring is sent again, and says that it is a replay."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import re
import time
from pathlib import Path
from typing import Any

import pytest

from tablewatcher.postgres.ring.chunks import IDS_A_ROW

from ..conftest import Database, HttpReceiver, ReceivedRequest, Stream, poll
from .arrivals import Endpoint
from .checker import check
from .commands import tablewatcher
from .conftest import Forwarding
from .listeners import apply, http_sink, nats_sink, write_manifest
from .programs import PROGRAM, started
from .terminal import terminal
from .turning_ring import bulk, delivered, fill, is_replaying
from .writers import TABLES, Writers, put


async def replay(manifest: Path, database: Database, *words: str) -> dict[str, Any]:
    answer = await tablewatcher("replay", "-f", manifest, "--dsn", database.dsn, "-o", "json", *words)
    assert answer.code == 0, answer.err + answer.out
    (found,) = json.loads(answer.out)
    return dict(found)


async def test_replay_into_jetstream(
    tmp_path: Path, database: Database, stream: Stream, forwarding: Forwarding
) -> None:
    """The same ids in the events, others for JetStream, which would drop them as repeats."""
    manifest = write_manifest(tmp_path / "nats.yaml", nats_sink(stream.url, stream.prefix))
    await forwarding(manifest, database)
    await put(database, "a", "b", "a", "c")
    first = await stream.messages(4)
    found = await replay(manifest, database, "--since", "1h")
    assert (found["state"], found["events"]) == ("done", 4)
    # All there is, and not the hour that was asked for: that is said, and with a time that may be asked for.
    begun = re.fullmatch(
        r"4 sent again; the watcher was installed at (\S+), and nothing was captured before", found["detail"]
    )
    assert begun is not None, found["detail"]
    messages = await stream.messages(8)
    number = found["request"]
    # In order per key: what has another may come before.
    again = {message.headers["Nats-Msg-Id"]: json.loads(message.data) for message in messages[4:]}
    assert again == {
        f"{message.headers['Nats-Msg-Id']}/r{number}": json.loads(message.data) | {"replay": number}
        for message in first
    }
    for events in (first, messages[4:]):
        of_a = [json.loads(message.data)["sequence"] for message in events if b'"partitionkey":"a"' in message.data]
        assert len(of_a) == 2
        assert of_a == sorted(of_a)
    found = await replay(manifest, database, "--since", "1h", "--key", "a")
    assert found["events"] == 2
    assert [json.loads(message.data)["partitionkey"] for message in (await stream.messages(10))[8:]] == ["a", "a"]
    # `a b` would be `a%20b`: of a key that is not written so there is nothing.
    for other in ("z", "a b"):
        found = await replay(manifest, database, "--since", "1h", "--key", other)
        assert (found["state"], found["events"]) == ("done", 0)
        assert f"0 sent again: the ring holds no delivered event of key {other}" in found["detail"]
        assert "`partitionkey`" in found["detail"]
    assert (await replay(manifest, database, "--since", begun[1], "--key", "b"))["detail"] == "1 sent again"
    assert len(await stream.messages(11)) == 11
    await put(database, "d")
    assert "replay" not in json.loads((await stream.messages(12))[11].data)


async def test_a_person_sees_how_far_a_replay_is(
    tmp_path: Path, database: Database, http_receiver: HttpReceiver, forwarding: Forwarding
) -> None:
    """Of which watcher, and how much of it: two lines, neither drawn over the other. Nothing of them stays."""
    rows = 3000
    manifest = write_manifest(tmp_path / "http.yaml", http_sink(http_receiver.url, max_events=100))
    await forwarding(manifest, database)
    await database.execute(f"INSERT INTO account (key, version) SELECT n, 1 FROM generate_series(1, {rows}) AS n")

    def sent() -> int:
        return sum(len(json.loads(request.body)) for request in http_receiver.requests)

    await poll(lambda: sent() == rows, 40)

    async def slow(_: ReceivedRequest) -> int:
        await asyncio.sleep(1)
        return 204

    http_receiver.respond = slow
    with terminal(100) as screen:
        command = (PROGRAM, "replay", "-f", manifest, "--dsn", database.dsn, "--since", "1h")
        both = {"stdout": screen.keyboard, "stderr": screen.keyboard}
        with started(*command, **both, TERM="xterm-256color", COLUMNS="100") as program:
            assert await program.ended(90) == 0
        await screen.finished()
        frames = screen.frames()
    watchers, events = re.compile(r"\S faults/http .* 0/1 .*"), re.compile(rf"faults/http .* (\d+)/{rows}")
    together = [frame for frame in frames if len(frame) == 2 and watchers.fullmatch(frame[0])]
    done = [int(found[1]) for frame in together if (found := events.fullmatch(frame[1]))]
    assert any(0 < number < rows for number in done), frames[-20:]
    assert done == sorted(done)
    assert not any(events.fullmatch(frame[0]) for frame in frames), "over the other"
    assert frames[-1][0].startswith(f"faults/http: {rows} sent again; the watcher was installed at")


async def test_replay_under_writers(
    tmp_path: Path, database: Database, http_receiver: HttpReceiver, forwarding: Forwarding
) -> None:
    """Live delivery waits meanwhile: nothing of it comes between, nothing is lost; after a kill it begins anew."""
    endpoint = Endpoint(http_receiver)
    manifest = write_manifest(tmp_path / "http.yaml", http_sink(endpoint.url))
    listener, writers = await forwarding(manifest, database), Writers(database.dsn, seed=33)

    def numbers() -> list[bool]:
        return [b'"replay":' in request.body for request in http_receiver.requests]

    async with writers.running():
        await writers.progress(800)
        await endpoint.accepts(200)
        before = {found.change for found in endpoint.accepted}
        asked = asyncio.create_task(replay(manifest, database, "--since", "1d"))
        await poll(lambda: sum(numbers()) > 20, 40, every=0.005)
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


async def test_live_delivery_goes_on_while_events_of_a_key_are_looked_for(
    tmp_path: Path, database: Database, http_receiver: HttpReceiver, forwarding: Forwarding
) -> None:
    """All of that key that had come is sent, in order, also what came while the ring was searched for it."""
    rows, others, of_hot = 100_000, list[float](), list[tuple[int, str]]()
    manifest = write_manifest(tmp_path / "http.yaml", http_sink(http_receiver.url, max_events=500))
    await forwarding(manifest, database)

    async def taken(request: ReceivedRequest) -> int:
        for event in json.loads(request.body):
            if event["partitionkey"] == "hot":
                of_hot.append((event.get("replay", 0), event["id"]))
            else:
                others.append(time.monotonic())
        http_receiver.requests.clear()
        return 204

    http_receiver.respond = taken
    await put(database, "hot")
    began = time.monotonic()
    await database.execute(f"INSERT INTO account (key, version) SELECT n, 1 FROM generate_series(1, {rows}) AS n")
    await poll(lambda: len(others) == rows, 60)
    reading, stop, waits = time.monotonic() - began, asyncio.Event(), []

    async def write() -> None:
        async with await database.connect() as writing:
            for number in itertools.takewhile(lambda _: not stop.is_set(), itertools.count()):
                await writing.execute("UPDATE account SET version = version + 1 WHERE key = 'hot'")
                await writing.execute("INSERT INTO account (key, version) VALUES (%s, 1)", [f"live{number}"])
                await asyncio.sleep(0.005)

    writer = asyncio.create_task(write())
    await poll(lambda: len(of_hot) > 20, 40)
    sent = []
    for _ in range(3):
        others.clear()
        sent.append(await replay(manifest, database, "--since", "1d", "--key", "hot"))
        waits.append(max(after - before for before, after in itertools.pairwise(others)))
    stop.set()
    await writer
    for found in sent:
        places = [place for place, (number, _) in enumerate(of_hot) if number == found["request"]]
        first, last = places[0], places[-1]
        live = [event for number, event in of_hot[:first] if not number]
        assert [event for _, event in of_hot[first : last + 1]] == live, "all that had come, and nothing in between"
        assert found["events"] == len(live)
    # To read all that lies between takes as long as it took to read it first, or nearly.
    assert min(waits) < reading / 4, (waits, reading)


async def test_what_comes_while_another_replay_has_its_turn_is_sent_too(
    tmp_path: Path, database: Database, http_receiver: HttpReceiver, forwarding: Forwarding
) -> None:
    """Two keys are looked for, one after the other, and both wait for an endpoint that answers nothing for a while."""
    answering = asyncio.Event()
    answering.set()

    async def answer(_: ReceivedRequest) -> int:
        await answering.wait()
        return 204

    http_receiver.respond = answer
    manifest = write_manifest(tmp_path / "http.yaml", http_sink(http_receiver.url))
    await forwarding(manifest, database)
    await put(database, "a", "b")
    await http_receiver.wait_for(2, 40)
    answering.clear()
    await put(database, "under way")
    await http_receiver.wait_for(3, 40)
    first = asyncio.create_task(replay(manifest, database, "--since", "1h", "--key", "a"))
    await asyncio.sleep(3)  # until it is looked for, and waits for what is under way
    await put(database, "a")
    second = asyncio.create_task(replay(manifest, database, "--since", "1h", "--key", "b"))
    await http_receiver.wait_for(4, 40)  # once the first lets live delivery go, and the second by
    answering.set()
    assert ((await first)["events"], (await second)["events"]) == (2, 1)
    of_a = [json.loads(request.body) for request in http_receiver.requests if b'"partitionkey":"a"' in request.body]
    assert [event["id"] for event in of_a if "replay" in event] == [
        event["id"] for event in of_a if "replay" not in event
    ]


async def test_what_is_refused_now_does_not_keep_live_delivery_waiting(
    tmp_path: Path, database: Database, http_receiver: HttpReceiver, forwarding: Forwarding
) -> None:
    """An endpoint that took an event may refuse it the second time. Nothing else comes that could prove it guilty."""
    endpoint = Endpoint(http_receiver)
    # More than others can be accepted between its failures: with three, it may be put aside as soon as "c" is there.
    manifest = write_manifest(tmp_path / "http.yaml", http_sink(endpoint.url), maxAttempts=10)
    await forwarding(manifest, database)
    await put(database, "a", "bad", "b")
    await endpoint.accepts(3 - len(endpoint.accepted))
    endpoint.refused = {"bad"}
    found = await replay(manifest, database, "--since", "1h")
    assert "1 of them is not accepted yet" in found["detail"]
    await put(database, "c")
    await poll(lambda: "c" in {each.key for each in endpoint.accepted}, 40)
    endpoint.refused = set()
    await poll(lambda: [each.key for each in endpoint.accepted].count("bad") == 2, 40)


async def test_a_row_that_is_refused_all_along_is_waited_for_once(
    tmp_path: Path, database: Database, http_receiver: HttpReceiver, forwarding: Forwarding
) -> None:
    """It changes every now and then: each thousand events of a replay waited for three seconds, and live delivery."""
    endpoint = Endpoint(http_receiver)
    manifest = write_manifest(tmp_path / "http.yaml", http_sink(endpoint.url), maxAttempts=10)
    await forwarding(manifest, database)
    for nth in range(4):
        await put(database, "bad")
        rows = "SELECT 'k' || i, 1 FROM generate_series(%s::int, %s::int) AS i"
        await database.execute(f"INSERT INTO account (key, version) {rows}", nth * 1000, nth * 1000 + 999)
    await endpoint.accepts(4 * 1001 - len(endpoint.accepted))
    endpoint.refused, came = {"bad"}, len(endpoint.accepted)
    pauses = asyncio.create_task(_pauses(endpoint))
    found = await replay(manifest, database, "--since", "1h")
    pauses.cancel()
    assert "4 of them are not accepted yet" in found["detail"]
    assert len(endpoint.accepted) == came + 4000
    assert await pauses <= 2
    endpoint.refused = set()
    await poll(lambda: [each.key for each in endpoint.accepted].count("bad") == 8, 40)


async def _pauses(endpoint: Endpoint) -> int:
    """How often it has waited for the next event for two seconds, until this is cancelled."""
    pauses, seen, since = 0, len(endpoint.accepted), float("inf")
    with contextlib.suppress(asyncio.CancelledError):
        while True:
            if seen != len(endpoint.accepted):
                now = time.monotonic()
                pauses += now - since > 2
                seen, since = len(endpoint.accepted), now
            await asyncio.sleep(0.05)
    return pauses


@pytest.mark.parametrize("is_short", [False, True], ids=["room", "no-room"])
async def test_a_ring_that_would_turn_under_a_replay(
    tmp_path: Path, database: Database, http_receiver: HttpReceiver, forwarding: Forwarding, is_short: bool
) -> None:
    """The endpoint is down and writers go on: what is to be sent stays while there is room, or is missed aloud."""
    endpoint, manifest = Endpoint(http_receiver), tmp_path / "http.yaml"
    listener = await delivered(manifest, database, endpoint, forwarding)
    asked = asyncio.create_task(
        tablewatcher("replay", "-f", manifest, "--dsn", database.dsn, "-o", "json", "--since", "1h")
    )
    await poll(lambda: is_replaying(database), 40)
    await fill(database, listener)
    if is_short:
        await bulk(database, 6000)
        await poll(lambda: _has_lost(database), 40)
    await endpoint.rise()
    answer = await asked
    (found,) = json.loads(answer.out)
    again = [request for request in http_receiver.requests if b'"replay":' in request.body]
    assert again
    if not is_short:
        assert (answer.code, found["state"], found["events"]) == (0, "done", 1100), answer.out
        return
    assert (answer.code, found["state"]) == (10, "failed"), answer.out
    # A piece ends with a row of the ring, which may hold many events.
    sent = found["events"]
    assert 1000 <= sent < 1000 + IDS_A_ROW
    assert f"{sent} sent again; {1100 - sent} more are gone" in found["detail"]
    assert "maxBytes" in found["detail"]


async def _has_lost(database: Database) -> bool:
    """Whether none of the first rows is in the ring."""
    names = await database.execute("SELECT relname FROM pg_class WHERE relname ~ '^ring_.*_[012]$' AND relkind = 'r'")
    rows = " UNION ALL ".join(f"SELECT key FROM tablewatcher.{name}" for (name,) in names)
    last = "repeat('x', 300) || 1100"
    return not await database.execute(f"SELECT FROM ({rows}) AS r WHERE {last} = ANY (key)")


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
