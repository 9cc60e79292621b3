"""Names that stand for several addresses, one of which is of no use."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web

from tablewatcher.errors import SinkError
from tablewatcher.sinks.base import Verdict
from tablewatcher.spec.model import CaRef, Tls

from .authority import Authority
from .conftest import Names, http_sink
from .events import event
from .servers import HttpServer

BAD, GOOD = "127.0.0.2", "127.0.0.1"


@contextlib.asynccontextmanager
async def _says_nothing(port: int) -> AsyncIterator[None]:
    """Somebody at BAD who takes connections, and neither answers a request nor shakes hands."""

    async def read(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while await reader.read(1 << 16):
                pass
        writer.close()

    async with await asyncio.start_server(read, BAD, port):
        yield


@pytest.mark.parametrize("encrypted", [False, True])
async def test_an_address_that_takes_connections_and_says_nothing_is_left_for_another(
    names: Names, tmp_path: Path, encrypted: bool
) -> None:
    """A look finds the other one and is content: only requests can tell."""
    names["localhost"] = [BAD, GOOD]
    authority = Authority()
    server = HttpServer(tls=authority.server_context(tmp_path) if encrypted else None)
    await server.start()
    tls = Tls(CaRef("ConfigMap", "ca", "ca.crt")) if encrypted else None
    url = server.url.replace(GOOD, "localhost")
    sink = http_sink(url, seconds=3, secrets=authority.secrets, tls=tls)
    async with _says_nothing(server.port):
        await sink.open()
        found = [(await sink.deliver([event(n)]))[0].verdict for n in range(4)]
        await sink.close()
    await server.stop()
    assert found[0] is Verdict.RETRY
    assert Verdict.DELIVERED in found


async def test_a_server_that_is_not_well_is_left_for_another_of_its_name(names: Names) -> None:
    """Also on a connection that is kept: the next attempt may lead to a server that is well."""
    names["two.example"] = [BAD, GOOD]
    good = HttpServer()
    await good.start()
    answers = iter([204, 204])

    async def answer(_: web.Request) -> web.StreamResponse:
        return web.Response(status=next(answers, 503))

    bad = HttpServer(host=BAD, port=good.port, answer=answer)
    await bad.start()
    sink = http_sink(f"http://two.example:{good.port}/hook")
    await sink.open()
    found = [(await sink.deliver([event(n)]))[0].verdict for n in range(8)]
    await sink.close()
    for server in (bad, good):
        await server.stop()
    assert found[:3] == [Verdict.DELIVERED, Verdict.DELIVERED, Verdict.RETRY]
    assert found[-3:] == [Verdict.DELIVERED] * 3


async def test_what_is_said_of_nobody_there_is_always_the_same(names: Names) -> None:
    """Whichever address was tried first, by a look or a request: another message is news, and is written down."""
    names["two.example"] = [BAD, GOOD]
    server = HttpServer()
    await server.start()
    sink = http_sink(f"http://two.example:{server.port}/hook")
    await sink.open()
    await server.stop()
    said = {(await sink.deliver([event(n)]))[0].message for n in range(4)}
    with pytest.raises(SinkError) as looked:
        await sink.check()
    await sink.close()
    assert said == {looked.value.message}
    assert "(Connection refused)" in looked.value.message
