"""Two listeners of one watcher: one delivers, the other takes over; one that was only asleep does no harm."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import pytest

from tablewatcher.embedded import EmbeddedPostgres

from ..conftest import Database, HttpReceiver, poll
from .arrivals import Endpoint
from .checker import check, repeats
from .conftest import MakeListener
from .listeners import Listener, apply, http_sink, write_manifest
from .writers import TABLES, Writers

pytestmark = pytest.mark.timeout(90)

LEASE_SECONDS = 5
SINK_TIMEOUT = 2
# As long as a standby sleeps between two looks, and some for the machine.
TAKEOVER_SECONDS = LEASE_SECONDS + SINK_TIMEOUT + 1 + 3


class Pair:
    """Two listeners started by hand, on one HTTP endpoint."""

    def __init__(self, first: Listener, second: Listener, endpoint: Endpoint, writers: Writers) -> None:
        self.active = first
        self.standby = second
        self.endpoint = endpoint
        self.writers = writers

    async def start(self) -> None:
        self.active.start()
        await poll(self.active.forwards, 20)
        self.standby.start()
        await poll(self.standby.stands_by, 20)

    async def hold(self) -> None:
        """The invariants, once all has arrived."""
        await self.writers.resolve()
        accepted = await self.endpoint.accepted_all(self.writers.history.ok)
        assert check(self.writers.history, accepted) == []
        assert self.writers.faults == []


@pytest.fixture
async def pair(tmp_path: Path, database: Database, http_receiver: HttpReceiver, make_listener: MakeListener) -> Pair:
    endpoint = Endpoint(http_receiver)
    manifest = write_manifest(tmp_path / "pair.yaml", http_sink(endpoint.url, SINK_TIMEOUT))
    await database.execute(TABLES)
    await apply(manifest, database.dsn)
    first, second = (make_listener(manifest, database.dsn) for _ in range(2))
    return Pair(first, second, endpoint, Writers(database.dsn, count=5, seed=31))


async def test_one_delivers_and_the_other_takes_over(pair: Pair) -> None:
    await pair.start()
    async with pair.writers.running():
        await pair.writers.progress(400)
        assert await pair.active.forwards()
        assert await pair.standby.stands_by()
        assert await pair.active.delivered() > 0
        assert await pair.standby.delivered() == 0
        await pair.active.kill()
        await pair.endpoint.accepts(1, TAKEOVER_SECONDS)
        await poll(pair.standby.forwards)
        await pair.writers.progress(200)
    await pair.hold()


async def test_handing_over_repeats_nothing(pair: Pair) -> None:
    await pair.start()
    async with pair.writers.running():
        await pair.writers.progress(300)
        assert await pair.active.terminate() == 0
        # The standby looks once a second; the lease and the sink's timeout would be seven.
        await pair.endpoint.accepts(1, seconds=4)
        await pair.writers.progress(200)
    await pair.hold()
    assert repeats(pair.endpoint.attempts) == []


async def test_a_listener_that_slept_through_its_lease_stays_behind(pair: Pair) -> None:
    """SIGSTOP is a machine that hangs: nobody can see that it is not dead, and it wakes up in the middle of a send."""
    await pair.start()
    async with pair.writers.running():
        for _ in range(2):
            await pair.writers.progress(200)
            pair.active.send(signal.SIGSTOP)
            # What was on its way when it stopped still arrives.
            await asyncio.sleep(0.5)
            await pair.endpoint.accepts(1, TAKEOVER_SECONDS)
            pair.active.send(signal.SIGCONT)
            await poll(pair.standby.forwards)
            await poll(pair.active.stands_by, 20)
            await pair.writers.progress(200)
            pair.active, pair.standby = pair.standby, pair.active
    await pair.hold()


async def test_stopped_while_it_waits_for_the_database_it_releases_its_lease(
    tmp_path: Path,
    mortal_postgres: EmbeddedPostgres,
    mortal_database: Database,
    http_receiver: HttpReceiver,
    make_listener: MakeListener,
) -> None:
    """It has waited for some seconds between two attempts by then; the database is back when it is told to end."""
    manifest = write_manifest(tmp_path / "back.yaml", http_sink(http_receiver.url, timeout=60))
    await mortal_database.execute(TABLES)
    await apply(manifest, mortal_database.dsn)
    listener = make_listener(manifest, mortal_database.dsn)
    listener.start()
    await poll(listener.forwards, 20)
    await asyncio.to_thread(mortal_postgres.kill)
    # Pauses: 0.25 s, doubled up to 5 s.
    await asyncio.sleep(9)
    await asyncio.to_thread(mortal_postgres.start)
    assert await listener.terminate() == 0
    (cursor,) = await mortal_database.execute("SELECT min(relname) FROM pg_class WHERE relname ~ '^cursor_.*_0$'")
    (lease,) = await mortal_database.execute(
        f"SELECT expires_at = '-infinity' FROM tablewatcher.{cursor[0]} ORDER BY epoch DESC, n DESC LIMIT 1"
    )
    assert lease == (True,)
