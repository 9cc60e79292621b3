"""What never arrives where a consumer is away for a while, and writes that fail because somebody watches."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Iterator

import nats
import psycopg
from anchors import SHAPES
from stage import INSERT, STREAM, TABLE, Stage, new_stream, stored, wait_until

Figures = dict[str, float]

AWAY_SECONDS = 5.0
PER_SECOND = 200
BEFORE = 100
ARRIVAL_SECONDS = 30.0
ODD = 50
LONG = INSERT.replace("'new'", "repeat('x', 9000)")
WITHOUT = "INSERT INTO bench (customer_id, total) VALUES (1, 9.5)"


def loss(stage: Stage) -> Figures:
    """Of the rows committed before, during and after five seconds without a consumer, those that never arrive."""
    broker, killed, notified = _broker_away(stage), _listener_killed(stage), _notifications_away(stage)
    return {
        "rows": BEFORE * 2 + AWAY_SECONDS * PER_SECOND,
        "lost_broker_stopped": broker,
        "lost_listener_killed": killed,
        "lost_notify": notified,
    }


def _broker_away(stage: Stage) -> int:
    asyncio.run(new_stream(stage))
    with stage.applied(), stage.listener():
        _write(stage, BEFORE)
        wait_until(lambda: _messages(stage) > 0)
        stage.nats.stop()
        _write(stage, int(AWAY_SECONDS * PER_SECOND))
        stage.nats.start()
        _write(stage, BEFORE)
        return _missing(stage)


def _listener_killed(stage: Stage) -> int:
    asyncio.run(new_stream(stage))
    with stage.applied():
        with stage.listener() as first:
            _write(stage, BEFORE)
            wait_until(lambda: _messages(stage) > 0)
            first.kill()
        _write(stage, int(AWAY_SECONDS * PER_SECOND))
        with stage.listener():
            _write(stage, BEFORE)
            return _missing(stage)


def _notifications_away(stage: Stage) -> int:
    stage.sql(TABLE + SHAPES["notify"])
    heard: set[int] = set()
    for number in (BEFORE, int(AWAY_SECONDS * PER_SECOND), BEFORE):
        if number != BEFORE:
            _write(stage, number)
            continue
        with psycopg.connect(stage.dsn, autocommit=True) as listening:
            listening.execute("LISTEN bench")
            _write(stage, number)
            heard |= {json.loads(found.payload)["id"] for found in listening.notifies(timeout=2)}
    return len(_committed(stage) - heard)


def _write(stage: Stage, number: int) -> None:
    with psycopg.connect(stage.dsn, autocommit=True) as connection:
        started = time.perf_counter()
        for nth in range(number):
            time.sleep(max(started + nth / PER_SECOND - time.perf_counter(), 0))
            connection.execute(INSERT.encode())


def _committed(stage: Stage) -> set[int]:
    with psycopg.connect(stage.dsn) as connection:
        return {number for (number,) in connection.execute("SELECT id FROM bench")}


def _missing(stage: Stage) -> int:
    """Rows of the table that are in no message, once all have had time to arrive."""
    committed, deadline = _committed(stage), time.perf_counter() + ARRIVAL_SECONDS
    while (missing := committed - asyncio.run(_arrived(stage))) and time.perf_counter() < deadline:
        time.sleep(0.5)
    return len(missing)


def _messages(stage: Stage) -> int:
    async def count() -> int:
        async with await nats.connect(stage.nats.url) as client:
            return await stored(client)

    return asyncio.run(count())


async def _arrived(stage: Stage) -> set[int]:
    async with await nats.connect(stage.nats.url) as client:
        read = await client.jetstream().subscribe("bench.>", stream=STREAM, ordered_consumer=True)
        messages = [await read.next_msg(5) for _ in range(await stored(client))]
    return {json.loads(message.data)["data"]["key"]["id"] for message in messages}


def odd_writes(stage: Stage) -> Figures:
    """Writes that fail, of rows of more than 8 kB and after a watched column was dropped, by shape."""
    failed = {f"{shape}_failed": _failures(stage, shape) for shape in ("captured", "notify", "log")}
    return {"writes": 2.0 * ODD, **failed}


def _failures(stage: Stage, shape: str) -> float:
    with _written_by(stage, shape), psycopg.connect(stage.dsn, autocommit=True) as connection:
        failed = _refused(connection, LONG)
        connection.execute("ALTER TABLE bench DROP COLUMN status")
        return float(failed + _refused(connection, WITHOUT))


@contextlib.contextmanager
def _written_by(stage: Stage, shape: str) -> Iterator[None]:
    if shape != "captured":
        stage.sql(TABLE + SHAPES[shape])
        yield
        return
    with stage.applied():
        yield


def _refused(connection: psycopg.Connection, statement: str) -> int:
    failed = 0
    for _ in range(ODD):
        try:
            connection.execute(statement.encode())
        except psycopg.Error:
            failed += 1
    return failed
