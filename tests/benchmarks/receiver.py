"""An HTTP endpoint that answers 200 at once and counts: a process of its own, so that it is not what is measured.

Prints its port, and for every line on standard input the requests and events it has had.
"""

from __future__ import annotations

import asyncio
import re
import sys
from typing import cast

import uvloop

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
_LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)


class Counts:
    requests = 0
    events = 0


class Endpoint(asyncio.Protocol):
    """One connection: requests with a Content-Length, one after the other."""

    def __init__(self, counts: Counts) -> None:
        self._counts = counts
        self._buffer = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by class

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            found = _LENGTH.search(self._buffer, 0, end)
            last = end + 4 + (int(found[1]) if found else 0)
            if len(self._buffer) < last:
                return
            self._counts.requests += 1
            self._counts.events += self._buffer.count(b'"specversion"', end, last)
            del self._buffer[:last]
            self._transport.write(ANSWER)


async def main() -> None:
    counts = Counts()
    server = await asyncio.get_running_loop().create_server(lambda: Endpoint(counts), "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    asked = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(asked), sys.stdin)
    while await asked.readline():
        print(counts.requests, counts.events, flush=True)


if __name__ == "__main__":
    uvloop.run(main())
