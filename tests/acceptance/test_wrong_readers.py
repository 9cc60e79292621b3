"""The loss test catches readers that are wrong: under the very writers and checker that the engine passes."""

from __future__ import annotations

from pathlib import Path

from tablewatcher.naming import LOCAL_INSTANCE, watcher_names

from ..conftest import Database, Stream, poll
from .arrivals import streamed_all
from .checker import Kind, Outcome, check
from .conftest import MakeListener
from .listeners import apply, nats_sink, write_manifest
from .writers import TABLES, Writers
from .wrong_readers import WrongReader


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


async def test_wrong_readers_are_caught(
    tmp_path: Path, database: Database, stream: Stream, make_listener: MakeListener
) -> None:
    manifest = write_manifest(tmp_path / "compared.yaml", nats_sink(stream.url, stream.prefix))
    await database.execute(TABLES)
    await apply(manifest, database.dsn)
    rings = watcher_names(LOCAL_INSTANCE, "faults", manifest.stem).rings
    by_id, by_horizon = WrongReader.by_id(database.dsn, rings), WrongReader.by_horizon(database.dsn, rings)
    listener, writers = make_listener(manifest, database.dsn), Writers(database.dsn, seed=21)
    listener.start()
    async with by_id.running(), by_horizon.running():
        # Before the others write: in their midst the reader by id may well lose what these two wait for.
        await late_commit(writers, by_id)
        await crossed_order(writers)
        async with writers.running():
            await writers.progress(800)
        await writers.resolve()
        newest = await database.execute(
            " UNION ALL ".join(
                f"SELECT max(id + coalesce(cardinality(bodies), 1) - 1) FROM tablewatcher.{n}" for n in rings
            )
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
