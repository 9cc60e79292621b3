"""What our figures stand beside: the shapes that people make by hand, measured in the same run.

A trigger that notifies whoever listens, and a log table with a relay (`outbox_relay.py`). Each does less than we do:
a notification is lost when nobody listens, and a page that fails is sent again out of order.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import nats
import psycopg
from stage import INSERT, INSERT_MANY, TABLE, Stage, memory_megabytes, new_stream, stored

ROWS = 1000
# notify: how EctoWatch does it; log: how outbox tables mostly look.
SHAPES = {
    "bare": "",
    "notify": """
CREATE FUNCTION bench_row() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN PERFORM pg_notify('bench', json_build_object('id', NEW.id, 'status', NEW.status)::text); RETURN NULL; END $$;
CREATE TRIGGER bench_row AFTER INSERT ON bench FOR EACH ROW EXECUTE FUNCTION bench_row();
""",
    "log": """
CREATE TABLE bench_log (id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
                        at timestamptz NOT NULL DEFAULT clock_timestamp(),
                        delivered boolean NOT NULL DEFAULT false, payload jsonb NOT NULL);
CREATE INDEX ON bench_log (at) WHERE NOT delivered;
CREATE FUNCTION bench_row() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN INSERT INTO bench_log (payload) VALUES (to_jsonb(NEW)); RETURN NULL; END $$;
CREATE TRIGGER bench_row AFTER INSERT ON bench FOR EACH ROW EXECUTE FUNCTION bench_row();
""",
    "captured": "",
}
_FLOOR = "import asyncio, psycopg, nats; print(flush=True); input()"


async def paced(connection: psycopg.AsyncConnection, seconds: float, per_second: int) -> dict[int, float]:
    """Single rows at a steady rate: by id, when the commit was acknowledged (perf_counter, seconds)."""
    committed: dict[int, float] = {}
    start = time.perf_counter()
    for nth in range(int(seconds * per_second)):
        await asyncio.sleep(max(start + nth / per_second - time.perf_counter(), 0))
        cursor = await connection.execute(f"{INSERT} RETURNING id".encode())
        now = time.perf_counter()
        row = await cursor.fetchone()
        assert row is not None
        committed[row[0]] = now
    return committed


async def in_thousands(dsn: str, rows: int) -> None:
    """Transactions of 1,000 rows, one after the other."""
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as writer:
        for _ in range(rows // ROWS):
            await writer.execute(f"{INSERT_MANY} FROM generate_series(1, {ROWS}) g".encode())


@contextlib.asynccontextmanager
async def notified(stage: Stage) -> AsyncIterator[dict[int, float]]:
    """The table with NOTIFY in a row trigger, and a connection that listens: by id, when each arrived."""
    stage.sql(TABLE + SHAPES["notify"])
    arrived: dict[int, float] = {}
    async with await psycopg.AsyncConnection.connect(stage.dsn, autocommit=True) as listening:
        await listening.execute("LISTEN bench")

        async def note() -> None:
            async for found in listening.notifies():
                now = time.perf_counter()
                arrived[json.loads(found.payload)["id"]] = now

        noting = asyncio.create_task(note())
        try:
            yield arrived
        finally:
            noting.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await noting


async def notified_after(stage: Stage, seconds: float, per_second: int) -> list[float]:
    """Milliseconds from the commit's acknowledgement to the notification, row by row."""
    async with (
        notified(stage) as arrived,
        await psycopg.AsyncConnection.connect(stage.dsn, autocommit=True) as connection,
    ):
        committed = await paced(connection, seconds, per_second)
        while not committed.keys() <= arrived.keys():  # noqa: ASYNC110 - another process is waited for
            await asyncio.sleep(0.05)
    return [(arrived[key] - committed[key]) * 1000 for key in committed]


async def notified_live(stage: Stage, rows: int) -> float:
    """Rows a second in transactions of 1,000 rows, until the notification of each has come."""
    async with notified(stage) as arrived:
        started = time.perf_counter()
        await in_thousands(stage.dsn, rows)
        while len(arrived) < rows:  # noqa: ASYNC110 - another process is waited for
            await asyncio.sleep(0.01)
        return rows / (time.perf_counter() - started)


@contextlib.contextmanager
def relaying(stage: Stage, *sink: str) -> Iterator[None]:
    """A relay of the log table to `sink`, a process."""
    command = [sys.executable, str(Path(__file__).with_name("outbox_relay.py")), stage.dsn, *sink]
    process = subprocess.Popen(command)
    try:
        yield
        assert process.poll() is None, "the relay has ended by itself"
    finally:
        process.kill()
        process.wait()


async def relayed_drain(stage: Stage, rows: int) -> float:
    """Rows a second from a log table into JetStream, every one acknowledged."""
    await new_stream(stage)
    stage.sql(TABLE + SHAPES["log"] + f"{INSERT_MANY} FROM generate_series(1, {rows}) g")
    stage.sql("ANALYZE bench_log")
    async with await nats.connect(stage.nats.url) as client:
        with relaying(stage, stage.nats.url):
            while (before := await stored(client)) == 0:  # noqa: ASYNC110 - another process is waited for
                await asyncio.sleep(0.01)
            started = time.perf_counter()
            while await stored(client) < rows:  # noqa: ASYNC110 - another process is waited for
                await asyncio.sleep(0.02)
            return (rows - before) / (time.perf_counter() - started)


async def relayed_live(stage: Stage, rows: int) -> float:
    """Rows a second in transactions of 1,000 rows into a log table, until all are stored in JetStream."""
    await new_stream(stage)
    stage.sql(TABLE + SHAPES["log"])
    async with await nats.connect(stage.nats.url) as client:
        with relaying(stage, stage.nats.url):
            stage.sql(INSERT)
            while await stored(client) == 0:  # noqa: ASYNC110 - another process is waited for
                await asyncio.sleep(0.01)
            before, started = await stored(client), time.perf_counter()
            await in_thousands(stage.dsn, rows)
            while await stored(client) < before + rows:  # noqa: ASYNC110 - another process is waited for
                await asyncio.sleep(0.01)
            return rows / (time.perf_counter() - started)


def floor_megabytes() -> float:
    """Resident memory of an interpreter that has the drivers of Postgres and NATS imported, and does nothing."""
    process = subprocess.Popen([sys.executable, "-c", _FLOOR], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None
    try:
        process.stdout.readline()
        return memory_megabytes(process.pid)
    finally:
        process.communicate(b"\n", 10)
