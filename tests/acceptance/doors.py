"""A door in front of a server: a test shuts it, and sees who knocks meanwhile."""

from __future__ import annotations

import asyncio

from ..relay import Relay


class Door(Relay):
    """Hands on to a port while it is open. knocks: connections turned away while it was shut."""

    def __init__(self, to: int) -> None:
        super().__init__(to)
        self.knocks = 0
        self._is_open = True

    def open(self) -> None:
        """Whoever comes from now on is let in."""
        self._is_open = True

    async def shut(self) -> None:
        """Whoever is inside is thrown out, and nobody is let in."""
        self._is_open = False
        await self.cut()

    async def welcome(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
        if not self._is_open:
            self.knocks += 1
            raise ConnectionRefusedError
        return b""
