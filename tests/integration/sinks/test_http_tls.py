"""HTTPS endpoints with certificates good and bad, made for the test: what is trusted, and what a fault says to do."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import socket
import ssl
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import trustme
from aiohttp import web

from tablewatcher.errors import Reason, SinkError
from tablewatcher.sinks.base import Verdict
from tablewatcher.sinks.http import channel as http_channel
from tablewatcher.sinks.http import endpoint as http_endpoint
from tablewatcher.sinks.http import guard as http_guard
from tablewatcher.sinks.http.sink import HttpSink
from tablewatcher.spec.model import CaRef, Tls

from .authority import Authority
from .conftest import HOOK, SIGNING_SECRET, http_sink
from .events import MemorySecrets, event
from .servers import UNTRUSTED, HttpServer

CA = CaRef("ConfigMap", "ca", "ca.crt")


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@asynccontextmanager
async def _endpoint(context: ssl.SSLContext) -> AsyncIterator[str]:
    """The URL of an HTTPS endpoint."""
    server = HttpServer(tls=context)
    await server.start()
    try:
        yield server.url
    finally:
        await server.stop()


async def _fault(sink: HttpSink) -> str:
    """The message of the TLS fault that opening `sink` ends in."""
    with pytest.MonkeyPatch.context() as patient:
        # However late the server says no: a look waits for that no longer than it must.
        patient.setattr(http_guard, "_REFUSAL_SECONDS", 30.0)
        with pytest.raises(SinkError) as caught:
            await sink.open()
    assert caught.value.reason is Reason.TLS_FAILED, caught.value.message
    return caught.value.message


async def test_an_endpoint_of_the_manifests_authority_is_sent_to(authority: Authority, tmp_path: Path) -> None:
    async with _endpoint(authority.server_context(tmp_path)) as url:
        sink = http_sink(url, secrets=authority.secrets, tls=Tls(CA))
        await sink.open()
        await sink.check()
        assert [found.verdict for found in await sink.deliver([event(1), event(2)])] == [Verdict.DELIVERED] * 2
        await sink.close()


async def test_an_endpoint_of_another_authority_is_not(authority: Authority, tmp_path: Path) -> None:
    async with _endpoint(authority.server_context(tmp_path)) as url:
        for sink in (http_sink(url, secrets=Authority().secrets, tls=Tls(CA)), http_sink(url)):
            assert "spec.sink.http.tls.caRef" in await _fault(sink)


async def test_a_certificate_for_another_name_is_refused(authority: Authority, tmp_path: Path) -> None:
    async with _endpoint(authority.server_context(tmp_path, "elsewhere.example")) as url:
        message = await _fault(http_sink(url, secrets=authority.secrets, tls=Tls(CA)))
    assert "host name" in message


@pytest.mark.parametrize(("days", "advice"), [(-1, "renew"), (2, "clocks")])
async def test_a_certificate_out_of_its_time_is_refused(days: int, advice: str) -> None:
    made, now = trustme.CA(), datetime.datetime.now(datetime.UTC)
    end = now + datetime.timedelta(days=days)
    issued = made.issue_cert("localhost", not_before=end - datetime.timedelta(days=1), not_after=end)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    issued.configure_cert(context)
    pem = made.cert_pem.bytes().decode()
    async with _endpoint(context) as url:
        secrets = MemorySecrets(config_maps={"ca": {"ca.crt": pem}})
        assert advice in await _fault(http_sink(url, secrets=secrets, tls=Tls(CA)))


async def test_an_endpoint_that_asks_for_a_certificate_gets_it(authority: Authority, tmp_path: Path) -> None:
    stranger = MemorySecrets({"client": Authority().client}, config_maps={"ca": {"ca.crt": authority.pem}})
    async with _endpoint(authority.server_context(tmp_path, ask=True)) as url:
        for secrets, tls in ((authority.secrets, Tls(CA)), (stranger, Tls(CA, "client"))):
            assert "clientCertSecretRef" in await _fault(http_sink(url, secrets=secrets, tls=tls))
        sink = http_sink(url, secrets=authority.secrets, tls=Tls(CA, "client"))
        await sink.open()
        assert (await sink.deliver([event(1)]))[0].verdict is Verdict.DELIVERED
        await sink.close()


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_the_alert_of_a_server_that_wants_a_certificate_is_understood(
    authority: Authority, tmp_path: Path, version: ssl.TLSVersion
) -> None:
    """As servers other than Python's own do it: an alert, then the end."""
    context = authority.server_context(tmp_path, ask=True)
    context.minimum_version = context.maximum_version = version

    def serve(listening: socket.socket) -> None:
        accepted, _ = listening.accept()
        with accepted, contextlib.suppress(ssl.SSLError):
            context.wrap_socket(accepted, server_side=True)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        served = asyncio.create_task(asyncio.to_thread(serve, listening))
        port = listening.getsockname()[1]
        sink = http_sink(f"https://localhost:{port}/", secrets=authority.secrets, tls=Tls(CA))
        assert "clientCertSecretRef" in await _fault(sink)
        await served


async def test_a_server_that_asks_once_it_has_seen_the_path_gets_a_certificate(
    authority: Authority, tmp_path: Path
) -> None:
    """As Apache does over TLS 1.3 for a part of its site; it answers 403 to who has not said to be ready for that."""
    context = authority.server_context(tmp_path)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.verify_mode = ssl.CERT_OPTIONAL
    context.post_handshake_auth = True

    def answer(accepted: socket.socket) -> bytes:
        with context.wrap_socket(accepted, server_side=True) as talk:
            if not talk.recv(1 << 16):
                return b""  # a look
            try:
                talk.verify_client_post_handshake()
                talk.do_handshake()
                talk.settimeout(0.1)
                deadline = time.monotonic() + 20
                while not talk.getpeercert() and time.monotonic() < deadline:
                    with contextlib.suppress(TimeoutError):
                        talk.recv(1 << 16)
            except ssl.SSLError:
                talk.settimeout(5)
            said = b"204 No Content" if talk.getpeercert() else b"403 Forbidden"
            talk.sendall(b"HTTP/1.1 " + said + b"\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            return said

    def serve(listening: socket.socket) -> bytes:
        while True:
            accepted, _ = listening.accept()
            with accepted, contextlib.suppress(OSError):
                if said := answer(accepted):
                    return said

    with socket.create_server(("127.0.0.1", 0)) as listening:
        served = asyncio.create_task(asyncio.to_thread(serve, listening))
        url = f"https://localhost:{listening.getsockname()[1]}/"
        sink = http_sink(url, secrets=authority.secrets, tls=Tls(CA, "client"))
        await sink.open()
        (found,) = await sink.deliver([event(1)])
        await sink.close()
        assert await served == b"204 No Content"
    assert found.verdict is Verdict.DELIVERED


@pytest.mark.usefixtures("own_patience")
async def test_an_endpoint_that_does_one_thing_at_a_time_is_well_while_it_answers(
    authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It shakes no hands beside a connection that it serves; a look at it is for when it does not answer either."""
    monkeypatch.setattr(http_channel, "FRESH_SECONDS", 0.0)
    context = authority.server_context(tmp_path)

    def serve(listening: socket.socket) -> None:
        while True:
            try:
                accepted, _ = listening.accept()
            except OSError:
                return
            with accepted, contextlib.suppress(OSError), context.wrap_socket(accepted, server_side=True) as talk:
                while talk.recv(1 << 16):
                    talk.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")

    with socket.create_server(("127.0.0.1", 0)) as listening:
        served = asyncio.create_task(asyncio.to_thread(serve, listening))
        url = f"https://localhost:{listening.getsockname()[1]}/"
        sink = http_sink(url, secrets=authority.secrets, tls=Tls(CA))
        await sink.open()
        assert (await sink.deliver([event(1)]))[0].verdict is Verdict.DELIVERED
        monkeypatch.setattr(http_guard, "CONNECT_SECONDS", 0.2)
        monkeypatch.setattr(http_channel, "_BUSY_SECONDS", 60.0)
        await sink.check()
        monkeypatch.setattr(http_channel, "_BUSY_SECONDS", 0.1)
        with pytest.raises(SinkError) as caught:
            await sink.check()
        await sink.close()
        listening.shutdown(socket.SHUT_RDWR)
        await served
    assert "did not answer in time" in caught.value.message


async def test_an_endpoint_that_leaves_out_a_certificate_of_its_chain_is_told_so(tmp_path: Path) -> None:
    made = trustme.CA()
    below = made.create_child_ca().issue_cert("localhost")
    for name, blob in (("pem", below.cert_chain_pems[0]), ("key", below.private_key_pem)):
        blob.write_to_path(str(tmp_path / name))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(tmp_path / "pem", tmp_path / "key")
    async with _endpoint(context) as url:
        secrets = MemorySecrets(config_maps={"ca": {"ca.crt": made.cert_pem.bytes().decode()}})
        assert "between the two" in await _fault(http_sink(url, secrets=secrets, tls=Tls(CA)))


async def test_a_rotated_certificate_is_shown_on_new_connections(authority: Authority, tmp_path: Path) -> None:
    """The endpoint refuses whom it does not know at the level of HTTP, which is when Secrets are read again."""
    context = authority.server_context(tmp_path)
    context.verify_mode = ssl.CERT_OPTIONAL
    shown: list[str | None] = []

    async def answer(request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        found = request.transport.get_extra_info("peercert")
        shown.append(found and found["serialNumber"])
        return web.Response(status=401 if len(shown) == 2 else 204)

    server = HttpServer(answer=answer, tls=context)
    await server.start()
    secrets = MemorySecrets(
        {"client": authority.client, "hook": {"whsec": SIGNING_SECRET}}, config_maps={"ca": {"ca.crt": authority.pem}}
    )
    sink = http_sink(server.url, secrets=secrets, tls=Tls(CA, "client"), signing=(HOOK,))
    await sink.open()
    await sink.deliver([event(1)])
    secrets.values["client"] = authority.new_client()
    await sink.deliver([event(2)])
    await sink.deliver([event(3)])
    await sink.close()
    await server.stop()
    first, second, third = shown
    assert first == second != third


@contextlib.contextmanager
def _strict(context: ssl.SSLContext) -> Iterator[str]:
    """The URL of an endpoint that says by an alert what it has against a certificate, as asyncio's servers do not."""

    class Taker(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        def finish_request(self, request: Any, client_address: Any) -> None:
            with contextlib.suppress(OSError), context.wrap_socket(request, server_side=True) as wrapped:
                super().finish_request(wrapped, client_address)

    with Server(("127.0.0.1", 0), Taker) as server:
        serving = threading.Thread(target=server.serve_forever, args=(0.01,))
        serving.start()
        try:
            yield f"https://localhost:{server.server_port}/"
        finally:
            server.shutdown()
            serving.join()


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("bad", ["expired", "unknown"])
async def test_a_certificate_of_ours_is_said_to_have_expired_and_the_next_one_is_used(
    authority: Authority, tmp_path: Path, version: ssl.TLSVersion, bad: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a look and by what is sent alike, though with TLS 1.3 the alert may be lost on its way to what is sent."""
    monkeypatch.setattr(http_endpoint, "_FRESH_SECONDS", 0.0)
    context = authority.server_context(tmp_path, ask=True)
    context.minimum_version = context.maximum_version = version
    words = {"expired": "our certificate has expired", "unknown": "does not trust our certificate"}[bad]
    refused = authority.new_client(seconds=-1) if bad == "expired" else Authority().client
    secrets = MemorySecrets({"client": authority.client}, config_maps={"ca": {"ca.crt": authority.pem}})
    with _strict(context) as url:
        sink = http_sink(url, secrets=secrets, tls=Tls(CA, "client"))
        await sink.open()
        monkeypatch.setattr(http_guard, "_REFUSAL_SECONDS", 30.0)
        secrets.values["client"] = refused
        await sink.deliver([event(1)])
        with pytest.raises(SinkError) as caught:
            await sink.check()
        assert words in caught.value.message
        for _ in range(10):
            (found,) = await sink.deliver([event(1)])
            assert (found.verdict, found.reason, found.endpoint) == (Verdict.RETRY, Reason.TLS_FAILED, True)
            assert words in found.message
            assert "spec.sink.http.tls.clientCertSecretRef" in found.message
        # What is put there in its place is told where it is of no use either.
        secrets.values["client"] = authority.client | {"tls.key": authority.new_client()["tls.key"]}
        await sink.deliver([event(1)])
        (found,) = await sink.deliver([event(1)])
        assert words in found.message
        assert "tls.crt and tls.key are not a certificate and its key" in found.message
        secrets.values["client"] = authority.new_client()
        assert (await sink.deliver([event(1)]))[0].verdict is Verdict.DELIVERED
        await sink.close()


async def test_an_endpoint_that_hangs_up_is_said_to_do_so_for_want_of_a_certificate(
    authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without an alert, as asyncio's servers do: what is sent tells less than a look, and must not contradict it."""
    monkeypatch.setattr(http_endpoint, "_FRESH_SECONDS", 0.0)
    secrets = MemorySecrets({"client": authority.client}, config_maps={"ca": {"ca.crt": authority.pem}})
    async with _endpoint(authority.server_context(tmp_path, ask=True)) as url:
        sink = http_sink(url, secrets=secrets, tls=Tls(CA, "client"))
        await sink.open()
        monkeypatch.setattr(http_guard, "_REFUSAL_SECONDS", 30.0)
        secrets.values["client"] = authority.new_client(seconds=-1)
        assert (await sink.deliver([event(1)]))[0].verdict is Verdict.RETRY
        with pytest.raises(SinkError) as caught:
            await sink.check()
        (found,) = await sink.deliver([event(1)])
        assert (found.reason, found.message) == (Reason.TLS_FAILED, caught.value.message)
        assert "clientCertSecretRef" in found.message
        await sink.close()


async def test_another_authority_is_used_as_soon_as_the_endpoint_has_one(authority: Authority, tmp_path: Path) -> None:
    other = Authority()
    secrets = MemorySecrets(config_maps={"ca": {"ca.crt": authority.pem}})
    server = HttpServer(tls=authority.server_context(tmp_path))
    await server.start()
    sink = http_sink(server.url, secrets=secrets, tls=Tls(CA))
    await sink.open()
    assert (await sink.deliver([event(1)]))[0].verdict is Verdict.DELIVERED
    await server.stop()
    server.tls = other.server_context(tmp_path)
    await server.start()
    (found,) = await sink.deliver([event(2)])
    assert (found.verdict, found.reason, found.endpoint) == (Verdict.RETRY, Reason.TLS_FAILED, True)
    assert "spec.sink.http.tls.caRef" in found.message
    secrets.config_maps["ca"]["ca.crt"] = other.pem
    assert (await sink.deliver([event(2)]))[0].verdict is Verdict.DELIVERED
    await sink.check()
    await sink.close()
    await server.stop()


async def test_a_certificate_nobody_vouches_for_is_refused() -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(UNTRUSTED)
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0, ssl=context)
    port = server.sockets[0].getsockname()[1]
    with pytest.raises(SinkError) as caught:
        await http_sink(f"https://localhost:{port}/").open()
    assert caught.value.reason is Reason.TLS_FAILED
    server.close()
    await server.wait_closed()


async def test_plain_http_where_tls_is_expected_is_a_tls_fault(http_server: HttpServer) -> None:
    with pytest.raises(SinkError) as caught:
        await http_sink(http_server.url.replace("http:", "https:")).open()
    assert caught.value.reason is Reason.TLS_FAILED
