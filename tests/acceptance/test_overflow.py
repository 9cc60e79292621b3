"""A full ring: writers go on, the gap is announced, and nothing is missing outside of it."""

from __future__ import annotations

import time
from pathlib import Path

from tablewatcher.naming import LOCAL_INSTANCE, watcher_names

from ..conftest import Database, HttpReceiver, poll
from .arrivals import Endpoint
from .checker import check
from .commands import tablewatcher
from .conftest import MakeListener
from .full_ring import BOUND, all_accepted, flood
from .listeners import Listener, apply, http_sink, write_manifest
from .parking import has_parked, is_aside
from .writers import TABLES, Writers, put


async def has(database: Database, query: str, row: tuple[object, ...]) -> bool:
    return await database.execute(query) == [row]


async def test_writers_go_on_and_the_gap_is_announced(
    tmp_path: Path, database: Database, http_receiver: HttpReceiver, make_listener: MakeListener
) -> None:
    endpoint = Endpoint(http_receiver)
    manifest = write_manifest(
        tmp_path / "small.yaml", http_sink(endpoint.url, max_events=100), overflow={"maxBytes": BOUND}
    )
    await database.execute(TABLES)
    await apply(manifest, database.dsn)
    listener, writers = make_listener(manifest, database.dsn), Writers(database.dsn, seed=9)
    listener.start()
    async with writers.running():
        await poll(listener.forwards, 40)
        await endpoint.accepts(100)
        await endpoint.die()
        await flood(writers, 8000)
        await poll(lambda: says(listener, "CaptureStopped", "the sink: "), 40)
        said = "SELECT forwarding, reason FROM tablewatcher.progress"
        await poll(lambda: has(database, said, (False, "CaptureStopped")), 40)
        assert await listener.metric("capture_active") == 0
        assert await listener.metric("ring_bytes") > 0.8 * await listener.metric("ring_limit_bytes") == 0.8 * BOUND
        await writers.progress(100)
        await endpoint.rise()
        await poll(listener.forwards, 40)
        await writers.progress(100)
    assert writers.faults == []
    await writers.resolve()
    (rings,) = await database.execute(
        "SELECT sum(pg_total_relation_size(oid)) FROM pg_class WHERE relkind = 'r' AND relname LIKE 'ring%%'"
    )
    assert rings[0] < 2 * BOUND
    await poll(lambda: endpoint.gaps, 40)
    assert await listener.metric("gaps_total") >= len(endpoint.gaps)
    assert time.time() - 60 < await listener.metric("last_gap_timestamp_seconds") <= time.time()
    accepted, excused = await all_accepted(database, endpoint, writers.history)
    assert check(writers.history, accepted, announced=excused) == []
    missing = writers.history.ok - {found.change for found in accepted}
    assert len(missing) > 100
    # On a slow machine so small a ring may well be full once more.
    assert {(gap["reason"], gap["certain"]) for gap in endpoint.gaps} == {("overflow", True)}


async def says(listener: Listener, wanted: str, words: str) -> bool:
    ready, reason, message = await listener.state()
    return not ready and reason == wanted and words in message


async def test_what_is_parked_takes_its_room_from_the_ring(
    tmp_path: Path, database: Database, http_receiver: HttpReceiver, make_listener: MakeListener
) -> None:
    """Half of the bound at the most, while others go on; ring and parked events together stop capture."""
    endpoint, bad, bound = Endpoint(http_receiver), "x" * 1000, 2 << 20
    # More than half of the bound as they are parked, and, compressed in the ring, well under the other half.
    changes = 560
    endpoint.refused = {bad}
    manifest = write_manifest(
        tmp_path / "small.yaml",
        http_sink(endpoint.url),
        overflow={"maxBytes": bound},
        maxAttempts=2,
        backoff={"initialMilliseconds": 50, "maxSeconds": 1},
    )
    await database.execute(TABLES)
    await apply(manifest, database.dsn)
    listener = make_listener(manifest, database.dsn)
    listener.start()
    await database.execute(
        f"INSERT INTO account VALUES ('{bad}', 1); INSERT INTO account VALUES ('good', 1);"
        f" DO $$ BEGIN FOR i IN 1..{changes} LOOP"
        f" UPDATE account SET version = version + 1 WHERE key = '{bad}'; END LOOP; END $$"
    )

    async def has_no_room() -> bool:
        await database.execute("UPDATE account SET version = version + 1 WHERE key = 'good'")
        return await says(listener, "EventsParked", "nothing more is parked")

    await poll(has_no_room, 40, every=0.1)
    taken = "SELECT sum(octet_length(data)) FROM tablewatcher.parked"
    ((held,),) = await database.execute(taken)
    assert 0.9 * bound / 2 < held <= bound / 2
    # What there is no room for is tried again.
    endpoint.refused = {bad, "late"}
    await database.execute("INSERT INTO account VALUES ('late', 1), ('other', 1)")
    await poll(lambda: len([found for found in endpoint.attempts if found.key == "late"]) > 6, 40)
    endpoint.refused = {bad}
    await poll(lambda: "late" in {found.key for found in endpoint.accepted}, 40)
    await poll(lambda: "other" in {found.key for found in endpoint.accepted}, 40)
    await endpoint.die()
    await database.execute("INSERT INTO account SELECT repeat('y', 1000) || nth, 1 FROM generate_series(1, 500) AS nth")
    await poll(lambda: says(listener, "CaptureStopped", "parked events take"), 40)
    (rings,) = await database.execute(
        "SELECT sum(pg_total_relation_size(oid)) FROM pg_class WHERE relkind = 'r' AND relname LIKE 'ring%%'"
    )
    assert rings[0] < bound < rings[0] + held
    endpoint.refused = set()
    await endpoint.rise()
    answer = await tablewatcher("parked", "replay", "-f", manifest, "--dsn", database.dsn)
    assert answer.code == 0, answer.out + answer.err
    await poll(listener.forwards, 40)
    await poll(lambda: endpoint.gaps, 40)
    again = dict.fromkeys(found.change for found in endpoint.accepted if found.key == bad)
    assert list(again) == [(bad, nth) for nth in range(1, changes + 2)]


async def test_a_refused_row_is_parked_although_the_ring_is_full(
    tmp_path: Path, database: Database, http_receiver: HttpReceiver, make_listener: MakeListener
) -> None:
    """The ring cannot be emptied before it is."""
    endpoint = Endpoint(http_receiver)
    endpoint.refused = {"bad"}
    manifest = write_manifest(
        tmp_path / "small.yaml", http_sink(endpoint.url, max_events=1000), overflow={"maxBytes": BOUND}, maxAttempts=2
    )
    await database.execute(TABLES)
    await apply(manifest, database.dsn)
    writers = Writers(database.dsn, seed=9)
    await put(database, "bad", "good", "bad")
    await flood(writers, 60_000)
    assert await database.execute(
        f"SELECT last_value > 0 FROM tablewatcher.{watcher_names(LOCAL_INSTANCE, 'faults', manifest.stem).stop}"
    ) == [(True,)]
    listener = make_listener(manifest, database.dsn)
    listener.start()
    await poll(lambda: has_parked(listener), 60)
    assert await is_aside(database, "bad", "bad")
    await put(database, "later")
    await poll(lambda: "later" in {found.key for found in endpoint.accepted}, 40)
