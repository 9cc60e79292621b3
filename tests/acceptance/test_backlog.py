"""What a person, or a log, is told while a listener drains what has piled up."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from tablewatcher.embedded import free_port

from ..conftest import Database, HttpReceiver, ReceivedRequest, Stream, poll
from .commands import manifest, tablewatcher, write
from .programs import PROGRAM, running
from .terminal import terminal

TABLE = "CREATE TABLE public.orders (id bigint PRIMARY KEY, status text)"
COLUMNS = 100
PROGRESS = re.compile(r"\[[#.]{20}\] shop/orders: ([\d,]+) wait, ([\d,]+) delivered, [\d,]+/s")


async def piled_up(database: Database, folder: Path, sink: dict[str, Any], rows: int) -> Path:
    """A watcher that is applied, and so many rows that wait for it; its manifest."""
    await database.execute(TABLE)
    files = write(folder, manifest(sink=sink))
    applied = await tablewatcher("apply", "-f", files, "--dsn", database.dsn)
    assert applied.code == 0, applied.err
    # By one statement: its last rows take more room in the ring than the first.
    await database.execute(f"INSERT INTO orders SELECT n, 'new' FROM generate_series(1, {rows}) n")
    return files


@pytest.mark.timeout(240)
async def test_a_person_sees_a_line_while_a_backlog_is_drained(
    database: Database, stream: Stream, tmp_path: Path
) -> None:
    rows = 300_000
    sink = {"nats": {"servers": [stream.url], "subject": f"{stream.prefix}.{{action}}"}}
    files = await piled_up(database, tmp_path / "manifests", sink, rows)
    with terminal(COLUMNS) as screen:
        command = (PROGRAM, "listen", "-f", files, "--dsn", database.dsn, "--http-port", free_port())
        async with running(*command, stdout=screen.keyboard, stderr=screen.keyboard, TERM="xterm-256color"):

            async def drained() -> bool:
                return await stream.count() == rows

            await poll(lambda: PROGRESS.search(screen.text), 40)
            # While the line is there: what is logged must not be written into it.
            (files / "broken.yaml").write_text("a: [")
            await poll(drained, 120)
            # Where the machine is so quick that it comes after the line, only that it comes.
            await poll(lambda: "1 error in the manifest" in screen.text, 40)
            await poll(lambda: not PROGRESS.search("\n".join(screen.lines()[0])), 40)
        await screen.finished()
        lines, states = screen.lines()
    shown = [(state, found) for state in states if (found := PROGRESS.search(state))]
    assert all(found.start() == 0 and len(state) < COLUMNS for state, found in shown), "alone in its line"
    waiting = [int(found.group(1).replace(",", "")) for _, found in shown]
    delivered = [int(found.group(2).replace(",", "")) for _, found in shown]
    assert waiting[0] > waiting[-1] > 0
    assert delivered == sorted(delivered)
    # All are of one batch, whose rest is known; what is held and what is delivered are not of the same moment.
    assert all(0.95 * rows < sum(pair) < 1.05 * rows for pair in zip(waiting, delivered, strict=True)), shown
    assert not PROGRESS.search("\n".join(lines)), "nothing stays"
    assert any(line.endswith("1 error in the manifest") and re.match(r"\d{4}-", line) for line in lines), lines


async def test_a_log_is_told_now_and_then(database: Database, http_receiver: HttpReceiver, tmp_path: Path) -> None:
    rows, is_told = 3_000, asyncio.Event()

    async def slow(_: ReceivedRequest) -> web.Response:
        if not is_told.is_set():
            await asyncio.sleep(0.05)
        return web.Response(status=204)

    http_receiver.respond = slow
    sink = {"http": {"url": http_receiver.url, "concurrency": 4}}
    files = await piled_up(database, tmp_path / "manifests", sink, rows)
    async with running(PROGRAM, "listen", "-f", files, "--dsn", database.dsn, "--http-port", free_port()) as listener:
        # Not in the first line where the machine stood still just before it.
        await poll(lambda: '"seconds_left"' in listener.err, 40)
        is_told.set()
        await poll(lambda: '"drained"' in listener.err, 40)
        log = listener.out + listener.err
    assert "\x1b" not in log
    draining = [found for found in map(json.loads, log.splitlines()) if found["event"] == "draining"]
    told = next(found for found in draining if "seconds_left" in found)
    assert told["watcher"] == "shop/orders"
    assert 0 < told["waiting"] < rows
    assert 0 < told["delivered"] < rows
    assert told["per_second"] > 0
    assert told["seconds_left"] > 0
