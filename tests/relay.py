"""A relay in front of a server, for tests that come between."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Self


class Relay:
    """Hands on what comes to `port`, a port of its own (`async with`), to port `to` of this machine, and the answers.

    A connection lasts until one side ends it. What a test has to do with it stands in `welcome` and `passing`.
    """

    def __init__(self, to: int) -> None:
        self.port = 0
        self._to = to
        self._inside: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._enter, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        await self.cut()

    async def cut(self) -> None:
        """Ends every connection; whoever comes again is let in."""
        inside = list(self._inside)
        for task in inside:
            task.cancel()
        await asyncio.gather(*inside, return_exceptions=True)

    async def welcome(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
        """What comes before the server hears of a connection: what it is to hear first. OSError turns one away."""
        return b""

    async def passing(self, data: bytes, *, answer: bool) -> None:
        """What comes before `data` of a client, or of an answer to one, is handed on."""

    async def _enter(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._inside.add(task)
        try:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                await self._between(reader, writer)
        finally:
            self._inside.discard(task)
            writer.transport.abort()

    async def _between(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        first = await self.welcome(reader, writer)
        inner, outer = await asyncio.open_connection("127.0.0.1", self._to)
        outer.write(first)
        pumps = [
            asyncio.create_task(self._pump(reader, outer, answer=False)),
            asyncio.create_task(self._pump(inner, writer, answer=True)),
        ]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
            outer.transport.abort()

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, *, answer: bool) -> None:
        while found := await source.read(65536):
            await self.passing(found, answer=answer)
            sink.write(found)
            await sink.drain()
