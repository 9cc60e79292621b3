"""Servers for one test each, and both kinds of sink behind one face."""

from __future__ import annotations

import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import nats
import pytest
from nats.js.api import StreamConfig

from tablewatcher.embedded import free_port
from tablewatcher.sinks.address import AddressPolicy
from tablewatcher.sinks.http import guard as http_guard
from tablewatcher.sinks.http.sink import HttpSink
from tablewatcher.sinks.nats import NatsSink, connection, dial, stream
from tablewatcher.sinks.shared_look import SharedLooks
from tablewatcher.spec import model

from .events import SOURCE, TABLE, MemorySecrets
from .servers import HttpServer, NatsServer

if TYPE_CHECKING:
    from nats.aio.client import Client
    from nats.aio.msg import Msg
    from nats.aio.subscription import Subscription

    from tablewatcher.event import Event
    from tablewatcher.sinks.base import Outcome, Sink

Names = dict[str, list[str]]
SUBJECT = "shop.{schema}.{table}.{action}"
SIGNING_SECRET = "whsec_c2lnbmluZyBrZXkgb2YgYSB0ZXN0"
FIRST_WITH_BATCHES = (2, 14)
HOOK = model.SecretKey("hook", "whsec")


def nats_sink(
    url: str,
    *,
    subject: str = SUBJECT,
    stream: str | None = None,
    form: model.Format = model.Format.STRUCTURED,
    secrets: MemorySecrets | None = None,
    columns: tuple[str, ...] = (),
    max_event_bytes: int = 0,
    **fields: object,
) -> NatsSink:
    return NatsSink(
        model.NatsSink((url,), subject, stream, **fields),
        format=form,
        source=SOURCE,
        table=TABLE,
        secrets=secrets or MemorySecrets(),
        routing_columns=columns,
        max_event_bytes=max_event_bytes,
    )


def http_sink(
    url: str,
    *,
    secrets: MemorySecrets | None = None,
    form: model.Format = model.Format.STRUCTURED,
    seconds: int = 30,
    signing: tuple[model.SecretKey, ...] = (),
    addresses: AddressPolicy | None = None,
    looks: SharedLooks | None = None,
    **fields: object,
) -> HttpSink:
    """`fields` are those of `model.HttpSink`."""
    return HttpSink(
        model.HttpSink(url, seconds, signing, **fields),
        format=form,
        source=SOURCE,
        namespace="shop",
        table=TABLE,
        secrets=secrets or MemorySecrets(),
        addresses=addresses or AddressPolicy(),
        looks=looks,
    )


async def add_stream(server: NatsServer, login: str = "", **config: object) -> None:
    """`login`: `user:password@`, as in a URL."""
    client = await nats.connect(server.url.replace("//", f"//{login}"))
    version = client.connected_server_version
    if (version.major, version.minor) < FIRST_WITH_BATCHES:
        config.pop("allow_batched", None)  # which it does not know: there streams are without
    try:
        await client.jetstream().add_stream(StreamConfig(**{"name": "SHOP", "subjects": ["shop.>"], **config}))
    finally:
        await client.close()


async def stored(server: NatsServer, stream: str = "SHOP") -> list[nats.js.api.RawStreamMsg]:
    """Every message of `stream`, in its order."""
    client = await nats.connect(server.url)
    try:
        jetstream = client.jetstream()
        last = (await jetstream.stream_info(stream)).state.last_seq
        return [await jetstream.get_msg(stream, seq) for seq in range(1, last + 1)]
    finally:
        await client.close()


PATIENCE = {
    (http_guard, "_LOOK_UP_SECONDS"): 30.0,
    (http_guard, "CONNECT_SECONDS"): 30.0,
    (dial, "CONNECT_SECONDS"): 30.0,
    (connection, "CONNECT_SECONDS"): 30.0,
    (connection, "_HANDSHAKE_SECONDS"): 20,
    (stream, "_SECONDS"): 20,
}


@pytest.fixture(autouse=True)
def patience(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that answers is waited for, though the machine stands still for seconds: it is not silent.

    For a test of silence, `usefixtures("own_patience")` leaves what sinks have of it.
    """
    if "own_patience" not in request.fixturenames:
        for (module, name), seconds in PATIENCE.items():
            monkeypatch.setattr(module, name, seconds)


@pytest.fixture
def own_patience() -> None:
    """See `patience`."""


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Names:
    """What the resolver answers; a name that is not in it does not exist."""
    found: Names = {}
    real = socket.getaddrinfo

    def look_up(host: object, port: object, *args: object, **options: object) -> object:
        name = host.decode() if isinstance(host, bytes) else str(host)
        if name.replace(".", "").isdigit() or ":" in name:
            return real(name, port, *args, **options)
        if not found.get(name):
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [info for address in found[name] for info in real(address, port, *args, **options)]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    return found


@pytest.fixture
def nats_server(tmp_path: Path) -> Iterator[NatsServer]:
    server = NatsServer(tmp_path)
    server.start()
    yield server
    server.kill()


@pytest.fixture
async def http_server() -> AsyncIterator[HttpServer]:
    server = HttpServer()
    await server.start()
    yield server
    await server.stop()


@dataclass
class Endpoint:
    """One kind of sink and the server at its other end.

    seen: event ids that arrived; with every attempt (HTTP), or once each (a stream removes duplicates).
    """

    kind: str
    sink: Sink
    unreachable: Sink
    down: Callable[[], Awaitable[None]]
    up: Callable[[], Awaitable[None]]
    seen: Callable[[], Awaitable[list[str]]]

    async def send(self, batch: list[Event]) -> list[Outcome]:
        """`batch` in calls of the size the sink asked for."""
        found: list[Outcome] = []
        size = self.sink.limits.max_batch
        for first in range(0, len(batch), size):
            found += await self.sink.deliver(batch[first : first + size])
        return found


NATS_WAYS = ["nats", "nats binary", "nats fast", "nats fast binary", "nats core", "nats core binary"]


@pytest.fixture(params=[*NATS_WAYS, "http", "http binary", "http batch"])
async def endpoint(request: pytest.FixtureRequest, tmp_path: Path, http_server: HttpServer) -> AsyncIterator[Endpoint]:
    """A sink, not yet open, of each kind."""
    kind, *ways = request.param.split()
    batch = model.Batch(100, 20_000) if ways == ["batch"] else model.Batch()
    form = model.Format.BINARY if "binary" in ways else model.Format.STRUCTURED
    if "core" in ways:
        made = await _core_endpoint(tmp_path, form)
    elif kind == "nats":
        made = await _nats_endpoint(tmp_path, form, fast="fast" in ways)
    else:
        made = _http_endpoint(http_server, form, batch)
    yield made
    await made.sink.close()
    await made.down()


async def _nats_endpoint(store: Path, form: model.Format, *, fast: bool) -> Endpoint:
    server = NatsServer(store)
    server.start()
    await add_stream(server, allow_batched=fast)

    async def down() -> None:
        server.kill()

    async def up() -> None:
        server.start()

    async def seen() -> list[str]:
        return [message.headers["Nats-Msg-Id"] for message in await stored(server)]

    nowhere = nats_sink(f"nats://127.0.0.1:{free_port()}", form=form)
    return Endpoint("nats", nats_sink(server.url, form=form), nowhere, down, up, seen)


async def subscribed(client: Client, cb: Callable[[Msg], Awaitable[None]] | None = None) -> Subscription:
    """A subscription to `shop.>` that the server knows of."""
    found = await client.subscribe("shop.>", cb=cb)
    for _ in range(2):  # the library sends its first PING before the subscription
        await client.flush()
    return found


async def _core_endpoint(store: Path, form: model.Format) -> Endpoint:
    """Core NATS, with somebody who listens whenever the server runs."""
    server = NatsServer(store)
    got: list[str] = []
    listening: list[Client] = []

    async def take(message: Msg) -> None:
        got.append(message.headers["Nats-Msg-Id"])

    async def up() -> None:
        server.start()
        # A new listener for each life of the server: a reconnect of the library is sometimes without its subscriptions.
        listening.append(await nats.connect(server.url, allow_reconnect=False, connect_timeout=30))
        await subscribed(listening[-1], cb=take)

    async def down() -> None:
        while listening:
            await listening.pop().drain()
        server.kill()

    async def seen() -> list[str]:
        await listening.pop().drain()
        return list(got)

    await up()
    nowhere = nats_sink(f"nats://127.0.0.1:{free_port()}", form=form, jet_stream=False)
    return Endpoint("nats", nats_sink(server.url, form=form, jet_stream=False), nowhere, down, up, seen)


def _http_endpoint(server: HttpServer, form: model.Format, batch: model.Batch) -> Endpoint:
    async def seen() -> list[str]:
        if form is model.Format.BINARY:
            return [request.headers["ce-id"] for request in server.received]
        found = [json.loads(request.body) for request in server.received]
        return [each["id"] for one in found for each in (one if isinstance(one, list) else [one])]

    nowhere = http_sink(f"http://127.0.0.1:{free_port()}/", form=form, batch=batch)
    sink = http_sink(server.url, form=form, batch=batch)
    return Endpoint("http", sink, nowhere, server.stop, server.start, seen)
