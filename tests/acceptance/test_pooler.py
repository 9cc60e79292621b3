"""Two listeners behind a PgBouncer by transaction with few server connections, and all that may go wrong there."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from ..conftest import Database, HttpReceiver, poll
from ..pgbouncer import PgBouncer
from .arrivals import Endpoint
from .checker import check
from .conftest import MakeListener
from .listeners import Listener, apply, http_sink, write_manifest
from .pairs import roles
from .writers import TABLES, Writers

# A lease, the sink's timeout, a look of the standby, and much for a busy machine.
TAKEOVER_SECONDS = 40


async def says(listener: Listener, wanted: str, words: str) -> bool:
    _, reason, message = await listener.state()
    return reason == wanted and words in message


@pytest.mark.timeout(240)
async def test_a_pooler_loses_nothing(
    tmp_path: Path,
    server_directory: Path,
    database: Database,
    http_receiver: HttpReceiver,
    make_listener: MakeListener,
) -> None:
    endpoint, writers = Endpoint(http_receiver), Writers(database.dsn, count=5, seed=16)
    manifest = write_manifest(tmp_path / "pooled.yaml", http_sink(endpoint.url, 2))
    await database.execute(TABLES)
    with PgBouncer(server_directory / "pooler", database.server, "transaction") as pooler:
        dsn = pooler.dsn(database.name, database.server.password)
        await apply(manifest, dsn)
        active, standby = (make_listener(manifest, dsn) for _ in range(2))
        active.start()
        await poll(active.forwards, 40)
        await poll(lambda: says(active, "Forwarding", "by polling"), 40)
        standby.start()
        await poll(standby.stands_by, 40)
        async with writers.running():
            await writers.progress(200)
            pooler.stop()
            for listener in (active, standby):
                await poll(lambda listener=listener: says(listener, "DatabaseUnreachable", ""), 40)
            await writers.progress(50)
            pooler.start()
            # Whoever comes first, where the lease has run out meanwhile.
            active, standby = await poll(lambda: roles((active, standby)), 40)
            await endpoint.accepts(50, 40)
            # Nobody can see that it is not dead: only its lease tells.
            active.send(signal.SIGSTOP)
            await poll(standby.forwards, TAKEOVER_SECONDS)
            await endpoint.accepts(50, 40)
            active.send(signal.SIGCONT)
            await poll(active.stands_by, 40)
            await standby.kill()
            await poll(active.forwards, TAKEOVER_SECONDS)
            await writers.progress(100)
        await writers.resolve()
        accepted = await endpoint.accepted_all(writers.history.ok)
        assert check(writers.history, accepted) == []
        assert writers.faults == []
        # No writer was ever asked to notify.
        ((sequence,),) = await database.execute("SELECT relname FROM pg_class WHERE relname LIKE 'wake\\_%'")
        assert await database.execute(f"SELECT last_value FROM tablewatcher.{sequence}") == [(0,)]
        assert await active.terminate() == 0
