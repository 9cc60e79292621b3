"""TLS in front of a real Postgres: the wheels' server is built without it, so its part of the handshake is here."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import ssl
from dataclasses import dataclass, field

import trustme

from tablewatcher.embedded import EmbeddedPostgres

_SSL_REQUEST = (8).to_bytes(4) + (80877103).to_bytes(4)
_GSS_REQUEST = (8).to_bytes(4) + (80877104).to_bytes(4)


@dataclass(slots=True)
class TlsFront:
    """Answers SSLRequest as Postgres does with `ssl = on`, and hands everything else on to `server`.

    hellos: connections that asked for TLS. context None: `ssl = off`.
    """

    server: EmbeddedPostgres
    context: ssl.SSLContext | None
    port: int = 0
    hellos: int = 0
    _server: asyncio.Server | None = None
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    def dsn(self, host: str, database: str) -> str:
        """Through the front, as the superuser."""
        return self.server.dsn(database).replace(f"127.0.0.1:{self.server.port}", f"{host}:{self.port}")

    async def __aenter__(self) -> TlsFront:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        await self.cut()

    async def cut(self) -> None:
        """Ends every connection; whoever comes again is let in."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            with contextlib.suppress(OSError, ssl.SSLError, asyncio.IncompleteReadError, asyncio.CancelledError):
                await self._through(reader, writer)
        finally:
            self._tasks.discard(task)
            writer.transport.abort()

    async def _through(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        first = await reader.readexactly(8)
        while first in (_SSL_REQUEST, _GSS_REQUEST):
            if first == _SSL_REQUEST and self.context is not None:
                self.hellos += 1
                writer.write(b"S")
                await writer.start_tls(self.context)
            else:
                writer.write(b"N")
            first = await reader.readexactly(8)
        inner, outer = await asyncio.open_connection("127.0.0.1", self.server.port)
        outer.write(first)
        try:
            pumps = [asyncio.create_task(_pump(reader, outer)), asyncio.create_task(_pump(inner, writer))]
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
        finally:
            outer.transport.abort()


async def _pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    while found := await source.read(65536):
        sink.write(found)
        await sink.drain()


def pem(authority: trustme.CA) -> str:
    """The authority's own certificate."""
    return authority.cert_pem.bytes().decode()


def certificate(authority: trustme.CA, name: str, seconds: float = 86_400.0) -> dict[str, str]:
    """A Secret of type kubernetes.io/tls, good for so long from now."""
    now = datetime.datetime.now(datetime.UTC)
    begin, end = now - datetime.timedelta(hours=1), now + datetime.timedelta(seconds=seconds)
    found = authority.issue_cert(name, not_before=begin, not_after=end)
    chain = "".join(blob.bytes().decode() for blob in found.cert_chain_pems)
    return {"tls.crt": chain, "tls.key": found.private_key_pem.bytes().decode()}
