"""A door in front of a server: a test shuts it, and sees who knocks meanwhile."""

from __future__ import annotations

import asyncio
import contextlib


class Door:
    """Hands on to `port` while it is open (`async with`). knocks: connections turned away while it was shut."""

    def __init__(self, to: int) -> None:
        self.knocks = 0
        self._to = to
        self._is_open = True
        self._inside: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Door:
        self._server = await asyncio.start_server(self._enter, "127.0.0.1", 0)
        self.port: int = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        await self.shut()

    def open(self) -> None:
        """Whoever comes from now on is let in."""
        self._is_open = True

    async def shut(self) -> None:
        """Whoever is inside is thrown out, and nobody is let in."""
        self._is_open = False
        inside = list(self._inside)
        for task in inside:
            task.cancel()
        await asyncio.gather(*inside, return_exceptions=True)

    async def _enter(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._inside.add(task)
        try:
            if self._is_open:
                with contextlib.suppress(OSError):
                    await self._between(reader, writer)
            else:
                self.knocks += 1
        finally:
            self._inside.discard(task)
            writer.transport.abort()

    async def _between(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner, outer = await asyncio.open_connection("127.0.0.1", self._to)
        pumps = [asyncio.create_task(_pump(reader, outer)), asyncio.create_task(_pump(inner, writer))]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
            outer.transport.abort()


async def _pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    while found := await source.read(65536):
        sink.write(found)
        await sink.drain()
