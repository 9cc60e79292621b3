"""What writers keep of their speed, beside what people make by hand, in the same run."""

from __future__ import annotations

import asyncio
import contextlib
import statistics
import subprocess
import threading
import time
from collections.abc import Iterator

import psycopg
from anchors import SHAPES, relaying
from stage import INSERT, INSERT_MANY, TABLE, Stage, new_stream

Figures = dict[str, float]

# `log` has nobody who reads it; `relayed` has a relay, as what is captured has a listener.
TURNS = ("bare", "notify", "log", "relayed", "captured")

# How long a plain CREATE TRIGGER waits here; without a bound, it and all writers wait until the transaction ends.
PLAIN_SECONDS = 3
BULK = f"{INSERT_MANY} FROM generate_series(1, 10000) g"


def single_rows(stage: Stage, seconds: int, rounds: int, clients: tuple[int, ...]) -> Figures:
    """Single-row commits a second, by number of clients and shape; `captured` with the listener running."""
    return _compared(stage, rounds, {f"{count}": (INSERT, count, seconds) for count in clients})


def bulk(stage: Stage, seconds: int, rounds: int) -> Figures:
    """Statements of 10,000 rows a second."""
    return _compared(stage, rounds, {"10k": (BULK, 1, seconds)})


def _compared(stage: Stage, rounds: int, runs: dict[str, tuple[str, int, int]]) -> Figures:
    rates: dict[tuple[str, str], list[float]] = {}
    _warm(stage)
    for turn in range(rounds):
        # Each round begins with another shape: who comes first, or after whom, must not count.
        for shape in TURNS[turn % len(TURNS) :] + TURNS[: turn % len(TURNS)]:
            for name, (script, clients, seconds) in runs.items():
                with _shaped(stage, shape):
                    rates.setdefault((shape, name), []).append(stage.pgbench(script, clients, seconds))
    found = {f"{shape}_{name}": statistics.median(values) for (shape, name), values in rates.items()}
    for name in runs:
        compared = [(shape, "bare") for shape in TURNS[1:]] + [("captured", "relayed")]
        for shape, other in compared:
            pairs = zip(rates[shape, name], rates[other, name], strict=True)
            found[f"{shape}_of_{other}_{name}"] = statistics.median(mine / theirs for mine, theirs in pairs)
    return found


def _warm(stage: Stage) -> None:
    """Fills WAL segments and has them recycled: making them anew would cost whoever runs first a third of its speed."""
    stage.sql(TABLE + f"{INSERT_MANY} FROM generate_series(1, 4000000) g")
    stage.sql("DROP TABLE bench")
    stage.sql("CHECKPOINT")


@contextlib.contextmanager
def _shaped(stage: Stage, shape: str) -> Iterator[None]:
    asyncio.run(new_stream(stage))
    if shape == "captured":
        with stage.applied(), stage.listener():
            time.sleep(1.5)  # the listener's own start is not what is measured
            yield
        return
    stage.sql(TABLE + SHAPES["log" if shape == "relayed" else shape])
    if shape == "notify":
        with psycopg.connect(stage.dsn, autocommit=True) as listening:
            listening.execute("LISTEN bench")
            yield
    elif shape == "relayed":
        with relaying(stage, stage.nats.url):
            time.sleep(1.5)
            yield
    else:
        yield


def install(stage: Stage, seconds: float = 6.0) -> Figures:
    """The longest wait of a writer while capture is installed and another transaction on the table stays open, and
    while a plain CREATE TRIGGER waits for its lock as long as lock_timeout lets it."""
    path = stage.manifest()
    mine, code = _longest_wait(stage, stage.command("apply"), seconds)
    subprocess.run(stage.command("destroy"), check=True, stdout=subprocess.DEVNULL)
    path.unlink()
    function, trigger = (f"CREATE {part}" for part in SHAPES["notify"].split("CREATE ")[1:])
    bounded = f"SET lock_timeout = '{PLAIN_SECONDS}s'"
    command = [str(stage.postgres.bin / "psql"), "-q", "-d", stage.dsn]
    theirs, _ = _longest_wait(stage, [*command, "-c", function, "-c", bounded, "-c", trigger], seconds)
    return {
        "open_transaction_s": seconds,
        "longest_writer_wait_s": mine,
        "apply_exit_code": code,
        "plain_lock_timeout_s": PLAIN_SECONDS,
        "plain_longest_writer_wait_s": theirs,
        "of_plain": mine / theirs,
    }


def _longest_wait(stage: Stage, command: list[str], seconds: float) -> tuple[float, int]:
    """Of a writer, in seconds, while `command` runs beside a transaction that stays open; and its exit code."""
    stage.sql(TABLE)
    waits: list[float] = []
    stop = threading.Event()

    def write() -> None:
        with psycopg.connect(stage.dsn, autocommit=True) as connection:
            while not stop.is_set():
                began = time.perf_counter()
                connection.execute(INSERT.encode())
                waits.append(time.perf_counter() - began)

    with psycopg.connect(stage.dsn) as open_one:
        open_one.execute(INSERT.encode())
        writer = threading.Thread(target=write)
        writer.start()
        running = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(seconds)
        open_one.commit()
    running.wait(60)
    stop.set()
    writer.join()
    return max(waits), running.returncode
