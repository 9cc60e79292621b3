"""A database that cannot be reached: waited for once, not once more for each of its watchers."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tablewatcher.postgres.connection.session import CONNECT_TIMEOUT

from .commands import manifest, tablewatcher, write

# Of the ten seconds, and of the program's start on a busy machine.
_ONCE = 15.0
NAMES = ("one", "two", "three")


@pytest.fixture
def files(tmp_path: Path) -> Path:
    return write(tmp_path / "manifests", *(manifest(name) for name in NAMES))


@pytest.fixture
def silent_port() -> Iterator[int]:
    """Of a server that lets everybody in and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.mark.parametrize("command", ["apply", "destroy", "sql", "parked list"])
async def test_it_is_given_up_once(files: Path, free_port: Callable[[], int], command: str) -> None:
    nowhere = f"postgresql://u@127.0.0.1:{free_port()}/x"
    answer = await tablewatcher(*command.split(), "-f", files, "--dsn", nowhere, "-o", "json")
    assert answer.code == 4
    assert answer.seconds < _ONCE
    told = [(each["reason"], each["message"]) for each in json.loads(answer.out)]
    assert len(told) == len(NAMES)
    assert len(set(told)) == 1
    assert told[0][0] == "DatabaseUnreachable"
    assert "connection refused" in told[0][1]


@pytest.mark.parametrize("command", ["plan", "doctor", "status"])
async def test_who_does_not_try_again_waits_for_an_answer_once(files: Path, silent_port: int, command: str) -> None:
    nowhere = f"postgresql://u@127.0.0.1:{silent_port}/x"
    answer = await tablewatcher(command, "-f", files, "--dsn", nowhere, "-o", "json")
    assert answer.code == 4
    assert answer.seconds < 2 * CONNECT_TIMEOUT
    assert sorted(each["watcher"] for each in json.loads(answer.out)) == sorted(f"shop/{name}" for name in NAMES)
