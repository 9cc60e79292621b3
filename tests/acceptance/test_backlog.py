"""What a person, or a log, is told while a listener drains what has piled up."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import pty
import re
import signal
import struct
import termios
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from aiohttp import web

from ..conftest import Database, HttpReceiver, ReceivedRequest, Stream
from .commands import PROGRAM, manifest, tablewatcher, write

TABLE = "CREATE TABLE public.orders (id bigint PRIMARY KEY, status text)"
COLUMNS = 100
PROGRESS = re.compile(r"\[[#.]{20}\] shop/orders: ([\d,]+) wait, ([\d,]+) delivered, [\d,]+/s")


class Terminal:
    """A terminal of COLUMNS as far as this needs one. states: every text its last line has had, and all lines now."""

    def __init__(self) -> None:
        self.screen, self.keyboard = pty.openpty()
        fcntl.ioctl(self.screen, termios.TIOCSWINSZ, struct.pack("HHHH", 24, COLUMNS, 0, 0))
        self.raw = b""
        asyncio.get_running_loop().add_reader(self.screen, self._read)

    def _read(self) -> None:
        with contextlib.suppress(OSError):
            self.raw += os.read(self.screen, 65536)

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self.screen)
        os.close(self.screen)

    def lines(self) -> tuple[list[str], list[str]]:
        """The lines that are there, and every state of the last one on the way."""
        lines, states = [""], []
        text = re.sub(r"\x1b\[[0-9;]*m", "", self.raw.decode())
        for token in re.findall(r"\r\n|\r\x1b\[K|[^\r\n]+|.", text, re.DOTALL):
            if token == "\r\n":
                lines.append("")
            elif token == "\r\x1b[K":
                lines[-1] = ""
            else:
                lines[-1] += token
                states.append(lines[-1])
        return lines, states


async def piled_up(database: Database, folder: Path, sink: dict[str, Any], rows: int) -> Path:
    """A watcher that is applied, and so many rows that wait for it; its manifest."""
    await database.execute(TABLE)
    files = write(folder, manifest(sink=sink))
    applied = await tablewatcher("apply", "-f", files, "--dsn", database.dsn)
    assert applied.code == 0, applied.err
    await database.execute(f"INSERT INTO orders SELECT n, 'new' FROM generate_series(1, {rows}) n")
    return files


async def test_a_person_sees_a_line_while_a_backlog_is_drained(
    database: Database,
    stream: Stream,
    tmp_path: Path,
    free_port: Callable[[], int],
    eventually: Callable[..., Awaitable[Any]],
) -> None:
    rows = 300_000
    sink = {"nats": {"servers": [stream.url], "subject": f"{stream.prefix}.{{action}}"}}
    files = await piled_up(database, tmp_path / "manifests", sink, rows)
    terminal = Terminal()
    process = await asyncio.create_subprocess_exec(
        *(PROGRAM, "listen", "-f", files, "--dsn", database.dsn, "--http-port", str(free_port())),
        stdout=terminal.keyboard,
        stderr=terminal.keyboard,
        env=os.environ | {"TERM": "xterm-256color"},
    )
    os.close(terminal.keyboard)
    try:

        async def drained() -> bool:
            return await stream.count() == rows

        await eventually(lambda: PROGRESS.search(terminal.raw.decode(errors="replace")), 30)
        # While the line is there: what is logged must not be written into it.
        (files / "broken.yaml").write_text("a: [")
        await eventually(drained, 120)
        # Where the machine is so quick that it comes after the line, only that it comes.
        await eventually(lambda: "1 error in the manifest" in terminal.raw.decode(errors="replace"), 10)
        await eventually(lambda: not PROGRESS.search("\n".join(terminal.lines()[0])), 5)
    finally:
        process.send_signal(signal.SIGTERM)
        await process.wait()
    await asyncio.sleep(0.1)
    lines, states = terminal.lines()
    terminal.close()
    assert process.returncode == 0, lines
    shown = [(state, found) for state in states if (found := PROGRESS.search(state))]
    assert all(found.start() == 0 and len(state) < COLUMNS for state, found in shown), "alone in its line"
    waiting = [int(found.group(1).replace(",", "")) for _, found in shown]
    delivered = [int(found.group(2).replace(",", "")) for _, found in shown]
    assert waiting[0] > waiting[-1] > 0
    assert delivered == sorted(delivered)
    # Known by ids alone, the sum is nearly what there was.
    assert all(0.7 * rows < sum(pair) < 1.3 * rows for pair in zip(waiting, delivered, strict=True)), shown
    assert not PROGRESS.search("\n".join(lines)), "nothing stays"
    assert any(line.endswith("1 error in the manifest") and re.match(r"\d{4}-", line) for line in lines), lines


async def test_a_log_is_told_now_and_then(
    database: Database,
    http_receiver: HttpReceiver,
    tmp_path: Path,
    free_port: Callable[[], int],
    eventually: Callable[..., Awaitable[Any]],
) -> None:
    async def slow(_: ReceivedRequest) -> web.Response:
        await asyncio.sleep(0.05)
        return web.Response(status=204)

    http_receiver.respond = slow
    sink = {"http": {"url": http_receiver.url, "concurrency": 4}}
    files = await piled_up(database, tmp_path / "manifests", sink, 1_000)
    log = tmp_path / "log"
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            *(PROGRAM, "listen", "-f", files, "--dsn", database.dsn, "--http-port", str(free_port())),
            stdout=output,
            stderr=output,
        )
    try:
        await eventually(lambda: '"drained"' in log.read_text(), 60)
    finally:
        process.send_signal(signal.SIGTERM)
        await process.wait()
    assert "\x1b" not in log.read_text()
    told = [found for found in map(json.loads, log.read_text().splitlines()) if found["event"] == "draining"]
    assert told
    assert told[0]["watcher"] == "shop/orders"
    assert 0 < told[0]["waiting"] < 1_000
    assert 0 < told[0]["delivered"] < 1_000
    assert told[0]["per_second"] > 0
    assert told[0]["seconds_left"] > 0
