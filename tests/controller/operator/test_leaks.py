"""What the operator's log is searched for: of real processes that leave connections or a file open."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from .leaks import without_api_connections

CODE = """
import asyncio, sys

async def main():
    for port in map(int, sys.argv[2:]):
        kept.append(await asyncio.get_running_loop().create_connection(asyncio.Protocol, "127.0.0.1", port))

kept = [open(sys.argv[1])] if sys.argv[1] else []
asyncio.run(main())
"""


@pytest.fixture
def ports() -> Iterator[tuple[int, int]]:
    """Of the API server, and of another."""
    with socket.create_server(("127.0.0.1", 0)) as api, socket.create_server(("127.0.0.1", 0)) as other:
        yield api.getsockname()[1], other.getsockname()[1]


def log_of(*connected: int, file: str = "") -> str:
    command = [sys.executable, "-W", "error::ResourceWarning", "-c", CODE, file, *map(str, connected)]
    log = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stderr
    assert log.count("ResourceWarning: unclosed <socket.socket") == len(connected), log
    return log


def test_connections_to_the_api_server_pass(ports: tuple[int, int]) -> None:
    api, _ = ports
    assert "Traceback" in (log := log_of(api, api))
    assert without_api_connections(f"started\n{log}stopped\n", api) == "started\nstopped\n"


def test_another_connection_does_not(ports: tuple[int, int]) -> None:
    api, other = ports
    rest = without_api_connections(log_of(api, other), api)
    assert f"raddr=('127.0.0.1', {other})" in rest
    assert "Traceback" in rest
    assert str(api) not in rest


def test_a_file_does_not(ports: tuple[int, int]) -> None:
    api, _ = ports
    rest = without_api_connections(log_of(api, file=str(Path(__file__))), api)
    assert "ResourceWarning: unclosed file" in rest
    assert "socket" not in rest
