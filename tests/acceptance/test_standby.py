"""Two listeners of one watcher: one delivers, the other takes over; one that was only asleep does no harm."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import pytest

from tablewatcher.embedded import EmbeddedPostgres

from ..conftest import Database, HttpReceiver, poll
from .checker import check, repeats
from .conftest import MakeListener
from .doors import Door
from .listeners import apply, http_sink, write_manifest
from .pairs import Pair
from .writers import TABLES, Writers

LEASE_SECONDS = 5
SINK_TIMEOUT = 2
# As long as a standby sleeps between two looks, and much for a busy machine.
TAKEOVER_SECONDS = LEASE_SECONDS + SINK_TIMEOUT + 1 + 30


async def holds(pair: Pair, writers: Writers) -> None:
    """The invariants, once all has arrived."""
    await writers.resolve()
    accepted = await pair.endpoint.accepted_all(writers.history.ok)
    assert check(writers.history, accepted) == []
    assert writers.faults == []


@pytest.fixture
def writers(database: Database) -> Writers:
    return Writers(database.dsn, count=5, seed=31)


@pytest.fixture
async def pair(tmp_path: Path, database: Database, http_receiver: HttpReceiver, make_listener: MakeListener) -> Pair:
    return await Pair.made(tmp_path / "pair.yaml", database, http_receiver, make_listener, SINK_TIMEOUT)


async def test_one_delivers_and_the_other_takes_over(pair: Pair, writers: Writers) -> None:
    async with writers.running():
        await writers.progress(400)
        assert await pair.active.forwards()
        assert await pair.standby.stands_by()
        assert await pair.active.delivered() > 0
        assert await pair.standby.delivered() == 0
        await pair.active.kill()
        await poll(pair.standby.forwards, TAKEOVER_SECONDS)
        await pair.endpoint.accepts(1)
        await writers.progress(200)
    await holds(pair, writers)


async def test_handing_over_repeats_nothing(
    tmp_path: Path, database: Database, http_receiver: HttpReceiver, make_listener: MakeListener, writers: Writers
) -> None:
    pair = await Pair.made(tmp_path / "pair.yaml", database, http_receiver, make_listener, sink_seconds=60)
    async with writers.running():
        await writers.progress(300)
        assert await pair.active.terminate() == 0
        # The standby looks once a second; the lease and the sink's timeout would be 65.
        await pair.endpoint.accepts(1, seconds=40)
        await writers.progress(200)
    await holds(pair, writers)
    assert repeats(pair.endpoint.attempts) == []


async def test_a_listener_that_slept_through_its_lease_stays_behind(pair: Pair, writers: Writers) -> None:
    """SIGSTOP is a machine that hangs: nobody can see that it is not dead, and it wakes up in the middle of a send."""
    async with writers.running():
        for _ in range(2):
            await writers.progress(200)
            pair.active.send(signal.SIGSTOP)
            await poll(pair.standby.forwards, TAKEOVER_SECONDS)
            await pair.endpoint.accepts(1)
            pair.active.send(signal.SIGCONT)
            await poll(pair.active.stands_by, 40)
            await writers.progress(200)
            pair.active, pair.standby = pair.standby, pair.active
    await holds(pair, writers)


async def test_stopped_while_it_waits_for_the_database_it_releases_its_lease(
    tmp_path: Path,
    mortal_postgres: EmbeddedPostgres,
    mortal_database: Database,
    http_receiver: HttpReceiver,
    make_listener: MakeListener,
) -> None:
    """Its last attempt has failed this moment, and the next is seconds away; the database is back, and it is told."""
    await mortal_database.execute(TABLES)
    async with Door(mortal_postgres.port) as door:
        # Plain: a refusal would be tried once more without TLS.
        way = mortal_database.dsn.replace(f":{mortal_postgres.port}/", f":{door.port}/") + "?sslmode=disable"
        manifest = write_manifest(tmp_path / "back.yaml", http_sink(http_receiver.url, timeout=60))
        await apply(manifest, way)
        listener = make_listener(manifest, way)
        listener.start()
        await poll(listener.forwards, 40)
        await door.shut()
        await asyncio.to_thread(mortal_postgres.kill)
        await asyncio.to_thread(mortal_postgres.start)
        # Pauses: 0.25 s, doubled up to 5 s.
        knocks = door.knocks + 4
        await poll(lambda: door.knocks >= knocks, 40)
        door.open()
        assert await listener.terminate() == 0
    (cursor,) = await mortal_database.execute("SELECT min(relname) FROM pg_class WHERE relname ~ '^cursor_.*_0$'")
    (lease,) = await mortal_database.execute(
        f"SELECT expires_at = '-infinity' FROM tablewatcher.{cursor[0]} ORDER BY epoch DESC, n DESC LIMIT 1"
    )
    assert lease == (True,)
