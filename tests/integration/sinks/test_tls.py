"""The context a sink connects with, over real handshakes: whom it trusts, what it shows, what bad Secrets give."""

from __future__ import annotations

import asyncio
import contextlib
import os
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from tablewatcher.errors import Reason, SinkError
from tablewatcher.listener.secrets import DirectorySecrets
from tablewatcher.sinks.tls import client_context
from tablewatcher.spec.model import CaRef, Tls

from .authority import Authority
from .events import MemorySecrets

CA = CaRef("ConfigMap", "ca", "ca.crt")


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@contextlib.asynccontextmanager
async def _server(context: ssl.SSLContext) -> AsyncIterator[int]:
    """A server that says who the client is, then hangs up; the port."""

    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        shown = writer.get_extra_info("peercert")
        writer.write(repr(shown and shown["subjectAltName"]).encode())
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=context)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def _greeting(port: int, context: ssl.SSLContext, host: str = "localhost") -> str:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname=host)
    try:
        return (await reader.read()).decode()
    finally:
        writer.close()


@pytest.mark.parametrize("kind", ["ConfigMap", "Secret"])
async def test_the_authority_of_the_manifest_is_trusted_and_no_other(
    authority: Authority, tmp_path: Path, kind: str
) -> None:
    bundle = f"# Autorité d'essai\n{authority.pem}"
    secrets = MemorySecrets({"ca": {"ca.crt": bundle}}, config_maps={"ca": {"ca.crt": bundle}})
    ours = client_context(Tls(CaRef(kind, "ca", "ca.crt")), secrets)
    async with _server(authority.server_context(tmp_path)) as port:
        assert await _greeting(port, ours) == "None"
        for stranger in (client_context(None, secrets), client_context(Tls(CA), Authority().secrets)):
            with pytest.raises(ssl.SSLCertVerificationError):
                await _greeting(port, stranger)
        with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
            await _greeting(port, ours, "elsewhere.test")


@pytest.mark.parametrize("memory", [True, False])
async def test_a_client_certificate_is_shown_and_no_file_of_its_key_stays(
    authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, memory: bool
) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    if not memory:
        monkeypatch.delattr(os, "memfd_create", raising=False)
    before = len(os.listdir("/proc/self/fd"))
    shown = client_context(Tls(CA, "client"), authority.secrets)
    assert len(os.listdir("/proc/self/fd")) == before
    assert list(scratch.iterdir()) == []
    async with _server(authority.server_context(tmp_path, ask=True)) as port:
        assert "listener@tablewatcher.test" in await _greeting(port, shown)
        # With TLS 1.3 the server's refusal comes after the client's handshake: as an alert, or as the end.
        with contextlib.suppress(ssl.SSLError, ConnectionError):
            assert await _greeting(port, client_context(Tls(CA), authority.secrets)) == ""


def _locked(key: str) -> str:
    return (
        load_pem_private_key(key.encode(), None)
        .private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"s3cret"))
        .decode()
    )


@pytest.mark.parametrize(
    ("tls", "change", "reason", "words"),
    [
        (Tls(CaRef("ConfigMap", "none", "ca.crt")), {}, Reason.CONFIG_MAP_NOT_FOUND, "none"),
        (Tls(CaRef("Secret", "none", "ca.crt")), {}, Reason.SECRET_NOT_FOUND, "none"),
        (Tls(CaRef("ConfigMap", "ca", "ca.pem")), {}, Reason.SECRET_KEY_MISSING, "ca.pem"),
        (Tls(CaRef("Secret", "ca", "ca.crt")), {"ca": {"ca.crt": "rubbish"}}, Reason.TLS_FAILED, "caRef"),
        (Tls(CaRef("Secret", "ca", "ca.crt")), {"ca": {"ca.crt": " \n"}}, Reason.TLS_FAILED, "caRef"),
        (Tls(CaRef("Secret", "ca", "ca.crt")), {"ca": {"ca.crt": "grüezi"}}, Reason.TLS_FAILED, "caRef"),
        (Tls(client_cert="none"), {}, Reason.SECRET_NOT_FOUND, "none"),
        (Tls(client_cert="ca"), {}, Reason.SECRET_KEY_MISSING, "tls.key"),
        (Tls(client_cert="client"), {"tls.crt": "rubbish"}, Reason.TLS_FAILED, "clientCertSecretRef"),
        (Tls(client_cert="client"), {"tls.key": Authority().client["tls.key"]}, Reason.TLS_FAILED, "belong together"),
        (Tls(client_cert="client"), {"tls.key": _locked}, Reason.TLS_FAILED, "without a password"),
    ],
)
def test_what_cannot_be_used_is_named_with_its_remedy(
    authority: Authority, tls: Tls, change: dict[str, Any], reason: Reason, words: str
) -> None:
    secrets = Authority().secrets
    for key, value in change.items():
        if callable(value):
            value = value(secrets.values["client"][key])
        if isinstance(value, dict):
            secrets.values[key] = value
        else:
            secrets.values["client"][key] = value
    with pytest.raises(SinkError) as caught:
        client_context(tls, secrets)
    assert caught.value.reason is reason
    assert words in caught.value.message
    assert "PRIVATE KEY" not in caught.value.message


def test_a_config_map_has_a_folder_of_its_own_or_lies_beside_the_secrets(tmp_path: Path) -> None:
    for folder, text in (("configmaps/both", "own"), ("both", "beside"), ("alone", "beside")):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "ca.crt").write_text(text)
    secrets = DirectorySecrets(tmp_path)
    assert secrets.config_map("both") == {"ca.crt": "own"}
    assert secrets.read("both") == secrets.config_map("alone") == {"ca.crt": "beside"}


def test_the_systems_authorities_are_read_once_for_all_watchers() -> None:
    """Two hundred times they would take 170 MB, and hold the loop for six seconds."""
    assert client_context(None, MemorySecrets()) is client_context(Tls(), MemorySecrets())
    authority = Authority()
    assert client_context(Tls(CA), authority.secrets) is not client_context(Tls(CA), authority.secrets)


def test_a_secret_that_changes_meanwhile_gives_a_certificate_and_its_own_key(authority: Authority) -> None:
    class Changing(MemorySecrets):
        def read(self, name: str) -> dict[str, str]:
            return authority.new_client()

    client_context(Tls(client_cert="client"), Changing())
