"""Every setting of an HTTP sink in one manifest, Secrets as files; and the listener's say in where it may be."""

from __future__ import annotations

import asyncio
import base64
import json
import secrets
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
import trustme
from aiohttp import web
from standardwebhooks import Webhook

from ..conftest import Database, HttpReceiver, poll
from .commands import manifest, tablewatcher, write, write_secret
from .programs import PROGRAM, running

KEY = "whsec_" + base64.b64encode(secrets.token_bytes(24)).decode()


class Hooks:
    """An HTTPS endpoint that only takes clients with a certificate of its authority."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.authority = trustme.CA()
        self.requests: list[tuple[dict[str, str], bytes]] = []

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cadata=self.authority.cert_pem.bytes().decode())
        self.authority.issue_cert("localhost").configure_cert(context)
        context.verify_mode = ssl.CERT_REQUIRED
        app = web.Application()
        app.router.add_post("/orders", self._take)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", self.port, ssl_context=context).start()
        try:
            yield
        finally:
            await runner.cleanup()

    async def _take(self, request: web.Request) -> web.Response:
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.requests.append((headers, await request.read()))
        return web.Response(status=204)


@pytest.fixture
async def hooks(free_port: Callable[[], int]) -> AsyncIterator[Hooks]:
    found = Hooks(free_port())
    async with found.serving():
        yield found


@pytest.fixture
async def files(database: Database, hooks: Hooks, tmp_path: Path) -> tuple[Path, Path]:
    """Manifest and Secrets of an applied watcher that uses every field of an HTTP sink."""
    sink = {
        "urlSecretRef": {"name": "hook", "key": "url"},
        "headers": [
            {"name": "Authorization", "valueFrom": {"secretKeyRef": {"name": "hook", "key": "token"}}},
            {"name": "X-Team", "value": "shop"},
        ],
        "signing": {"secretRefs": [{"name": "hook", "key": "whsec"}]},
        "timeoutSeconds": 30,
        "batch": {"maxEvents": 10, "maxBytes": 65536, "lingerMilliseconds": 50},
        "concurrency": 2,
        "tls": {
            "caRef": {"kind": "ConfigMap", "name": "hook-ca", "key": "ca.crt"},
            "clientCertSecretRef": {"name": "hook-client"},
        },
    }
    await database.execute("CREATE TABLE public.orders (id bigint PRIMARY KEY, status text)")
    manifests = write(tmp_path / "manifests", manifest(sink={"http": sink}))
    client = hooks.authority.issue_cert("listener@tablewatcher.test")
    folder = write_secret(
        tmp_path / "secrets",
        "hook",
        url=f"https://localhost:{hooks.port}/orders?token=quiet",
        token="Bearer quiet",
        whsec=KEY,
    )
    write_secret(
        folder,
        "hook-client",
        **{
            "tls.crt": client.cert_chain_pems[0].bytes().decode(),
            "tls.key": client.private_key_pem.bytes().decode(),
        },
    )
    write_secret(folder / "configmaps", "hook-ca", **{"ca.crt": hooks.authority.cert_pem.bytes().decode()})
    applied = await tablewatcher("apply", "-f", manifests, "--dsn", database.dsn)
    assert applied.code == 0, applied.err
    return manifests, folder


@asynccontextmanager
async def listening(
    files: tuple[Path, Path], database: Database, port: int, *options: str
) -> AsyncIterator[Callable[[], Awaitable[str]]]:
    """`tablewatcher listen`, ended again; gives the watcher's reason. Nothing of a Secret is in its log."""
    command = (PROGRAM, "listen", "-f", files[0], "--secrets-dir", files[1], "--dsn", database.dsn, "--http-port", port)

    async def reason() -> str:
        try:
            async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{port}/readyz") as answer:
                return str((await answer.json())["watchers"]["shop/orders"]["reason"])
        except (aiohttp.ClientError, KeyError):
            return ""

    async with running(*command, *options) as listener:
        yield reason
    assert "quiet" not in listener.err


async def test_all_of_it_together(
    database: Database, hooks: Hooks, files: tuple[Path, Path], free_port: Callable[[], int]
) -> None:
    async with listening(files, database, free_port()):
        await database.execute("INSERT INTO orders SELECT id, 'new' FROM generate_series(1, 25) id")
        await poll(lambda: sum(len(json.loads(body)) for _, body in hooks.requests) >= 25, 40)
    seen = [each["data"]["key"]["id"] for _, body in hooks.requests for each in json.loads(body)]
    assert sorted(seen) == list(range(1, 26))
    assert len(hooks.requests) < 25
    for headers, body in hooks.requests:
        Webhook(KEY).verify(body, headers)
        assert (headers["authorization"], headers["x-team"]) == ("Bearer quiet", "shop")
        assert len(json.loads(body)) <= 10


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (("--http-public-only",), "AddressRefused"),
        (("--http-public-only", "--http-allow", "127.0.0.0/8", "--http-allow", "::1"), "Forwarding"),
        (("--http-public-only", "--http-allow", "localhost"), "Forwarding"),
        (("--http-allow", "localhost", "--http-deny", "localhost"), "AddressRefused"),
    ],
)
async def test_the_listener_decides_where_a_sink_may_be(
    database: Database,
    hooks: Hooks,
    files: tuple[Path, Path],
    free_port: Callable[[], int],
    options: tuple[str, ...],
    reason: str,
) -> None:
    async with listening(files, database, free_port(), *options) as told:
        await database.execute("INSERT INTO orders VALUES (1, 'new')")

        async def settled() -> bool:
            return await told() == reason and bool(hooks.requests) == (reason == "Forwarding")

        await poll(settled, 40)
    where = ("-f", files[0], "--secrets-dir", files[1], "--dsn", database.dsn, "-o", "json")
    checked, planned = await asyncio.gather(*(tablewatcher(word, *where, *options) for word in ("doctor", "plan")))
    refused = None if reason == "Forwarding" else reason
    (line,) = (each for each in checked.watchers["shop/orders"]["checks"] if each["check"] == "sink")
    assert (line.get("reason"), planned.watchers["shop/orders"].get("reason")) == (refused, refused)


@pytest.mark.parametrize("value", ["0", "Thu, 01 Jan 2026 00:00:00 GMT"])
async def test_an_endpoint_that_asks_for_no_wait_is_not_flooded(
    database: Database, http_receiver: HttpReceiver, tmp_path: Path, free_port: Callable[[], int], value: str
) -> None:
    http_receiver.respond = lambda _: web.Response(status=503, headers={"Retry-After": value})
    await database.execute("CREATE TABLE public.orders (id bigint PRIMARY KEY, status text)")
    backoff = {"initialMilliseconds": 1000, "maxSeconds": 60}
    watcher = manifest(sink={"http": {"url": http_receiver.url}}, delivery={"backoff": backoff})
    manifests = write(tmp_path / "manifests", watcher)
    assert (await tablewatcher("apply", "-f", manifests, "--dsn", database.dsn)).code == 0
    await database.execute("INSERT INTO orders SELECT id, 'new' FROM generate_series(1, 50) id")
    async with listening((manifests, tmp_path), database, free_port()):
        await http_receiver.wait_for(1, 40)
        # The first may be as many at a time as there are lanes: what counts is what comes of them.
        await asyncio.sleep(1)
        seen = len(http_receiver.requests)
        await asyncio.sleep(3)
        assert len(http_receiver.requests) - seen < 10
        http_receiver.respond = lambda _: 204
        await poll(lambda: len(http_receiver.requests) >= seen + 50, 60)
