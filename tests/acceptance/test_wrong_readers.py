"""The loss test catches readers that are wrong: under the very writers and checker that the engine passes."""

from __future__ import annotations

from pathlib import Path

from tablewatcher.naming import LOCAL_INSTANCE, watcher_names
from tablewatcher.postgres.quoting import ours
from tablewatcher.postgres.ring.chunks import LAST_ID

from ..conftest import Database, Stream, poll
from .arrivals import streamed, streamed_all
from .checker import Kind, Outcome, check
from .conftest import Forwarding
from .listeners import nats_sink, write_manifest
from .writers import TABLES, Writers
from .wrong_readers import QUEUE, SkipLocked, WrongReader

# Written under the old snapshot.
ROWS = 2000


async def late_commit(writers: Writers, reader: WrongReader) -> None:
    """A transaction draws its id, another one begins, commits and is read; then the first commits."""
    async with await writers.connect() as early, await writers.connect() as quick:
        first, second = writers.open(early), writers.open(quick)
        await early.execute("BEGIN")
        await first.put(["late"])
        await quick.execute("BEGIN")
        await second.put(["passes"])
        await quick.execute("COMMIT")
        second.settle(Outcome.OK)
        await poll(lambda: reader.has("passes"), 40)
        await early.execute("COMMIT")
        first.settle(Outcome.OK)


async def crossed_order(writers: Writers) -> None:
    """The transaction that began first is the last to change the row."""
    async with await writers.connect() as early, await writers.connect() as quick:
        first, second = writers.open(early), writers.open(quick)
        await early.execute("BEGIN")
        await first.put(["aside"])
        await quick.execute("BEGIN")
        await second.put(["crossed"])
        await quick.execute("COMMIT")
        second.settle(Outcome.OK)
        await first.put(["crossed"])
        await early.execute("COMMIT")
        first.settle(Outcome.OK)


async def stalled(writers: Writers, reader: WrongReader, stream: Stream) -> None:
    """A transaction that touches nothing of ours stays open: the engine goes on, and the horizon does not."""
    async with await writers.connect() as unrelated, await writers.connect() as quick:
        await unrelated.execute("BEGIN")
        await unrelated.execute("SELECT pg_current_xact_id()")
        change = writers.open(quick)
        await quick.execute("BEGIN")
        await change.put(["behind"])
        await quick.execute("COMMIT")
        change.settle(Outcome.OK)
        await poll(lambda: has_arrived(stream, "behind"), 40)
        goal = reader.looks + 20
        await poll(lambda: reader.looks >= goal, 40)
        assert not reader.has("behind"), "it does not wait for transactions that began before"
        await unrelated.execute("COMMIT")
        await poll(lambda: reader.has("behind"), 40)


async def has_arrived(stream: Stream, key: str) -> bool:
    return any(found.key == key for found in await streamed(stream))


async def overtaken(writers: Writers, workers: SkipLocked) -> None:
    """One worker is slow to send the first change of a row, the other sends the second one."""
    released = workers.slow_on("overtaken")
    async with await writers.connect() as connection:
        for _ in range(2):
            change = writers.open(connection)
            await connection.execute("BEGIN")
            await change.put(["overtaken"])
            await connection.execute("COMMIT")
            change.settle(Outcome.OK)
            await poll(lambda: not workers.is_slow_on("overtaken"), 40)
    await poll(lambda: workers.has("overtaken"), 40)
    released.set()


async def test_wrong_readers_are_caught(
    tmp_path: Path, database: Database, stream: Stream, forwarding: Forwarding
) -> None:
    manifest = write_manifest(tmp_path / "compared.yaml", nats_sink(stream.url, stream.prefix))
    await forwarding(manifest, database)
    rings = watcher_names(LOCAL_INSTANCE, "faults", manifest.stem).rings
    by_id, by_horizon = WrongReader.by_id(database.dsn, rings), WrongReader.by_horizon(database.dsn, rings)
    writers = Writers(database.dsn, seed=21)
    async with by_id.running(), by_horizon.running():
        # Before the others write: in their midst the reader by id may well lose what these two wait for.
        await late_commit(writers, by_id)
        await crossed_order(writers)
        await stalled(writers, by_horizon, stream)
        async with writers.running():
            await writers.progress(800)
        await writers.resolve()
        newest = await database.execute(
            " UNION ALL ".join(f"SELECT max({LAST_ID}) FROM {ours(name)}" for name in rings)
        )
        await poll(lambda: by_id.last_id == max(found or 0 for (found,) in newest), 40)
        await poll(lambda: writers.history.ok <= {found.change for found in by_horizon.arrivals}, 40)
    arrivals = await streamed_all(stream, writers.history.ok)
    assert check(writers.history, arrivals) == []
    lost = check(writers.history, by_id.arrivals)
    assert {found.kind for found in lost} == {Kind.LOSS}
    assert "late" in {found.change[0] for found in lost}
    misordered = check(writers.history, by_horizon.arrivals)
    assert {found.kind for found in misordered} == {Kind.ORDER}
    assert "crossed" in {found.change[0] for found in misordered}


async def test_workers_on_a_queue_are_caught(
    tmp_path: Path, database: Database, stream: Stream, forwarding: Forwarding
) -> None:
    manifest = write_manifest(tmp_path / "queued.yaml", nats_sink(stream.url, stream.prefix))
    await forwarding(manifest, database, TABLES + QUEUE)
    workers, writers = SkipLocked(database.dsn), Writers(database.dsn, seed=22)
    async with workers.running():
        await overtaken(writers, workers)
        async with writers.running():
            await writers.progress(400)
        await writers.resolve()
        await poll(lambda: writers.history.ok <= {found.change for found in workers.arrivals}, 40)
    arrivals = await streamed_all(stream, writers.history.ok)
    assert check(writers.history, arrivals) == []
    misordered = check(writers.history, workers.arrivals)
    assert {found.kind for found in misordered} == {Kind.ORDER}
    assert "overtaken" in {found.change[0] for found in misordered}


async def test_a_queue_fills_with_dead_rows_under_an_old_snapshot_and_the_ring_does_not(
    tmp_path: Path, database: Database, stream: Stream, forwarding: Forwarding
) -> None:
    manifest = write_manifest(tmp_path / "bloated.yaml", nats_sink(stream.url, stream.prefix))
    await forwarding(manifest, database, TABLES + QUEUE)
    workers = SkipLocked(database.dsn)
    async with workers.running(), await database.connect() as old:
        await old.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        await old.execute("SELECT count(*) FROM queue")
        for first in range(0, ROWS, 100):
            await database.execute(
                "INSERT INTO account (key, version) SELECT 'row-' || n, n FROM generate_series(%s::int, %s::int) AS n",
                first,
                first + 99,
            )
        await poll(lambda: len(workers.arrivals) == ROWS, 40)

        async def all_arrived() -> bool:
            return await stream.count() == ROWS

        await poll(all_arrived, 40)

        async def all_dead() -> bool:
            return await dead_rows(database, "queue") == ROWS

        await poll(all_dead, 40)
        assert await dead_rows(database, "tablewatcher") < ROWS / 20


async def dead_rows(database: Database, place: str) -> int:
    """Rows that nobody new can see and VACUUM may not remove yet, of a table or of all in a schema."""
    tables = await database.execute(
        "SELECT oid::regclass::text, oid::bigint FROM pg_class WHERE relkind = 'r'"
        " AND (relname = %s OR relnamespace = to_regnamespace(%s))",
        place,
        place,
    )
    for name, _ in tables:
        await database.execute(f"VACUUM ANALYZE {name}")
    found = [await database.execute("SELECT pg_stat_get_dead_tuples(%s::bigint::oid)", oid) for _, oid in tables]
    return sum(int(rows[0][0]) for rows in found)
