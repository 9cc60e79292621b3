"""Certificates change under a running listener, as a kubelet or a person puts them in place: nothing stops for good."""

from __future__ import annotations

import asyncio
import json
import ssl
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nats
import pytest
import trustme
from nats.js.api import StreamConfig

from ..conftest import Database, HttpReceiver, Stream, poll
from ..integration.mounts import Mount
from ..integration.sinks.servers import NatsServer
from ..integration.tls_front import TlsFront, certificate, pem
from .arrivals import Endpoint, streamed_all
from .checker import Arrival, Change, Outcome, check
from .conftest import MakeListener
from .listeners import apply, http_sink, nats_sink, write_manifest
from .writers import TABLES, Writers

TLS = {
    "caRef": {"kind": "ConfigMap", "name": "ca", "key": "ca.crt"},
    "clientCertSecretRef": {"name": "client"},
}


@dataclass(frozen=True, slots=True)
class Identities:
    """Who signs whom. A new authority of the servers makes a new one of these."""

    servers: trustme.CA
    clients: trustme.CA

    @property
    def bundle(self) -> dict[str, str]:
        return {"ca.crt": pem(self.servers)}

    def client(self, seconds: float = 3600.0) -> dict[str, str]:
        return certificate(self.clients, "listener", seconds)

    def context(self) -> ssl.SSLContext:
        """Of a server that lets nobody in without a certificate."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.servers.issue_cert("localhost").configure_cert(context)
        context.load_verify_locations(cadata=pem(self.clients))
        context.verify_mode = ssl.CERT_REQUIRED
        return context


class Consumer(ABC):
    """Who gets the events. refusal: what the listener says when our certificate has expired."""

    refusal: str

    @property
    @abstractmethod
    def sink(self) -> dict[str, Any]:
        """That of the manifest."""

    @abstractmethod
    async def restart(self, identities: Identities) -> None:
        """All connections end, and the next ones meet these."""

    @abstractmethod
    async def got(self, wanted: set[Change]) -> list[Arrival]:
        """All that came, once `wanted` did."""


class NatsConsumer(Consumer):
    refusal = "our certificate has expired"

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.server = NatsServer(folder)
        self._stream = Stream("SHOP", "shop", self.server.url)

    @property
    def sink(self) -> dict[str, Any]:
        found = nats_sink(f"tls://localhost:{self.server.port}", "shop")
        found["nats"]["tls"] = TLS
        return found

    async def restart(self, identities: Identities) -> None:
        files = {"ca.pem": pem(identities.clients), **certificate(identities.servers, "localhost")}
        for name, text in files.items():
            (self._folder / name).write_text(text)
        certificates = (json.dumps(str(self._folder / name)) for name in ("tls.crt", "tls.key", "ca.pem"))
        config = "tls {{cert_file: {}, key_file: {}, ca_file: {}, verify: true}}".format(*certificates)
        # We may read without: whoever was told to use TLS never does.
        await self._restart(f"{config}\nallow_non_tls: true")

    async def got(self, wanted: set[Change]) -> list[Arrival]:
        return await streamed_all(self._stream, wanted)

    async def _restart(self, config: str) -> None:
        self.server.kill()
        self.server.configure(config)
        await asyncio.to_thread(self.server.start)

    async def make_stream(self) -> None:
        await self._restart("")
        async with await nats.connect(self.server.url) as client:
            await client.jetstream().add_stream(StreamConfig(name="SHOP", subjects=["shop.>"]))


class HttpConsumer(Consumer):
    refusal = "spec.sink.http.tls.clientCertSecretRef"

    def __init__(self) -> None:
        self.receiver = HttpReceiver()
        self._endpoint = Endpoint(self.receiver)

    @property
    def sink(self) -> dict[str, Any]:
        found = http_sink(f"https://localhost:{self.receiver.port}/")
        found["http"]["tls"] = TLS
        return found

    async def restart(self, identities: Identities) -> None:
        await self.receiver.stop()
        self.receiver.tls = identities.context()
        await self.receiver.start()

    async def got(self, wanted: set[Change]) -> list[Arrival]:
        return await self._endpoint.accepted_all(wanted)


@pytest.fixture
async def consumer(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    if request.param == "http":
        over_http = HttpConsumer()
        yield over_http
        await over_http.receiver.stop()
        return
    (tmp_path / "nats").mkdir()
    over_nats = NatsConsumer(tmp_path / "nats")
    await over_nats.make_stream()
    yield over_nats
    over_nats.server.kill()


def _manifest(path: Path, sink: dict[str, Any]) -> Path:
    write_manifest(path, sink)
    found = json.loads(path.read_text())
    found["spec"]["database"]["tls"] = TLS
    path.write_text(json.dumps(found))
    return path


async def _backends(database: Database) -> set[int]:
    query = "SELECT pid FROM pg_stat_activity WHERE application_name LIKE 'tablewatcher listener%'"
    return {pid for (pid,) in await database.execute(f"{query} AND datname = current_database()")}


@pytest.mark.parametrize(("consumer", "put"), [("nats", Mount.put), ("http", Mount.overwrite)], indirect=["consumer"])
async def test_certificates_and_authorities_are_exchanged_while_events_flow(
    tmp_path: Path,
    database: Database,
    consumer: Consumer,
    make_listener: MakeListener,
    put: Callable[[Mount, Mapping[str, str]], None],
) -> None:
    old, writers = Identities(trustme.CA(), trustme.CA()), Writers(database.dsn, count=4)
    client = Mount(tmp_path / "secrets" / "client", old.client())
    bundle = Mount(tmp_path / "secrets" / "configmaps" / "ca", old.bundle)
    manifest = _manifest(tmp_path / "w.yaml", consumer.sink)
    await database.execute(TABLES)
    await consumer.restart(old)
    async with TlsFront(database.server, old.context()) as front:
        dsn = front.dsn("localhost", database.name)
        await apply(manifest, dsn, "--secrets-dir", tmp_path / "secrets")
        listener = make_listener(manifest, dsn, "--secrets-dir", tmp_path / "secrets")
        listener.start()
        await poll(listener.forwards, 40)

        async def says(words: str) -> bool:
            _, reason, message = await listener.state()
            # The front is asyncio's and hangs up without an alert, which libpq does not always know as of TLS.
            return reason in ("TLSFailed", "DatabaseUnreachable") and words in message

        async def delivers() -> None:
            before = await listener.delivered()
            await writers.progress(50)

            async def more() -> bool:
                return await listener.delivered() > before

            await poll(more, 40)

        async with writers.running():
            # In good time: whoever is connected stays so.
            connected = await _backends(database)
            put(client, old.client())
            await delivers()
            assert await _backends(database) == connected

            # Too late: servers trust another authority by now, and the first certificate of that has expired.
            strict = Identities(old.servers, trustme.CA())
            await consumer.restart(strict)
            await poll(lambda: says("tls.clientCertSecretRef"), 40)
            put(client, strict.client(seconds=-1))
            await poll(lambda: says(consumer.refusal), 40)
            assert await listener.metric("listener_connected") == 0
            front.context = strict.context()
            await front.cut()
            await poll(lambda: says("spec.database.tls.clientCertSecretRef"), 40)
            await writers.progress(50)

            # They have certificates of another authority too, which is put in place after ours.
            new = Identities(trustme.CA(), strict.clients)
            front.context = new.context()
            await consumer.restart(new)
            put(client, new.client())
            await poll(lambda: says("spec.database.tls.caRef"), 40)
            put(bundle, new.bundle)
            await poll(listener.forwards, 40)
            await delivers()
        assert (writers.faults, writers.history.count(Outcome.INFO)) == ([], 0)
        arrivals = await consumer.got(writers.history.ok)
        assert check(writers.history, arrivals) == []
