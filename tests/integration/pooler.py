"""What a pooler does that can be seen from outside: process ids of its own, in front of a real Postgres."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tablewatcher.embedded import EmbeddedPostgres

_KEY_DATA, _READY = b"K", b"Z"


@asynccontextmanager
async def pooler(server: EmbeddedPostgres) -> AsyncIterator[int]:
    """The port of one; plain connections only (`sslmode=disable`)."""
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        inner, outer = await asyncio.open_connection("127.0.0.1", server.port)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(_pump(reader, outer))
                group.create_task(_answers(inner, writer))
        except* (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            tasks.discard(task)
            for each in (writer, outer):
                each.transport.abort()

    listening = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield listening.sockets[0].getsockname()[1]
    finally:
        listening.close()
        for task in list(tasks):
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.gather(*tasks, return_exceptions=True)


async def _answers(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    kind = b""
    while kind != _READY:
        kind = await source.readexactly(1)
        length = await source.readexactly(4)
        body = await source.readexactly(int.from_bytes(length) - 4)
        if kind == _KEY_DATA:
            body = (int.from_bytes(body[:4]) ^ 1 << 20).to_bytes(4) + body[4:]
        sink.write(kind + length + body)
    await _pump(source, sink)


async def _pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    while found := await source.read(65536):
        sink.write(found)
        await sink.drain()
    raise ConnectionResetError("one side has closed")
