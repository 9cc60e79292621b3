"""What a listener's `/metrics` say, held against what an endpoint has seen."""

from __future__ import annotations

import json
from pathlib import Path

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families

from ..conftest import Database, HttpReceiver, poll
from .arrivals import Endpoint
from .commands import put as write_over
from .conftest import MakeListener
from .listeners import Listener
from .parking import changes, command, has_parked, put_aside, watched
from .writers import put

WATCHER = {"watcher_namespace": "faults", "watcher": "http"}


async def samples(listener: Listener) -> dict[str, float]:
    """What is said of the watcher: by name and the labels beside its own, as `events_delivered_total insert http`."""
    async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{listener.port}/metrics") as answer:
        text = await answer.text()
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.labels.items() >= WATCHER.items():
                more = [sample.labels[name] for name in sorted(sample.labels.keys() - WATCHER)]
                found[" ".join([sample.name.removeprefix("tablewatcher_"), *more])] = sample.value
    return found


async def with_one_aside(
    tmp_path: Path, database: Database, http_receiver: HttpReceiver, make_listener: MakeListener
) -> tuple[Endpoint, Path, Listener]:
    """An endpoint that refuses row "bad", the manifest, and a listener that has put its event aside."""
    endpoint = Endpoint(http_receiver)
    manifest = await watched(database, endpoint, tmp_path / "http.yaml")
    listener = make_listener(manifest, database.dsn)
    listener.start()
    await put_aside(database, endpoint, "bad")
    await poll(lambda: has_parked(listener), 40)
    return endpoint, manifest, listener


async def test_metrics_count_what_arrives_and_what_is_refused(
    tmp_path: Path, database: Database, http_receiver: HttpReceiver, make_listener: MakeListener
) -> None:
    endpoint, _, listener = await with_one_aside(tmp_path, database, http_receiver, make_listener)
    await put(database, "other")
    await poll(lambda: ("other", 1) in changes(endpoint), 40)

    async def told() -> dict[str, float] | None:
        found = await samples(listener)
        inserted = found["events_delivered_total insert http"] == 2
        # The answer to another may still be on its way to the listener.
        settled = found["delivery_duration_seconds_count"] == len(endpoint.attempts)
        return found if inserted and settled and found["ring_rows"] == found["ring_oldest_age_seconds"] == 0 else None

    found = await poll(told, 40)
    accepted = len(endpoint.accepted)
    assert found["events_captured_total insert"] == 3
    assert found["events_captured_total update"] == found["events_delivered_total update http"] == accepted - 2
    assert found["delivery_attempts_total delivered http"] == accepted
    assert found["delivery_attempts_total rejected http"] == len(endpoint.attempts) - accepted
    # One event a request.
    assert found["delivery_duration_seconds_count"] == len(endpoint.attempts)
    assert found["event_latency_seconds_count"] == found["event_latency_seconds_bucket +Inf"] == accepted
    assert 0 < found["delivery_duration_seconds_sum"] < 30 * accepted
    assert 0 < found["event_latency_seconds_sum"] < 30 * accepted
    assert (found["events_parked"], found["listener_connected"], found["gaps_total"]) == (1, 1, 0)
    assert found["ring_bytes"] > 0


@pytest.mark.parametrize("statements", ["of many rows", "of one row"])
@pytest.mark.parametrize("why", ["suspended", "the endpoint is down"])
async def test_what_waits_is_told_where_nothing_is_sent_from_the_start(
    tmp_path: Path,
    database: Database,
    http_receiver: HttpReceiver,
    make_listener: MakeListener,
    why: str,
    statements: str,
) -> None:
    """About, where ids were drawn by nobody else: the first rows of a statement lie one by one, the others do not."""
    endpoint = Endpoint(http_receiver)
    manifest = await watched(database, endpoint, tmp_path / "http.yaml")
    good = manifest.read_text()
    many = statements == "of many rows"
    insert = "INSERT INTO account (key, version) SELECT '{0}' || nth, 1 FROM generate_series({1}, {2}) AS nth"
    one_by_one = "DO $$ BEGIN FOR nth IN {1}..{2} LOOP INSERT INTO account VALUES ('{0}' || nth, 1); END LOOP; END $$"
    number = 50_000 if many else 3000
    await database.execute((insert if many else one_by_one).format("k", 1, number))
    if why == "suspended":
        found = json.loads(good)
        found["spec"]["suspend"] = True
        write_over(manifest, json.dumps(found))
    else:
        await endpoint.die()
    listener = make_listener(manifest, database.dsn)
    listener.start()

    async def told() -> tuple[float, float] | None:
        found = await samples(listener) if (await listener.state())[1] else {}
        rows, age = found.get("ring_rows", 0.0), found.get("ring_oldest_age_seconds", 0.0)
        return (rows, age) if rows > 0 and age > 0 else None

    rows, age = await poll(told, 40)
    assert rows == pytest.approx(number, rel=0.25 if many else 0.1)
    assert age < 60
    if why == "the endpoint is down":
        await endpoint.rise()
    write_over(manifest, good.replace('"maxEvents": 1', '"maxEvents": 500'))

    async def is_zero() -> bool:
        found = await samples(listener)
        return found.get("events_delivered_total insert http") == number and not await told()

    await poll(is_zero, 80)
    found = await samples(listener)
    # From capture on, not from when it was sent at last.
    assert found["event_latency_seconds_count"] == number
    assert found["event_latency_seconds_sum"] > number * age


async def test_only_first_arrivals_count_as_late(
    tmp_path: Path, database: Database, http_receiver: HttpReceiver, make_listener: MakeListener
) -> None:
    """A replay sends what has long arrived; what was put aside arrives when it is brought back, and not before."""
    endpoint, manifest, listener = await with_one_aside(tmp_path, database, http_receiver, make_listener)

    async def all_but_one() -> float:
        found = await samples(listener)
        captured = found["events_captured_total insert"] + found["events_captured_total update"]
        return found["event_latency_seconds_count"] if captured == found["event_latency_seconds_count"] + 1 else 0

    await put(database, "last")
    await poll(lambda: ("last", 1) in changes(endpoint), 40)
    first = await poll(all_but_one, 40)
    assert (await command(manifest, database, "replay", "--since", "1h")).code == 0
    endpoint.refused = set()
    assert (await command(manifest, database, "parked", "replay")).code == 0

    async def told() -> dict[str, float] | None:
        found = await samples(listener)
        return found if found["delivery_attempts_total delivered http"] == 2 * first + 1 else None

    assert (await poll(told, 40))["event_latency_seconds_count"] == first + 1


async def test_what_was_rolled_back_does_not_wait(
    tmp_path: Path, database: Database, http_receiver: HttpReceiver, make_listener: MakeListener
) -> None:
    """It has drawn ids, and left its dead rows in the ring."""
    endpoint = Endpoint(http_receiver)
    manifest = await watched(database, endpoint, tmp_path / "http.yaml")
    listener = make_listener(manifest, database.dsn)
    listener.start()
    await put(database, "one")
    await endpoint.accepts(1)
    size = "ring_bytes"

    async def told(more_than: float) -> dict[str, float] | None:
        found = await samples(listener)
        return found if found.get(size, 0.0) > more_than else None

    before = await poll(lambda: told(0), 40)
    many = "INSERT INTO account (key, version) SELECT 'k' || nth, 1 FROM generate_series(1, 20000) AS nth"
    await database.execute(f"BEGIN; {many}; ROLLBACK")
    found = await poll(lambda: told(before[size]), 40)
    assert (found["ring_rows"], found["ring_oldest_age_seconds"]) == (0, 0)
