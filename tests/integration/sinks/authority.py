"""A certificate authority of one test, and Secrets with what it issued."""

from __future__ import annotations

import datetime
import ssl
from pathlib import Path

import trustme

from .events import MemorySecrets

_DAY = 86_400.0


class Authority:
    """Issues certificates; `secrets` has its own under ConfigMap and Secret `ca`, and a client's in Secret `client`."""

    def __init__(self) -> None:
        self._ca = trustme.CA()
        self.pem = self._ca.cert_pem.bytes().decode()
        self.client = self.new_client()
        self.secrets = MemorySecrets(
            {"ca": {"ca.crt": self.pem}, "client": self.client}, config_maps={"ca": {"ca.crt": self.pem}}
        )

    def new_client(self, seconds: float = _DAY) -> dict[str, str]:
        """A Secret with a certificate for a client, another one each time, good for so long from now."""
        client = self._issued("listener@tablewatcher.test", seconds)
        return {
            "tls.crt": client.cert_chain_pems[0].bytes().decode(),
            "tls.key": client.private_key_pem.bytes().decode(),
        }

    def write(self, folder: Path, name: str = "localhost", seconds: float = _DAY) -> tuple[Path, Path, Path]:
        """Files in `folder` for a server called `name`: authority, certificate (good for so long), key."""
        issued = self._issued(name, seconds)
        files = folder / "ca.pem", folder / "server.pem", folder / "server.key"
        self._ca.cert_pem.write_to_path(str(files[0]))
        issued.cert_chain_pems[0].write_to_path(str(files[1]))
        issued.private_key_pem.write_to_path(str(files[2]))
        return files

    def _issued(self, name: str, seconds: float) -> trustme.LeafCert:
        now = datetime.datetime.now(datetime.UTC)
        begin, end = now - datetime.timedelta(hours=1), now + datetime.timedelta(seconds=seconds)
        return self._ca.issue_cert(name, not_before=begin, not_after=end)

    def server_context(self, folder: Path, name: str = "localhost", *, ask: bool = False) -> ssl.SSLContext:
        """For a server called `name`; `ask`: only clients with a certificate of this authority come in."""
        ca, certificate, key = self.write(folder, name)
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(ca))
        context.load_cert_chain(certificate, key)
        context.verify_mode = ssl.CERT_REQUIRED if ask else ssl.CERT_NONE
        return context
