"""Servers, tables and manifests of one run of the benchmark, and what is read off processes."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import nats
import psycopg
from nats.aio.client import Client
from nats.js.api import StreamConfig

from tablewatcher.embedded import EmbeddedNats, EmbeddedPostgres, free_port

STREAM = "BENCH"
TABLE = """
DROP TABLE IF EXISTS bench CASCADE; DROP TABLE IF EXISTS bench_log; DROP FUNCTION IF EXISTS bench_row;
CREATE TABLE bench (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, customer_id bigint, status text, total numeric,
                    note text);
"""
NOTE = "a note of some forty characters, more"
INSERT = f"INSERT INTO bench (customer_id, status, total, note) VALUES (1, 'new', 9.5, '{NOTE}')"
INSERT_MANY = f"INSERT INTO bench (customer_id, status, total, note) SELECT g, 'new', g, '{NOTE}'"
_TICK = os.sysconf("SC_CLK_TCK")


def to_nats(url: str) -> str:
    """A sink for a manifest."""
    return f'nats: {{servers: ["{url}"], subject: "bench.{{table}}.{{action}}", jetStream: {{stream: {STREAM}}}}}'


@dataclass
class Stage:
    """Servers and files of one run."""

    directory: Path
    postgres: EmbeddedPostgres
    nats: EmbeddedNats

    @property
    def dsn(self) -> str:
        return self.postgres.dsn()

    def sql(self, text: str) -> None:
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            connection.execute(text.encode())

    def manifest(self, name: str = "bench", *, sink: str | None = None) -> Path:
        """A manifest that watches table `name`, in a directory with the others of this run."""
        place = self.directory / "manifests"
        place.mkdir(exist_ok=True)
        path = place / f"{name}.yaml"
        path.write_text(
            "apiVersion: tablewatcher.io/v1alpha1\nkind: TableWatcher\n"
            f"metadata: {{name: {name}, namespace: bench}}\n"
            f"spec:\n  table: {{name: {name}}}\n  actions: [insert, update, delete]\n  columns: [status, total]\n"
            f"  sink: {{{sink or to_nats(self.nats.url)}}}\n"
        )
        return path

    def command(self, *arguments: str) -> list[str]:
        manifests = str(self.directory / "manifests")
        return [sys.executable, "-m", "tablewatcher.cli", *arguments, "-f", manifests, "--dsn", self.dsn]

    @contextlib.contextmanager
    def applied(self, *, sink: str | None = None) -> Iterator[None]:
        """The table `bench`, empty, captured."""
        self.sql(TABLE)
        path = self.manifest(sink=sink)
        subprocess.run(self.command("apply"), check=True, stdout=subprocess.DEVNULL)
        try:
            yield
        finally:
            subprocess.run(self.command("destroy"), check=True, stdout=subprocess.DEVNULL)
            path.unlink()

    @contextlib.contextmanager
    def listener(self) -> Iterator[subprocess.Popen[bytes]]:
        with (self.directory / "listener.log").open("ab") as log:
            process = subprocess.Popen(self.command("listen", "--http-port", str(free_port())), stderr=log)
        try:
            yield process
        finally:
            process.terminate()
            process.wait(30)

    def pgbench(self, script: str, clients: int, seconds: int) -> float:
        """Transactions of `script` a second."""
        path = self.directory / "pgbench.sql"
        path.write_text(script + ";\n")
        command = [self.postgres.bin / "pgbench", "-n", "-c", clients, "-j", 2, "-T", seconds, "-f", path, self.dsn]
        out = subprocess.run(list(map(str, command)), check=True, capture_output=True, text=True).stdout
        found = re.search(r"tps = ([\d.]+)", out)
        assert found is not None, out
        return float(found[1])


async def new_stream(stage: Stage) -> None:
    """An empty stream that takes batches."""
    client = await nats.connect(stage.nats.url)
    stream = client.jetstream()
    with contextlib.suppress(nats.js.errors.NotFoundError):
        await stream.delete_stream(STREAM)
    await stream.add_stream(StreamConfig(name=STREAM, subjects=["bench.>"], allow_batched=True))
    await client.close()


async def stored(client: Client) -> int:
    """Messages in the stream."""
    messages: int = (await client.jetstream().stream_info(STREAM)).state.messages
    return messages


def wait_until(done: Callable[[], bool], *, seconds: float = 120.0) -> None:
    """Waits for another process, and not for ever."""
    deadline = time.perf_counter() + seconds
    while not done():
        assert time.perf_counter() < deadline, f"not within {seconds} s"
        time.sleep(0.02)


def processor_seconds(pid: int) -> float:
    """Seconds of processor time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICK


def memory_megabytes(pid: int, field: str = "VmRSS") -> float:
    """Resident memory now, or its peak (VmHWM)."""
    found = re.search(rf"^{field}:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1]) / 1024
