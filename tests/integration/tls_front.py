"""TLS in front of a real Postgres: the wheels' server is built without it, so its part of the handshake is here."""

from __future__ import annotations

import asyncio
import datetime
import ssl

import trustme

from tablewatcher.embedded import EmbeddedPostgres

from ..relay import Relay

_SSL_REQUEST = (8).to_bytes(4) + (80877103).to_bytes(4)
_GSS_REQUEST = (8).to_bytes(4) + (80877104).to_bytes(4)


class TlsFront(Relay):
    """Answers SSLRequest as Postgres does with `ssl = on`, and hands everything else on to `server`.

    hellos: connections that asked for TLS. context None: `ssl = off`.
    """

    def __init__(self, server: EmbeddedPostgres, context: ssl.SSLContext | None) -> None:
        super().__init__(server.port)
        self.context = context
        self.hellos = 0
        self._postgres = server

    def dsn(self, host: str, database: str) -> str:
        """Through the front, as the superuser."""
        server = self._postgres
        return server.dsn(database).replace(f"127.0.0.1:{server.port}", f"{host}:{self.port}")

    async def welcome(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
        first = await reader.readexactly(8)
        while first in (_SSL_REQUEST, _GSS_REQUEST):
            if first == _SSL_REQUEST and self.context is not None:
                self.hellos += 1
                writer.write(b"S")
                await writer.start_tls(self.context)
            else:
                writer.write(b"N")
            first = await reader.readexactly(8)
        return first


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
