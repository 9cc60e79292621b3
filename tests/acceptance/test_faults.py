"""Nothing lost, nothing invented, order per key kept: whoever is killed, while writers go on."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from tablewatcher.embedded import EmbeddedNats, EmbeddedPostgres

from ..conftest import Database, HttpReceiver, Stream, poll
from .arrivals import Endpoint, streamed_all
from .checker import Kind, Outcome, check, repeats
from .conftest import MakeListener
from .listeners import Listener, apply, http_sink, nats_sink, with_every_option, write_manifest
from .writers import TABLES, Writers


async def watched(database: Database, manifest: Path) -> None:
    """The writers' tables, with capture installed."""
    await database.execute(TABLES)
    await apply(manifest, database.dsn)


async def killed(listener: Listener, writers: Writers, chance: random.Random, times: int) -> None:
    """kill -9 after some hundred changes, started again at once; the last one may live."""
    for _ in range(times):
        await writers.progress(chance.randrange(100, 500))
        await listener.kill()
        listener.start()


def no_writer_was_disturbed(writers: Writers) -> None:
    assert writers.faults == []
    assert writers.history.count(Outcome.INFO) == 0


@pytest.mark.parametrize("takes_batches", [False, True], ids=["plain", "batches"])
async def test_listener_is_killed(
    tmp_path: Path,
    database: Database,
    make_stream: Callable[..., Awaitable[Stream]],
    make_listener: MakeListener,
    takes_batches: bool,
) -> None:
    stream = await make_stream(allow_batched=takes_batches)
    manifest = write_manifest(tmp_path / "nats.yaml", nats_sink(stream.url, stream.prefix))
    await watched(database, with_every_option(manifest, binary=False))
    listener, writers, chance = (
        make_listener(manifest, database.dsn),
        Writers(database.dsn),
        random.Random(11),
    )
    listener.start()
    async with writers.running():
        await killed(listener, writers, chance, times=2)
        for _ in range(3):
            # Not while it starts: in the middle of its work.
            await poll(listener.forwards, 40)
            await killed(listener, writers, chance, times=1)
    no_writer_was_disturbed(writers)
    await writers.resolve()
    arrivals = await streamed_all(stream, writers.history.ok)
    assert check(writers.history, arrivals) == []


@pytest.mark.parametrize("kind", ["nats", "http"])
async def test_postgres_is_killed(
    tmp_path: Path,
    mortal_postgres: EmbeddedPostgres,
    mortal_database: Database,
    stream: Stream,
    http_receiver: HttpReceiver,
    make_listener: MakeListener,
    kind: str,
) -> None:
    """Some writers commit without waiting for the disk: what a crash undoes must not have been sent."""
    endpoint = Endpoint(http_receiver)
    sink = nats_sink(stream.url, stream.prefix) if kind == "nats" else http_sink(endpoint.url, max_events=50)
    manifest = write_manifest(tmp_path / "all.yaml", sink)
    await watched(mortal_database, with_every_option(manifest, binary=kind == "nats"))
    listener = make_listener(manifest, mortal_database.dsn)
    writers, chance = Writers(mortal_database.dsn, relaxed=0.4, seed=2), random.Random(12)
    listener.start()
    async with writers.running():
        for _ in range(3):
            await poll(listener.forwards, 40)
            await writers.progress(chance.randrange(400, 900))
            await asyncio.to_thread(mortal_postgres.kill)
            await asyncio.to_thread(mortal_postgres.start)
        await poll(listener.forwards, 40)
        await writers.progress(300)
    assert len(writers.faults) >= 3, "the crashes were not felt"
    await writers.resolve()
    ok = writers.history.ok
    arrivals = await streamed_all(stream, ok) if kind == "nats" else await endpoint.accepted_all(ok)
    assert check(writers.history, arrivals) == []


async def test_nats_is_killed(
    tmp_path: Path,
    database: Database,
    mortal_nats: EmbeddedNats,
    mortal_stream: Stream,
    make_listener: MakeListener,
) -> None:
    manifest = write_manifest(tmp_path / "nats.yaml", nats_sink(mortal_stream.url, mortal_stream.prefix))
    await watched(database, with_every_option(manifest, binary=True))
    listener, writers, chance = (
        make_listener(manifest, database.dsn),
        Writers(database.dsn, seed=3),
        random.Random(13),
    )
    listener.start()
    async with writers.running():
        for down in (0, 200, 600):
            await poll(listener.forwards, 40)
            await writers.progress(chance.randrange(300, 700))
            await asyncio.to_thread(mortal_nats.kill)
            await writers.progress(down)
            await asyncio.to_thread(mortal_nats.start)
        await writers.progress(300)
    no_writer_was_disturbed(writers)
    await writers.resolve()
    arrivals = await streamed_all(mortal_stream, writers.history.ok)
    assert check(writers.history, arrivals) == []
    await poll(listener.forwards, 40)


async def test_nats_and_listener_are_killed_together(
    tmp_path: Path,
    database: Database,
    mortal_nats: EmbeddedNats,
    mortal_stream: Stream,
    make_listener: MakeListener,
) -> None:
    manifest = write_manifest(tmp_path / "nats.yaml", nats_sink(mortal_stream.url, mortal_stream.prefix))
    await watched(database, manifest)
    listener, writers = make_listener(manifest, database.dsn), Writers(database.dsn, seed=4)
    listener.start()
    async with writers.running():
        await poll(listener.forwards, 40)
        await writers.progress(300)
        await asyncio.to_thread(mortal_nats.kill)
        await listener.kill()
        listener.start()
        await writers.progress(200)
        await asyncio.to_thread(mortal_nats.start)
    await writers.resolve()
    arrivals = await streamed_all(mortal_stream, writers.history.ok)
    assert check(writers.history, arrivals) == []


@pytest.mark.parametrize("max_events", [1, 50])
async def test_http_endpoint_fails_and_listener_is_killed(
    tmp_path: Path, database: Database, http_receiver: HttpReceiver, make_listener: MakeListener, max_events: int
) -> None:
    """Repeats are seen here as they are: nothing drops them on the way."""
    endpoint = Endpoint(http_receiver)
    manifest = write_manifest(tmp_path / "http.yaml", http_sink(endpoint.url, max_events=max_events))
    await watched(database, with_every_option(manifest, binary=False))
    listener, writers, chance = (
        make_listener(manifest, database.dsn),
        Writers(database.dsn, seed=5),
        random.Random(15),
    )
    listener.start()
    async with writers.running():
        await poll(listener.forwards, 40)
        await writers.progress(300)
        endpoint.trouble, endpoint.distaste = 0.05, 0.2
        await writers.progress(300)
        await poll(lambda: repeats(endpoint.attempts), 40)
        endpoint.trouble = endpoint.distaste = 0.0
        await poll(lambda: endpoint.accepted, 40)
        for _ in range(2):
            await writers.progress(chance.randrange(200, 500))
            await endpoint.die()
            await writers.progress(100)
            await endpoint.rise()
            await endpoint.accepts(51)
            await listener.kill()
            listener.start()
    no_writer_was_disturbed(writers)
    await writers.resolve()
    accepted = await endpoint.accepted_all(writers.history.ok)
    assert check(writers.history, accepted) == []
    # What was refused counts for order and identity too: nothing may overtake an event that is still owed.
    assert check(writers.history, endpoint.attempts) == []
    assert (endpoint.batches > 1) == (max_events > 1)


@pytest.mark.parametrize("max_events", [1, 50])
async def test_terminated_listener_repeats_nothing(
    tmp_path: Path, database: Database, http_receiver: HttpReceiver, make_listener: MakeListener, max_events: int
) -> None:
    endpoint = Endpoint(http_receiver)
    manifest = write_manifest(tmp_path / "http.yaml", http_sink(endpoint.url, max_events=max_events))
    await watched(database, manifest)
    listener, writers, chance = (
        make_listener(manifest, database.dsn),
        Writers(database.dsn, seed=6),
        random.Random(16),
    )
    listener.start()
    async with writers.running():
        for _ in range(3):
            await poll(listener.forwards, 40)
            await endpoint.accepts(1)
            await writers.progress(chance.randrange(100, 400))
            assert await listener.terminate() == 0
            listener.start()
    no_writer_was_disturbed(writers)
    await writers.resolve()
    accepted = await endpoint.accepted_all(writers.history.ok)
    assert check(writers.history, accepted) == []
    assert repeats(endpoint.attempts) == []


async def sessions(database: Database) -> dict[str, int]:
    """The listener's sessions, by what each is for; none where it has not just one of each."""
    rows = await database.execute(
        "SELECT application_name, pid FROM pg_stat_activity"
        " WHERE datname = current_database() AND application_name LIKE 'tablewatcher listener %'"
    )
    found = {name.rpartition(" ")[2]: pid for name, pid in rows}
    return found if len(rows) == len(found) == 3 else {}


async def test_sessions_of_the_listener_are_ended(
    tmp_path: Path, database: Database, http_receiver: HttpReceiver, make_listener: MakeListener
) -> None:
    """Its reader, writer and LISTEN connections, one after the other, as a DBA or a failing network does."""
    endpoint = Endpoint(http_receiver)
    # The lease, which it keeps, would be 65 seconds.
    manifest = write_manifest(tmp_path / "http.yaml", http_sink(endpoint.url, timeout=60))
    await watched(database, manifest)
    listener, writers = make_listener(manifest, database.dsn), Writers(database.dsn, seed=7)
    listener.start()
    ended = set[int]()

    async def new_ones() -> dict[str, int]:
        found = await sessions(database)
        return found if ended.isdisjoint(found.values()) else {}

    async with writers.running():
        found = await poll(new_ones, 40)
        for role in ("reader", "writer", "wakeup"):
            await poll(listener.forwards, 40)
            await writers.progress(150)
            assert await database.execute("SELECT pg_terminate_backend(%s)", found[role]) == [(True,)]
            ended |= set(found.values())
            found = await poll(new_ones, 40)
            await poll(listener.forwards, 40)
            await endpoint.accepts(51)
    no_writer_was_disturbed(writers)
    await writers.resolve()
    accepted = await endpoint.accepted_all(writers.history.ok)
    assert check(writers.history, accepted) == []


async def test_the_checks_here_can_fail(
    tmp_path: Path, database: Database, stream: Stream, make_listener: MakeListener
) -> None:
    """Changes that capture never saw must count as lost: otherwise the tests above prove nothing."""
    manifest = write_manifest(tmp_path / "nats.yaml", nats_sink(stream.url, stream.prefix))
    await watched(database, manifest)
    listener, writers = make_listener(manifest, database.dsn), Writers(database.dsn, seed=8, count=3)
    listener.start()
    async with writers.running():
        await writers.progress(100)
        await database.execute("ALTER TABLE account DISABLE TRIGGER USER")
        await writers.progress(50)
        await database.execute("ALTER TABLE account ENABLE TRIGGER USER")
        await writers.progress(100)
    await writers.resolve()
    arrivals = await streamed_all(stream, writers.history.ok, seconds=3)
    assert {found.kind for found in check(writers.history, arrivals)} == {Kind.LOSS}


@pytest.mark.parametrize("kind", ["nats", "http"])
async def test_a_sink_that_is_back_is_tried_at_once_however_long_the_wait_has_grown(
    tmp_path: Path,
    database: Database,
    mortal_nats: EmbeddedNats,
    http_receiver: HttpReceiver,
    make_listener: MakeListener,
    kind: str,
) -> None:
    """A wait of five minutes by default, in which the watcher went on to say what had long been mended."""
    sink = nats_sink(mortal_nats.url, "shop") if kind == "nats" else http_sink(http_receiver.url)
    if kind == "nats":
        sink["nats"]["jetStream"] = {"stream": "SHOP", "create": {"maxBytes": 1 << 20, "replicas": 1}}
    backoff = {"initialMilliseconds": 60_000, "maxSeconds": 86_400}
    manifest = write_manifest(tmp_path / "w.yaml", sink, backoff=backoff)
    await watched(database, manifest)
    listener, writers = make_listener(manifest, database.dsn), Writers(database.dsn, count=4)
    listener.start()
    await poll(listener.forwards, 40)

    async def failed() -> bool:
        _, reason, _ = await listener.state()
        return reason == "SinkUnreachable" and await listener.metric("delivery_attempts_total") > tried

    async def delivers() -> bool:
        return await listener.delivered() > delivered

    async with writers.running():
        await writers.progress(50)
        tried = await listener.metric("delivery_attempts_total")
        await (asyncio.to_thread(mortal_nats.kill) if kind == "nats" else http_receiver.stop())
        await poll(failed, 40)
        await writers.progress(50)
        delivered = await listener.delivered()
        await (asyncio.to_thread(mortal_nats.start) if kind == "nats" else http_receiver.start())
        # Without a look it would be after 30 s at the median, and twice as long after each failure.
        await poll(delivers, 20)
