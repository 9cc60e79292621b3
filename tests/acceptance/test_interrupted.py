"""What goes on until Ctrl-C: `demo --keep`, to play by hand, and a listener at a person's terminal."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from tablewatcher import cli

from ..conftest import Database, Stream, poll
from .commands import manifest, tablewatcher, write
from .programs import PROGRAM, started

PATH = {"PYTHONPATH": str(Path(cli.__file__).parents[2])}


@pytest.fixture(autouse=True)
def interruptible() -> Iterator[None]:
    """Programs that a shell starts in the background, and all they start, do not hear Ctrl-C; ours here do."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def answers(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


def is_there(directory: str) -> bool:
    return Path(directory).is_dir()


def test_next_to_nothing_is_loaded_before_ctrl_c_is_heard() -> None:
    """Until then it is answered by Python, with a traceback: loading `logging` alone took 30 ms."""
    code = "import sys; before = set(sys.modules); import tablewatcher.cli; print(*sorted(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-S", "-c", code], env=PATH, capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) <= {"__future__", "errno", "io", "tablewatcher", "tablewatcher.cli"}


@pytest.mark.timeout(240)
async def test_a_demonstration_that_is_kept_can_be_played_with(free_port: Callable[[], int]) -> None:
    with started(PROGRAM, "demo", "--keep") as demo:
        await poll(lambda: "Ctrl-C ends it" in demo.out and "jsz?streams=true" in demo.out, 120)
        said = demo.out.partition("All of it goes on running")[2]
        dsn, statement = re.search(r'psql "(.+?)" -c "(.+?)"', said).groups()
        with psycopg.connect(dsn, autocommit=True) as connection:
            (number,) = connection.execute(statement + " RETURNING id").fetchone() or ()

        def shown() -> list[str]:
            return [line for line in demo.out.partition("jsz?streams=true")[2].splitlines() if f" id {number}," in line]

        sinks = await poll(lambda: len(shown()) == 2 and shown(), 40)
        assert sorted(line.split()[0] for line in sinks) == ["HTTP", "NATS"]
        # The commands that it prints, as they are printed.
        for word in ("status", "doctor", "replay"):
            (command,) = re.findall(rf"^ *\S+ ({word} .*)$", said, re.MULTILINE)
            # A shell that somebody worked with another database in.
            elsewhere = f"postgresql://nobody@127.0.0.1:{free_port()}/none"
            answer = await tablewatcher(*shlex.split(command), TABLEWATCHER_DSN=elsewhere)
            assert answer.code == 0, answer.out + answer.err
        await poll(lambda: len(shown()) == 4, 40)
        directory = re.search(r"-f (\S+)/manifests", said)[1]
        ports = [int(port) for port in re.findall(r"127\.0\.0\.1:(\d+)", said)]
        assert is_there(directory)
        assert all(answers(port) for port in ports)
        assert len(ports) >= 3
        assert await demo.end(signal.SIGINT) == 0
        assert demo.out.splitlines()[-1] == "stopped"
        assert "Traceback" not in demo.out + demo.err
    assert not is_there(directory)
    assert not any(answers(port) for port in ports)


async def test_a_listener_ends_in_order(
    database: Database, stream: Stream, tmp_path: Path, free_port: Callable[[], int]
) -> None:
    """Its lease is released, as by SIGTERM: whoever comes next need not wait for it."""
    await database.execute("CREATE TABLE public.orders (id bigint PRIMARY KEY, status text)")
    sink = {"nats": {"servers": [stream.url], "subject": f"{stream.prefix}.{{action}}"}}
    files = write(tmp_path / "manifests", manifest(sink=sink))
    with started(PROGRAM, "run", "-f", files, "--dsn", database.dsn, "--http-port", free_port()) as program:
        await poll(lambda: "applied" in program.out, 40)
        await database.execute("INSERT INTO orders VALUES (1, 'new')")
        await stream.messages(1, 40)
        assert await program.end(signal.SIGINT) == 0, program.tail()
        assert "Traceback" not in program.out + program.err
    (cursor,) = await database.execute("SELECT min(relname) FROM pg_class WHERE relname ~ '^cursor_.*_0$'")
    (lease,) = await database.execute(
        f"SELECT expires_at = '-infinity' FROM tablewatcher.{cursor[0]} ORDER BY epoch DESC, n DESC LIMIT 1"
    )
    assert lease == (True,)


async def test_a_listener_ends_while_a_manifest_is_read(tmp_path: Path, free_port: Callable[[], int]) -> None:
    """For as long as it may take: of a share that does not answer, or, as here, of whoever is to write it."""
    pipe = tmp_path / "orders.yaml"
    os.mkfifo(pipe)

    def is_read() -> int:
        with contextlib.suppress(OSError):
            return os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
        return 0

    dsn = f"postgresql://127.0.0.1:{free_port()}/none"
    with started(PROGRAM, "listen", "-f", pipe, "--dsn", dsn, "--http-port", free_port()) as program:
        writing = await poll(is_read, 40)
        try:
            assert await program.end(signal.SIGINT) == 0, program.tail()
        finally:
            os.close(writing)
