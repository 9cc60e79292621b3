"""Transactions that somebody holds: prepared ones, a dump over the ring, and tampering that a listener sees itself."""

from __future__ import annotations

import time
from pathlib import Path

from ..conftest import Database, HttpReceiver, poll
from .arrivals import Endpoint
from .checker import check
from .conftest import Forwarding
from .full_ring import BOUND, all_accepted, flood, is_full
from .listeners import apply, http_sink, write_manifest
from .writers import Writers


async def test_prepared_transactions(
    tmp_path: Path, two_phase: Database, http_receiver: HttpReceiver, forwarding: Forwarding
) -> None:
    """A NOTIFY would make PREPARE fail, so writers are never asked for one here, however quiet it is."""
    endpoint = Endpoint(http_receiver)
    manifest = write_manifest(tmp_path / "two.yaml", http_sink(endpoint.url))
    await forwarding(manifest, two_phase)
    for nth in range(5):
        began = time.monotonic()
        await two_phase.execute(f"INSERT INTO account VALUES ('plain-{nth}', 1)")
        await poll(lambda nth=nth: len(endpoint.accepted) == 2 * nth + 1, 40, every=0.001)
        # Long enough that the listener has gone to sleep, and would have asked by now.
        await poll(lambda began=began: time.monotonic() - began > 0.2)
        await two_phase.execute(f"BEGIN; INSERT INTO account VALUES ('two-{nth}', 1); PREPARE TRANSACTION 'p{nth}'")
        await two_phase.execute(f"COMMIT PREPARED 'p{nth}'")
        await poll(lambda nth=nth: len(endpoint.accepted) == 2 * nth + 2, 40)
    assert [found.key for found in endpoint.accepted] == [
        f"{way}-{nth}" for nth in range(5) for way in ("plain", "two")
    ]


async def test_a_dump_that_runs_over_a_full_ring_is_named(
    tmp_path: Path, database: Database, http_receiver: HttpReceiver, forwarding: Forwarding
) -> None:
    """pg_dump locks every table of the schema until its end: the ring cannot be emptied, though all is delivered."""
    endpoint = Endpoint(http_receiver)
    manifest = write_manifest(
        tmp_path / "dumped.yaml", http_sink(endpoint.url, max_events=100), overflow={"maxBytes": BOUND}
    )
    listener, writers = await forwarding(manifest, database), Writers(database.dsn, seed=19, count=4)
    tables = await database.execute(
        "SELECT string_agg('tablewatcher.' || tablename, ', ') FROM pg_tables WHERE tablename LIKE 'ring%'"
    )
    async with await database.connect() as dump, writers.running():
        await dump.execute(f"BEGIN; LOCK TABLE {tables[0][0]} IN ACCESS SHARE MODE".encode())
        await flood(writers, 20_000)
        await poll(lambda: is_full(listener), 40)

        async def named() -> bool:
            return f"pid {dump.info.backend_pid}" in (await listener.state())[2]

        await poll(named, 40)
        await writers.progress(100)
        await dump.execute("COMMIT")
        await poll(listener.forwards, 40)
        await writers.progress(100)
    assert writers.faults == []
    await writers.resolve()
    await poll(lambda: endpoint.gaps, 40)
    accepted, excused = await all_accepted(database, endpoint, writers.history)
    assert check(writers.history, accepted, announced=excused) == []


async def test_a_listener_says_that_its_trigger_is_gone(
    tmp_path: Path, database: Database, http_receiver: HttpReceiver, forwarding: Forwarding
) -> None:
    endpoint = Endpoint(http_receiver)
    manifest = write_manifest(tmp_path / "drift.yaml", http_sink(endpoint.url))
    listener = await forwarding(manifest, database)
    await database.execute("ALTER TABLE account DISABLE TRIGGER USER")

    async def drifted() -> bool:
        ready, reason, message = await listener.state()
        return not ready and reason == "TriggersDrifted" and "apply" in message

    await poll(drifted, 40)
    assert await listener.metric("listener_connected") == 1, "that is no fault of lease or sink"
    await apply(manifest, database.dsn)
    await poll(lambda: endpoint.gaps, 40)
    assert endpoint.gaps[0]["reason"] == "triggerRepaired"
    await poll(listener.forwards, 40)
