"""Servers and accounts that take no more: connections, subscriptions; and greetings that are none."""

from __future__ import annotations

import asyncio
from pathlib import Path

import nats
import pytest

from tablewatcher.errors import Reason, SinkError
from tablewatcher.sinks.base import Verdict
from tablewatcher.sinks.nats import NatsSink
from tablewatcher.spec.model import CreateStream, NatsAuth, SecretKey

from .accounts import Operator
from .conftest import nats_sink
from .events import MemorySecrets, event
from .servers import NatsServer


async def _refused(sink: NatsSink) -> str:
    with pytest.raises(SinkError) as caught:
        await sink.open()
    assert caught.value.reason is Reason.SINK_UNREACHABLE
    return caught.value.message


def _sink(server: NatsServer, operator: Operator) -> NatsSink:
    secrets = MemorySecrets({"login": {"user.creds": operator.creds(payload=2000)}})
    auth = NatsAuth(creds=SecretKey("login", "user.creds"))
    return nats_sink(server.url, auth=auth, secrets=secrets, stream="SHOP", create=CreateStream())


async def test_a_server_that_takes_no_more_connections_is_quoted(nats_server: NatsServer) -> None:
    """It says so and hangs up, while we write what it never reads."""
    nats_server.kill()
    nats_server.configure("max_connections: 1")
    nats_server.start()
    client = await nats.connect(nats_server.url)
    assert "maximum connections exceeded" in await _refused(nats_sink(nats_server.url))
    await client.close()


async def test_an_account_that_takes_no_more_subscriptions_is_quoted(tmp_path: Path) -> None:
    operator = Operator(subs=1)
    server = NatsServer(tmp_path, operator.config)
    server.start()
    assert "maximum subscriptions exceeded" in await _refused(_sink(server, operator))
    server.kill()


async def test_an_account_of_one_connection_is_enough(tmp_path: Path) -> None:
    """To ask for the bound of an event that was too large takes a second one."""
    operator = Operator(conn=1)
    server = NatsServer(tmp_path, operator.config)
    server.start()
    sink = _sink(server, operator)
    await sink.open()
    found = await sink.deliver([event(1, note="x" * 2000), event(2)])
    assert [each.verdict for each in found] == [Verdict.REJECTED, Verdict.DELIVERED]
    await sink.check()
    assert (await sink.deliver([event(3)]))[0].verdict is Verdict.DELIVERED
    await sink.close()
    server.kill()


@pytest.mark.parametrize("greeting", [b"INFO []", b"INFO 1", b"INFO {", b"INFO null", b"220 mail.example ESMTP"])
async def test_a_greeting_that_is_none_is_a_fault_like_others(greeting: bytes) -> None:
    async def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(greeting + b"\r\n")
        writer.close()

    async with await asyncio.start_server(greet, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        assert "spec.sink.nats.servers" in await _refused(nats_sink(f"nats://127.0.0.1:{port}"))
