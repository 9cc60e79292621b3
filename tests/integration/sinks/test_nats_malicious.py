"""Servers that answer to do harm: what they send is not kept without end, and what they say is cut short."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest

from tablewatcher.errors import Reason, SinkError
from tablewatcher.sinks.nats.connection import Connection
from tablewatcher.sinks.nats.dial import connected
from tablewatcher.sinks.nats.login import Login
from tablewatcher.spec.model import NatsSink

from ...conftest import poll
from .events import MemorySecrets

INFO = b'INFO {"server_id":"x","version":"2.14.0","max_payload":1048576,"proto":1,"headers":true}\r\n'
PIECE = bytes(65536).replace(b"\0", b"x")
# More than any server could mean.
MUCH = 64 << 20


class Malicious:
    """Lets everybody in; sends `first` then, `at_once` or a little later, and fills up to MUCH bytes after it."""

    def __init__(self, first: bytes, *, filled: bool, at_once: bool = False) -> None:
        self._at_once = at_once
        self._first = first
        self._filled = filled
        self.sent = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(INFO)
        pings = 0
        with suppress(ConnectionError):
            while line := await reader.readline():
                if line.startswith(b"PING"):
                    pings += 1
                    writer.write(b"PONG\r\n")
                if pings == 2:  # the round trip after signing in
                    break
            if not self._at_once:
                await asyncio.sleep(0.2)
            writer.write(self._first)
            while self._filled and self.sent < MUCH:
                writer.write(PIECE)
                self.sent += len(PIECE)
                await writer.drain()
            await reader.read()
        writer.close()


@asynccontextmanager
async def let_in(server: Malicious) -> AsyncIterator[tuple[Connection, list[Connection]]]:
    """A connection to it, and those that were lost."""
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    async with listening:
        port = listening.sockets[0].getsockname()[1]
        lost: list[Connection] = []
        connection = await connected(
            Login(NatsSink((f"nats://127.0.0.1:{port}",), "x"), MemorySecrets()), None, lost.append
        )
        try:
            yield connection, lost
        finally:
            await connection.close()


@pytest.mark.parametrize("first", [b"", b"MSG x 1 99999999999\r\n", b"HMSG x 1 12 99999999999\r\n", b"INFO {"])
async def test_what_does_not_end_is_not_kept(first: bytes) -> None:
    server = Malicious(first, filled=True)
    async with let_in(server) as (connection, lost):
        await poll(lambda: lost == [connection])
    assert server.sent < MUCH


async def test_a_connection_that_is_of_no_use_at_once_is_none() -> None:
    with pytest.raises(SinkError) as caught:
        async with let_in(Malicious(b"MSG x 1 99999999999\r\n", filled=True, at_once=True)):
            pass
    assert caught.value.reason is Reason.SINK_UNREACHABLE


@pytest.mark.parametrize(
    "before", [b"Permissions Violation for Publish to ", b"Permissions Violation for Subscription to "]
)
async def test_what_a_server_says_is_cut_short(before: bytes) -> None:
    async with let_in(Malicious(b"-ERR '" + before + 500_000 * b"x" + b"'\r\n", filled=False)) as (connection, _):
        await poll(lambda: connection.refusal)
        assert connection.refusal is not None
        assert before.decode().lower() in connection.refusal
        assert len(connection.refusal) < 1000
