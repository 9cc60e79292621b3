"""`make bench`: the figures of the README, each beside its anchor measured in the same run.

Not a test: nothing here fails for being slow. Ratios of one run are worth more than absolute times, since the load,
the database, the broker and the listener share one machine.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import nats
import psycopg
from nats.js.api import StreamConfig
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from tablewatcher.embedded import EmbeddedNats, EmbeddedPostgres, free_port

NOTIFY_PER_ROW = """
CREATE FUNCTION notify_row() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN PERFORM pg_notify('bench', json_build_object('id', NEW.id, 'status', NEW.status)::text); RETURN NULL; END $$;
CREATE TRIGGER notify_row AFTER INSERT ON bench FOR EACH ROW EXECUTE FUNCTION notify_row();
"""
TABLE = """
DROP TABLE IF EXISTS bench CASCADE; DROP FUNCTION IF EXISTS notify_row;
CREATE TABLE bench (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, customer_id bigint, status text, total numeric,
                    note text);
"""
INSERT = (
    "INSERT INTO bench (customer_id, status, total, note)"
    " VALUES (1, 'new', 9.5, 'a note of some forty characters, more')"
)
MANIFEST = """
apiVersion: tablewatcher.io/v1alpha1
kind: TableWatcher
metadata: {{name: bench, namespace: bench}}
spec:
  table: {{name: bench}}
  actions: [insert, update, delete]
  columns: [status, total]
  sink: {{nats: {{servers: ["{url}"], subject: "bench.{{table}}.{{action}}", jetStream: {{stream: BENCH}}}}}}
"""


@dataclass
class Bench:
    """Servers and files of one run."""

    directory: Path
    postgres: EmbeddedPostgres
    nats: EmbeddedNats

    @property
    def dsn(self) -> str:
        return self.postgres.dsn()

    @property
    def manifest(self) -> Path:
        path = self.directory / "bench.yaml"
        path.write_text(MANIFEST.format(url=self.nats.url))
        return path

    def sql(self, text: str) -> None:
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            connection.execute(text.encode())

    def tablewatcher(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "tablewatcher.cli", *arguments, "-f", str(self.manifest), "--dsn", self.dsn]

    def apply(self) -> None:
        subprocess.run(self.tablewatcher("apply"), check=True, stdout=subprocess.DEVNULL)

    def destroy(self) -> None:
        subprocess.run(self.tablewatcher("destroy"), check=True, stdout=subprocess.DEVNULL)

    @contextmanager
    def listener(self) -> Iterator[subprocess.Popen[bytes]]:
        log = (self.directory / "listener.log").open("ab")
        process = subprocess.Popen(self.tablewatcher("listen", "--http-port", str(free_port())), stderr=log)
        try:
            yield process
        finally:
            process.terminate()
            process.wait(30)

    def pgbench(self, clients: int, seconds: int) -> float:
        """Commits a second of single-row inserts."""
        script = self.directory / "insert.sql"
        script.write_text(INSERT + ";\n")
        command = [
            self.postgres.bin / "pgbench",
            "-n",
            "-c",
            str(clients),
            "-j",
            "2",
            "-T",
            str(seconds),
            "-f",
            script,
            self.dsn,
        ]
        out = subprocess.run(list(map(str, command)), check=True, capture_output=True, text=True).stdout
        found = re.search(r"tps = ([\d.]+)", out)
        assert found is not None, out
        return float(found[1])


async def _stream(bench: Bench) -> None:
    client = await nats.connect(bench.nats.url)
    stream = client.jetstream()
    if "BENCH" in [found.config.name for found in await stream.streams_info()]:
        await stream.delete_stream("BENCH")
    await stream.add_stream(StreamConfig(name="BENCH", subjects=["bench.>"]))
    await client.close()


async def _stored(client: nats.NATS) -> int:
    return (await client.jetstream().stream_info("BENCH")).state.messages


def drain(bench: Bench, rows: int) -> dict[str, float]:
    """Rows a second from a backlog into JetStream, every one acknowledged, one listener."""

    async def measure() -> float:
        await _stream(bench)
        bench.sql(TABLE)
        bench.apply()
        bench.sql(
            "INSERT INTO bench (customer_id, status, total, note)"
            f" SELECT g, 'new', g, 'a note of some forty characters, more' FROM generate_series(1, {rows}) g"
        )
        client = await nats.connect(bench.nats.url)
        with bench.listener():
            while await _stored(client) == 0:  # noqa: ASYNC110 - another process is waited for
                await asyncio.sleep(0.01)
            started, before = time.perf_counter(), await _stored(client)
            while (seen := await _stored(client)) < rows:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
            taken = time.perf_counter() - started
        await client.close()
        bench.destroy()
        return (seen - before) / taken

    return {"rows_per_second": asyncio.run(measure())}


def latency(bench: Bench, seconds: int, per_second: int) -> dict[str, float]:
    """Milliseconds from the commit's acknowledgement to a JetStream subscriber, at a steady rate of single rows."""

    async def measure() -> list[float]:
        await _stream(bench)
        bench.sql(TABLE)
        bench.apply()
        client = await nats.connect(bench.nats.url)
        arrived: dict[int, float] = {}
        committed: dict[int, float] = {}

        async def note(message: nats.aio.msg.Msg) -> None:
            now = time.perf_counter()
            arrived[json.loads(message.data)["data"]["key"]["id"]] = now

        await client.subscribe("bench.>", cb=note)
        with bench.listener():
            async with await psycopg.AsyncConnection.connect(bench.dsn, autocommit=True) as connection:
                await _until(lambda: bool(arrived), lambda: connection.execute(INSERT))
                await asyncio.sleep(1)
                start = time.perf_counter()
                for nth in range(seconds * per_second):
                    await asyncio.sleep(max(start + nth / per_second - time.perf_counter(), 0))
                    cursor = await connection.execute(INSERT + " RETURNING id")
                    now = time.perf_counter()
                    row = await cursor.fetchone()
                    assert row is not None
                    committed[row[0]] = now
                await _until(lambda: committed.keys() <= arrived.keys(), lambda: asyncio.sleep(0.05))
        await client.close()
        bench.destroy()
        return [(arrived[key] - committed[key]) * 1000 for key in committed]

    found = sorted(asyncio.run(measure()))
    return {"p50_ms": statistics.median(found), "p99_ms": found[int(len(found) * 0.99)]}


async def _until(done: Callable[[], bool], step: Callable[[], object]) -> None:
    deadline = time.perf_counter() + 30
    while not done():
        assert time.perf_counter() < deadline, "nothing arrived within 30 s"
        await step()  # type: ignore[misc]
        await asyncio.sleep(0.05)


def writers(bench: Bench, seconds: int, rounds: int, clients: tuple[int, ...]) -> dict[str, float]:
    """Single-row commits a second: bare table, NOTIFY in a row trigger, captured with the listener running."""
    rates: dict[tuple[str, int], list[float]] = {}
    for _ in range(rounds):
        for shape in ("bare", "notify", "captured"):
            bench.sql(TABLE + (NOTIFY_PER_ROW if shape == "notify" else ""))
            asyncio.run(_stream(bench))
            for count in clients:
                rates.setdefault((shape, count), []).append(_writers_once(bench, shape, count, seconds))
    found = {f"{shape}_{count}": statistics.median(values) for (shape, count), values in rates.items()}
    for count in clients:
        for shape in ("notify", "captured"):
            pairs = zip(rates[shape, count], rates["bare", count], strict=True)
            found[f"{shape}_of_bare_{count}"] = statistics.median(mine / bare for mine, bare in pairs)
    return found


def _writers_once(bench: Bench, shape: str, clients: int, seconds: int) -> float:
    if shape == "notify":
        with psycopg.connect(bench.dsn, autocommit=True) as listening:
            listening.execute("LISTEN bench")
            return bench.pgbench(clients, seconds)
    if shape == "bare":
        return bench.pgbench(clients, seconds)
    bench.apply()
    try:
        with bench.listener():
            time.sleep(1.5)  # the listener's own start is not what is measured
            return bench.pgbench(clients, seconds)
    finally:
        bench.destroy()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", nargs="*", default=["drain", "latency", "writers"])
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--seconds", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args()
    runs: dict[str, Callable[[Bench], dict[str, float]]] = {
        "drain": lambda bench: drain(bench, options.rows),
        "latency": lambda bench: latency(bench, 2 * options.seconds, 100),
        "writers": lambda bench: writers(bench, options.seconds, options.rounds, (1, 8, 32)),
    }
    console, figures = Console(), {}
    with tempfile.TemporaryDirectory(prefix="tablewatcher-bench-") as name:
        directory = Path(name)
        settings = {"shared_buffers": "256MB", "max_wal_size": "4GB"}
        with (
            EmbeddedPostgres(directory / "postgres", settings=settings) as postgres,
            EmbeddedNats(directory / "nats") as broker,
            Progress(console=console, transient=True) as progress,
        ):
            bench = Bench(directory, postgres, broker)
            for what in progress.track(options.what, description="measuring"):
                figures[what] = runs[what](bench)
    table = Table("what", "figure", "value")
    for what, found in figures.items():
        for figure, value in found.items():
            table.add_row(what, figure, f"{value:,.2f}" if value < 100 else f"{value:,.0f}")
    console.print(table)
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
