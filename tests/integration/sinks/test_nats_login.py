"""Signing in to a real nats-server, with and without TLS: what works, what is said if it does not, what never leaks."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from tablewatcher.errors import Reason, SinkError
from tablewatcher.sinks.base import Verdict
from tablewatcher.sinks.nats import NatsSink
from tablewatcher.spec.model import CaRef, CreateStream, NatsAuth, SecretKey, Tls

from ..running import running_time
from .accounts import Operator, key_pair, public
from .authority import Authority
from .conftest import Names, nats_sink
from .events import MemorySecrets, events
from .servers import NatsServer, until

CA = CaRef("Secret", "ca", "ca.crt")
CREATE = {"stream": "SHOP", "create": CreateStream()}


@contextmanager
def _running(store: Path, config: str) -> Iterator[NatsServer]:
    server = NatsServer(store, config)
    server.start()
    try:
        yield server
    finally:
        server.kill()


async def _reason_of_open(sink: NatsSink) -> SinkError:
    with pytest.raises(SinkError) as caught:
        await sink.open()
    await sink.close()
    return caught.value


async def _delivers(sink: NatsSink, first: int = 1) -> bool:
    return {each.verdict for each in await sink.deliver(events(3, first=first))} == {Verdict.DELIVERED}


async def _delivers_within(sink: NatsSink, first: int, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not await _delivers(sink, first):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)


SEED = key_pair()
OPERATOR = Operator()
PASSWORD = 's3cret-"ü'
WAYS: dict[str, tuple[str, NatsAuth, dict[str, dict[str, str]]]] = {
    "user and password": (
        f"authorization {{user: w, password: {json.dumps(PASSWORD, ensure_ascii=False)}}}",
        NatsAuth(user_password="login"),
        {"login": {"username": "w\n", "password": f"{PASSWORD}\n"}},
    ),
    "token": (
        'authorization {token: "t0ken-s3cret"}',
        NatsAuth(token=SecretKey("login", "token")),
        {"login": {"token": "t0ken-s3cret\n"}},
    ),
    "nkey": (
        f"authorization {{users: [{{nkey: {public(SEED)}}}]}}",
        NatsAuth(nkey=SecretKey("login", "seed")),
        {"login": {"seed": f"{SEED.seed.decode()}\n"}},
    ),
    "creds": (
        OPERATOR.config,
        NatsAuth(creds=SecretKey("login", "user.creds")),
        {"login": {"user.creds": OPERATOR.creds()}},
    ),
}
WRONG: dict[str, dict[str, str]] = {
    "user and password": {"username": "w", "password": "s3cret-other"},
    "token": {"token": "s3cret-other"},
    "nkey": {"seed": key_pair().seed.decode()},
    "creds": {"user.creds": Operator().creds()},
}
RUBBISH: dict[str, dict[str, str]] = {
    "nkey": {"seed": "s3cret-rubbish"},
    "creds": {"user.creds": "s3cret-rubbish"},
}


@pytest.mark.parametrize("way", WAYS)
async def test_each_way_to_sign_in(tmp_path: Path, way: str, caplog: pytest.LogCaptureFixture) -> None:
    config, auth, values = WAYS[way]
    caplog.set_level(logging.DEBUG)
    with _running(tmp_path, config) as server:
        sink = nats_sink(server.url, auth=auth, secrets=MemorySecrets(dict(values)), **CREATE)
        await sink.open()
        assert await _delivers(sink)
        await sink.close()
        assert (await _reason_of_open(nats_sink(server.url))).reason is Reason.SINK_AUTH_FAILED
    for value in values["login"].values():
        assert value.strip() not in caplog.text


@pytest.mark.parametrize(
    ("way", "values", "reason"),
    [
        *((way, {"login": wrong}, Reason.SINK_AUTH_FAILED) for way, wrong in WRONG.items()),
        *((way, {"login": rubbish}, Reason.SINK_AUTH_FAILED) for way, rubbish in RUBBISH.items()),
        *((way, {"login": {"other": "x"}}, Reason.SECRET_KEY_MISSING) for way in WAYS),
        *((way, {}, Reason.SECRET_NOT_FOUND) for way in WAYS),
    ],
)
async def test_what_does_not_let_us_in_is_said_and_not_shown(
    tmp_path: Path, way: str, values: dict[str, dict[str, str]], reason: Reason
) -> None:
    config, auth, _ = WAYS[way]
    with _running(tmp_path, config) as server:
        async with running_time() as took:
            error = await _reason_of_open(nats_sink(server.url, auth=auth, secrets=MemorySecrets(values), **CREATE))
        assert took.seconds < 5
    assert error.reason is reason
    assert "s3cret" not in error.message
    assert "SU" not in error.message or "begins with SU" in error.message
    assert "login" in error.message or "spec.sink.nats.auth" in error.message


async def test_a_changed_password_is_used_at_the_next_connection(tmp_path: Path) -> None:
    secrets = MemorySecrets({"login": {"username": "w", "password": "one"}})
    with _running(tmp_path, "authorization {user: w, password: one}") as server:
        sink = nats_sink(server.url, auth=NatsAuth(user_password="login"), secrets=secrets, **CREATE)
        await sink.open()
        assert await _delivers(sink)
        server.kill()
        server.configure("authorization {user: w, password: two}")
        server.start()
        deadline = time.monotonic() + 30
        while (outcome := (await sink.deliver(events(1, first=4)))[0]).reason is not Reason.SINK_AUTH_FAILED:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.05)
        assert (outcome.verdict, outcome.endpoint) == (Verdict.RETRY, True)
        with pytest.raises(SinkError) as caught:
            await sink.check()
        assert caught.value.reason is Reason.SINK_AUTH_FAILED
        secrets.values["login"] = {"username": "w", "password": "two"}
        await _delivers_within(sink, 4)
        await sink.close()


class ShortLived(MemorySecrets):
    """Whoever reads gets credentials of his own, which are good for two seconds at least."""

    def read(self, name: str) -> dict[str, str]:
        return {"user.creds": OPERATOR.creds(time.time() + 3)}


async def test_credentials_that_expire_are_read_anew(tmp_path: Path) -> None:
    with _running(tmp_path, OPERATOR.config) as server:
        auth = NatsAuth(creds=SecretKey("login", "user.creds"))
        sink = nats_sink(server.url, auth=auth, secrets=ShortLived(), **CREATE)
        await sink.open()
        connection = sink._connection
        await _delivers_within(sink, 1)
        await until(lambda: sink._connection is not connection)  # the server ends what has expired
        await _delivers_within(sink, 4)
        await sink.close()


async def test_a_secret_that_goes_is_said_while_the_sink_is_away(tmp_path: Path) -> None:
    config, auth, values = WAYS["token"]
    secrets = MemorySecrets(dict(values))
    with _running(tmp_path, config) as server:
        sink = nats_sink(server.url, auth=auth, secrets=secrets, **CREATE)
        await sink.open()
        secrets.values.clear()
        server.kill()
        server.start()
        deadline = time.monotonic() + 30
        while (await sink.deliver(events(1)))[0].reason is not Reason.SECRET_NOT_FOUND:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.05)
        secrets.values |= values
        await _delivers_within(sink, 1)
        await sink.close()


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


def _tls(authority: Authority, folder: Path, more: str = "", name: str = "localhost", seconds: float = 86_400.0) -> str:
    ca, certificate, key = (json.dumps(str(path)) for path in authority.write(folder, name, seconds))
    return f"tls {{cert_file: {certificate}, key_file: {key}, ca_file: {ca}\n{more}\n}}"


def _url(server: NatsServer, scheme: str = "nats") -> str:
    return f"{scheme}://localhost:{server.port}"


@pytest.mark.parametrize("scheme", ["nats", "tls"])
@pytest.mark.parametrize(
    ("more", "tls"),
    [
        ("", Tls(CA)),
        ("verify: true", Tls(CA, "client")),
        ("handshake_first: true", Tls(CA, handshake_first=True)),
        ("verify: true\nhandshake_first: true", Tls(CA, "client", handshake_first=True)),
    ],
)
async def test_an_encrypted_connection(tmp_path: Path, authority: Authority, scheme: str, more: str, tls: Tls) -> None:
    with _running(tmp_path, _tls(authority, tmp_path, more)) as server:
        sink = nats_sink(_url(server, scheme), tls=tls, secrets=authority.secrets, **CREATE)
        await sink.open()
        assert await _delivers(sink)
        server.kill()
        server.start()
        await _delivers_within(sink, 4)
        await sink.close()


@pytest.mark.parametrize("first", [False, True])
async def test_a_name_that_ends_in_a_dot_is_that_of_the_certificate(
    tmp_path: Path, authority: Authority, names: Names, first: bool
) -> None:
    """As people write it in a cluster, so that a name is looked up once and not with every suffix there is."""
    names |= {"localhost.": ["127.0.0.1"]}
    with _running(tmp_path, _tls(authority, tmp_path, "handshake_first: true" if first else "")) as server:
        url = f"tls://localhost.:{server.port}"
        sink = nats_sink(url, tls=Tls(CA, handshake_first=first), secrets=authority.secrets, **CREATE)
        await sink.open()
        assert await _delivers(sink)
        await sink.close()


async def test_tls_that_is_only_offered_is_taken(tmp_path: Path, authority: Authority) -> None:
    config = _tls(authority, tmp_path) + "\nallow_non_tls: true"
    with _running(tmp_path, config) as server:
        sink = nats_sink(_url(server), tls=Tls(CA), secrets=authority.secrets, **CREATE)
        await sink.open()
        assert await _delivers(sink)
        stranger = nats_sink(_url(server), tls=Tls(CA), secrets=Authority().secrets, **CREATE)
        assert (await _reason_of_open(stranger)).reason is Reason.TLS_FAILED
        await sink.close()


@pytest.mark.parametrize(
    ("more", "name", "tls", "words"),
    [
        ("", "localhost", None, "caRef"),
        ("", "localhost", Tls(), "caRef"),
        ("", "elsewhere.test", Tls(CA), "a host name that the certificate is for"),
        ("verify: true", "localhost", Tls(CA), "clientCertSecretRef"),
    ],
)
async def test_what_is_wrong_with_tls_is_said(
    tmp_path: Path, authority: Authority, more: str, name: str, tls: Tls | None, words: str
) -> None:
    with _running(tmp_path, _tls(authority, tmp_path, more, name)) as server:
        error = await _reason_of_open(nats_sink(_url(server), tls=tls, secrets=authority.secrets))
    assert error.reason is Reason.TLS_FAILED
    assert words in error.message


@pytest.mark.parametrize(
    ("client", "server_seconds", "words"),
    [
        (lambda ours: ours.new_client(seconds=-1), 60, "our certificate has expired"),
        (lambda _: Authority().client, 60, "does not trust our certificate"),
        (lambda ours: ours.client, -1, "renew the server's certificate"),
    ],
)
async def test_whose_certificate_has_expired_is_said_and_the_next_one_is_used(
    tmp_path: Path,
    authority: Authority,
    client: Callable[[Authority], dict[str, str]],
    server_seconds: float,
    words: str,
) -> None:
    secrets = MemorySecrets({"client": client(authority), "ca": {"ca.crt": authority.pem}})
    config = partial(_tls, authority, tmp_path, "verify: true")
    with _running(tmp_path, config(seconds=server_seconds)) as server:
        sink = nats_sink(_url(server), tls=Tls(CA, "client"), secrets=secrets, **CREATE)
        error = await _reason_of_open(sink)
        assert (error.reason, words in error.message) == (Reason.TLS_FAILED, True), error.message
        secrets.values["client"] = authority.new_client()
        server.reload(config())  # writes new files for the server too
        await until(lambda: "Reloaded server configuration" in server.log)
        await sink.open()
        await _delivers_within(sink, 1)
        await sink.close()


@pytest.mark.usefixtures("own_patience")
@pytest.mark.parametrize(
    ("more", "tls", "reasons"),
    [
        # The server's greeting is met as a broken handshake, or it was read before and the server waits for more.
        ("", Tls(CA, handshake_first=True), {Reason.TLS_FAILED, Reason.SINK_UNREACHABLE}),
        # Each side waits for the other: all that is seen is silence.
        ("handshake_first: true", Tls(CA), {Reason.SINK_UNREACHABLE}),
    ],
)
async def test_who_begins_with_tls_must_be_agreed(
    tmp_path: Path, authority: Authority, more: str, tls: Tls, reasons: set[Reason]
) -> None:
    with _running(tmp_path, _tls(authority, tmp_path, more)) as server:
        error = await _reason_of_open(nats_sink(_url(server), tls=tls, secrets=authority.secrets))
    assert error.reason in reasons
    assert "handshakeFirst" in error.message


@pytest.mark.parametrize("way", [lambda url: url, lambda url: url.replace("nats:", "tls:")])
async def test_no_credentials_go_to_a_server_without_tls(way: Callable[[str], str]) -> None:
    """A server, or somebody in its place, that offers no TLS gets to see nothing."""
    heard = bytearray()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        content = {"server_id": "x", "version": "2.15.0", "headers": True, "auth_required": True, "max_payload": 1000}
        writer.write(b"INFO " + json.dumps(content).encode() + b"\r\n")
        heard.extend(await reader.read())
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        url = way(f"nats://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        tls = Tls() if url.startswith("nats:") else None
        auth = NatsAuth(user_password="login")
        secrets = MemorySecrets({"login": {"username": "w", "password": "s3cret"}})
        error = await _reason_of_open(nats_sink(url, tls=tls, auth=auth, secrets=secrets))
    assert error.reason is Reason.TLS_FAILED
    assert "no TLS" in error.message
    assert heard == b""
