"""A real PgBouncer in front of a Postgres of the suite; a test may restart it."""

from __future__ import annotations

import os
import shutil
import signal
import socket
from pathlib import Path

import pytest

from tablewatcher.embedded import EmbeddedPostgres, free_port
from tablewatcher.embedded.account import open_way, server_account
from tablewatcher.embedded.process import ServerProcess
from tablewatcher.embedded.server import EmbeddedServer

# Debian puts it where only root looks.
PLACES = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"))
MISSING = (
    "no PgBouncer, and these tests need a real one. Debian, Ubuntu: apt-get install pgbouncer; macOS:"
    " brew install pgbouncer; Debian without root: apt-get download pgbouncer && dpkg-deb -x pgbouncer_*.deb"
    " ~/pgbouncer, then put ~/pgbouncer/usr/sbin on PATH"
)


class PgBouncer(EmbeddedServer):
    """Pools by `mode`, `size` server connections for each database and role. Those it opens run `on_connect` first."""

    name = "PgBouncer"
    # SIGTERM ends it at once, in the middle of whatever goes through it.
    stop_seconds = 30.0

    def __init__(
        self, directory: Path, server: EmbeddedPostgres, mode: str, *, size: int = 4, on_connect: str = ""
    ) -> None:
        self.program = _program()
        self.directory = directory
        self._server = server
        self._mode = mode
        self._size = size
        self._on_connect = on_connect
        self._account = server_account()
        super().__init__()

    def dsn(self, database: str, password: str) -> str:
        """Of the superuser, through this pooler."""
        return f"postgresql://postgres:{password}@127.0.0.1:{self.port}/{database}"

    def _choose_ports(self) -> None:
        self.port = free_port()

    def _prepare(self) -> None:
        self.directory.mkdir(mode=0o755, exist_ok=True)
        if self._account is not None:
            open_way(self.directory.resolve(), self._account)

    def _launch(self) -> ServerProcess:
        process = ServerProcess(
            [self.program, self._configured()],
            log=self.directory / "pgbouncer.log",
            account=self._account,
            orphan_signal=signal.SIGTERM,
            cwd=self.directory,
            environment=os.environ,
        )
        process.wait_ready(self._accepts, 30)
        return process

    def _configured(self) -> Path:
        """Its configuration, written anew."""
        login = self.directory / "users"
        login.write_text(f'"postgres" "{self._server.password}"\n')
        query = f" connect_query='{self._on_connect}'" if self._on_connect else ""
        settings = {
            "listen_addr": "127.0.0.1",
            "listen_port": self.port,
            "unix_socket_dir": "",
            "auth_type": "scram-sha-256",
            "auth_file": login,
            "pool_mode": self._mode,
            "default_pool_size": self._size,
            "max_client_conn": 200,
            "server_login_retry": 1,
        }
        lines = [f"{name} = {value}" for name, value in settings.items()]
        databases = f"[databases]\n* = host=127.0.0.1 port={self._server.port}{query}\n"
        path = self.directory / "pgbouncer.ini"
        path.write_text(databases + "[pgbouncer]\n" + "\n".join(lines) + "\n")
        for each in (login, path):
            each.chmod(0o644)
        return path

    def _accepts(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0


def _program() -> str:
    """Where it is. Where it is not, the test fails on CI, and elsewhere is one of those named at the end."""
    found = shutil.which("pgbouncer", path=PLACES)
    if found is None:
        if os.environ.get("CI") == "true":
            pytest.fail(MISSING, pytrace=False)
        pytest.skip(MISSING)
    return found
