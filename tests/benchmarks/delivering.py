"""How fast events leave: a backlog, transactions as they come, single rows, into JetStream and over HTTP.

Each beside what people make by hand (`anchors.py`), in turns; figures are medians of the rounds, ratios those of the
ratios of each round.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import nats
import psycopg
from anchors import (
    SHAPES,
    floor_megabytes,
    in_thousands,
    notified_after,
    notified_live,
    paced,
    relayed_drain,
    relayed_live,
    relaying,
)
from nats.aio.msg import Msg
from stage import (
    INSERT,
    INSERT_MANY,
    TABLE,
    Stage,
    memory_megabytes,
    new_stream,
    processor_seconds,
    stored,
    wait_until,
)

Figures = dict[str, float]
# What is made by hand is several times slower, and a rate is a rate.
FEWER = 4


def drain(stage: Stage, rows: int, rounds: int) -> Figures:
    """Rows a second from a backlog into JetStream, every one acknowledged, one listener."""
    found = []
    for _ in range(rounds):
        mine = asyncio.run(_drained(stage, rows))
        theirs = asyncio.run(relayed_drain(stage, rows // FEWER))
        compared = {"log_rows_per_second": theirs, "of_log": mine["rows_per_second"] / theirs}
        found.append(mine | compared | _beside_floor("listener_peak_mb", mine["listener_peak_mb"]))
    return _medians(found)


def _beside_floor(name: str, megabytes: float) -> Figures:
    floor = floor_megabytes()
    return {"floor_mb": floor, f"{name}_of_floor": megabytes / floor}


def _medians(found: Sequence[Figures]) -> Figures:
    return {name: statistics.median(each[name] for each in found) for name in found[0]}


async def _drained(stage: Stage, rows: int) -> Figures:
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


def live(stage: Stage, rows: int, rounds: int) -> Figures:
    """Rows a second while transactions of 1,000 rows are committed one after the other, until all are stored."""
    found = []
    for _ in range(rounds):
        mine = asyncio.run(_lived(stage, rows))
        notify = asyncio.run(notified_live(stage, rows // FEWER))
        log = asyncio.run(relayed_live(stage, rows // FEWER))
        rates = {"rows_per_second": mine, "notify_rows_per_second": notify, "log_rows_per_second": log}
        found.append(rates | {"of_notify": mine / notify, "of_log": mine / log})
    return _medians(found)


async def _lived(stage: Stage, rows: int) -> float:
    await new_stream(stage)
    client = await nats.connect(stage.nats.url)
    with stage.applied(), stage.listener():
        with psycopg.connect(stage.dsn, autocommit=True) as warm:
            while await stored(client) == 0:
                warm.execute(INSERT.encode())
                await asyncio.sleep(0.1)
        before, started = await stored(client), time.perf_counter()
        await in_thousands(stage.dsn, rows)
        while await stored(client) < before + rows:  # noqa: ASYNC110 - another process is waited for
            await asyncio.sleep(0.01)
        taken = time.perf_counter() - started
    await client.close()
    return rows / taken


def latency(stage: Stage, seconds: int, per_second: int, rounds: int) -> Figures:
    """Milliseconds from the commit's acknowledgement to a JetStream subscriber, at a steady rate of single rows; and to
    a connection that is notified, and to the subscriber by way of a log table."""
    found = []
    for _ in range(rounds):
        mine = _p50_p99("", asyncio.run(_delivered_after(stage, seconds, per_second)))
        notify = _p50_p99("notify_", asyncio.run(notified_after(stage, seconds, per_second)))
        log = _p50_p99("log_", asyncio.run(_relayed_after(stage, seconds, per_second)))
        ratios = {f"{p}_of_log": mine[f"{p}_ms"] / log[f"log_{p}_ms"] for p in ("p50", "p99")}
        found.append(mine | notify | log | ratios)
    return _medians(found)


def _p50_p99(shape: str, milliseconds: list[float]) -> Figures:
    ordered = sorted(milliseconds)
    return {f"{shape}p50_ms": statistics.median(ordered), f"{shape}p99_ms": ordered[int(len(ordered) * 0.99)]}


async def _delivered_after(stage: Stage, seconds: int, per_second: int) -> list[float]:
    await new_stream(stage)
    with stage.applied(), stage.listener():
        return await _subscribed_after(stage, seconds, per_second, lambda data: int(data["key"]["id"]))


async def _relayed_after(stage: Stage, seconds: int, per_second: int) -> list[float]:
    await new_stream(stage)
    stage.sql(TABLE + SHAPES["log"])
    with relaying(stage, stage.nats.url):
        return await _subscribed_after(stage, seconds, per_second, lambda data: int(data["id"]))


async def _subscribed_after(
    stage: Stage, seconds: int, per_second: int, key: Callable[[dict[str, Any]], int]
) -> list[float]:
    client = await nats.connect(stage.nats.url)
    arrived: dict[int, float] = {}

    async def note(message: Msg) -> None:
        now = time.perf_counter()
        arrived[key(json.loads(message.data)["data"])] = now

    await client.subscribe("bench.>", cb=note)
    async with await psycopg.AsyncConnection.connect(stage.dsn, autocommit=True) as connection:
        while not arrived:
            await connection.execute(INSERT.encode())
            await asyncio.sleep(0.05)
        await asyncio.sleep(1)
        committed = await paced(connection, seconds, per_second)
        while not committed.keys() <= arrived.keys():  # noqa: ASYNC110 - another process is waited for
            await asyncio.sleep(0.05)
    await client.close()
    return [(arrived[row] - at) * 1000 for row, at in committed.items()]


def http(stage: Stage, rows: int, rounds: int) -> Figures:
    """Events a second from a backlog over HTTP: one a request, and 500 a request."""
    found = []
    for _ in range(rounds):
        single = _http_once(stage, rows // 4, "concurrency: 16")
        batched = _http_once(stage, rows, "concurrency: 16, batch: {maxEvents: 500}")
        log_single, log_batched = _http_relayed(stage, rows // 16, 1), _http_relayed(stage, rows // 2, 500)
        found.append(
            {
                "requests_per_second": single,
                "log_requests_per_second": log_single,
                "of_log": single / log_single,
                "batched_events_per_second": batched,
                "log_batched_events_per_second": log_batched,
                "batched_of_log": batched / log_batched,
            }
        )
    return _medians(found)


def _http_once(stage: Stage, rows: int, settings: str) -> float:
    with _receiver() as (port, counts):
        sink = f'http: {{url: "http://127.0.0.1:{port}/", {settings}}}'
        with stage.applied(sink=sink):
            stage.sql(f"{INSERT_MANY} FROM generate_series(1, {rows}) g")
            with stage.listener():
                return counts.rate(rows)


def _http_relayed(stage: Stage, rows: int, size: int) -> float:
    stage.sql(TABLE + SHAPES["log"] + f"{INSERT_MANY} FROM generate_series(1, {rows}) g")
    stage.sql("ANALYZE bench_log")
    with _receiver() as (port, counts), relaying(stage, f"http://127.0.0.1:{port}/", str(size)):
        return counts.rate(rows)


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

    def rate(self, rows: int) -> float:
        """Events a second, from the first to have come until there are `rows`."""
        wait_until(lambda: self() > 0)
        before, started = self(), time.perf_counter()
        wait_until(lambda: self() >= rows)
        return (rows - before) / (time.perf_counter() - started)
