"""How fast events leave: a backlog, transactions as they come, single rows, into JetStream and over HTTP."""

from __future__ import annotations

import asyncio
import contextlib
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import nats
import psycopg
from stage import INSERT, INSERT_MANY, Stage, memory_megabytes, new_stream, processor_seconds, stored, wait_until

Figures = dict[str, float]


def drain(stage: Stage, rows: int) -> Figures:
    """Rows a second from a backlog into JetStream, every one acknowledged, one listener."""

    async def measure() -> Figures:
        await new_stream(stage)
        client = await nats.connect(stage.nats.url)
        with stage.applied():
            stage.sql(f"{INSERT_MANY} FROM generate_series(1, {rows}) g")
            with stage.listener() as listener:
                while (before := await stored(client)) == 0:  # noqa: ASYNC110 - another process is waited for
                    await asyncio.sleep(0.01)
                started, used = time.perf_counter(), processor_seconds(listener.pid)
                while await stored(client) < rows:  # noqa: ASYNC110 - another process is waited for
                    await asyncio.sleep(0.02)
                taken = time.perf_counter() - started
                used = processor_seconds(listener.pid) - used
                peak = memory_megabytes(listener.pid, "VmHWM")
        await client.close()
        count = rows - before
        return {
            "rows_per_second": count / taken,
            "listener_processor_us_per_event": used / count * 1e6,
            "listener_peak_mb": peak,
        }

    return asyncio.run(measure())


def live(stage: Stage, rows: int) -> Figures:
    """Rows a second while transactions of 1,000 rows are committed one after the other, until all are stored."""

    async def measure() -> float:
        await new_stream(stage)
        client = await nats.connect(stage.nats.url)
        with stage.applied(), stage.listener():
            with psycopg.connect(stage.dsn, autocommit=True) as warm:
                while await stored(client) == 0:
                    warm.execute(INSERT.encode())
                    await asyncio.sleep(0.1)
            before, started = await stored(client), time.perf_counter()
            async with await psycopg.AsyncConnection.connect(stage.dsn, autocommit=True) as writer:
                for _ in range(rows // 1000):
                    await writer.execute(f"{INSERT_MANY} FROM generate_series(1, 1000) g".encode())
            while await stored(client) < before + rows:  # noqa: ASYNC110 - another process is waited for
                await asyncio.sleep(0.01)
            taken = time.perf_counter() - started
        await client.close()
        return rows / taken

    return {"rows_per_second": asyncio.run(measure())}


def latency(stage: Stage, seconds: int, per_second: int) -> Figures:
    """Milliseconds from the commit's acknowledgement to a JetStream subscriber, at a steady rate of single rows."""

    async def measure() -> list[float]:
        await new_stream(stage)
        client = await nats.connect(stage.nats.url)
        arrived: dict[int, float] = {}
        committed: dict[int, float] = {}

        async def note(message: nats.aio.msg.Msg) -> None:
            now = time.perf_counter()
            arrived[json.loads(message.data)["data"]["key"]["id"]] = now

        await client.subscribe("bench.>", cb=note)
        with stage.applied(), stage.listener():
            async with await psycopg.AsyncConnection.connect(stage.dsn, autocommit=True) as connection:
                while not arrived:
                    await connection.execute(INSERT.encode())
                    await asyncio.sleep(0.05)
                await asyncio.sleep(1)
                start = time.perf_counter()
                for nth in range(seconds * per_second):
                    await asyncio.sleep(max(start + nth / per_second - time.perf_counter(), 0))
                    cursor = await connection.execute(f"{INSERT} RETURNING id".encode())
                    now = time.perf_counter()
                    row = await cursor.fetchone()
                    assert row is not None
                    committed[row[0]] = now
                while not committed.keys() <= arrived.keys():  # noqa: ASYNC110 - another process is waited for
                    await asyncio.sleep(0.05)
        await client.close()
        return [(arrived[key] - committed[key]) * 1000 for key in committed]

    found = sorted(asyncio.run(measure()))
    return {"p50_ms": statistics.median(found), "p99_ms": found[int(len(found) * 0.99)]}


def http(stage: Stage, rows: int) -> Figures:
    """Events a second from a backlog over HTTP: one a request, and 500 a request."""
    single = _http_once(stage, rows // 4, "concurrency: 16")
    batched = _http_once(stage, rows, "concurrency: 16, batch: {maxEvents: 500}")
    return {"requests_per_second": single, "batched_events_per_second": batched}


def _http_once(stage: Stage, rows: int, settings: str) -> float:
    with _receiver() as (port, counts):
        sink = f'http: {{url: "http://127.0.0.1:{port}/", {settings}}}'
        with stage.applied(sink=sink):
            stage.sql(f"{INSERT_MANY} FROM generate_series(1, {rows}) g")
            with stage.listener():
                wait_until(lambda: counts() > 0)
                before, started = counts(), time.perf_counter()
                wait_until(lambda: counts() >= rows)
                return (rows - before) / (time.perf_counter() - started)


@contextlib.contextmanager
def _receiver() -> Iterator[tuple[int, Counting]]:
    command = [sys.executable, str(Path(__file__).with_name("receiver.py"))]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield int(process.stdout.readline()), Counting(process)
    finally:
        process.terminate()
        process.wait(10)


class Counting:
    """Events that a receiver has had by now."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def __call__(self) -> int:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline().split()[1])
