"""A real nats-server with JetStream of our own: start, stop, crash and start again on the same port."""

from __future__ import annotations

import http.client
import json
import os
import signal
from pathlib import Path
from types import TracebackType
from typing import Self

from .installation import EmbeddedUnavailable, nats_program
from .ports import HOST, free_port
from .process import ServerProcess

_START_SECONDS = 30.0
_STOP_SECONDS = 15.0


class EmbeddedNats:
    """nats-server in `directory` (made if missing, kept afterwards), listening on 127.0.0.1, or on `host` instead.

    configuration: further lines of nats-server's configuration, for example `authorization { token: x }`.
    Read at every start, so it may be changed while the server is down.
    """

    def __init__(self, directory: str | os.PathLike[str], configuration: str = "", host: str = HOST) -> None:
        self.directory = Path(directory).absolute()
        self.configuration = configuration
        self.host = host
        self.log = self.directory / "nats.log"
        self._program = nats_program()
        self._process: ServerProcess | None = None
        self._ports_proven = False
        self._choose_ports()

    @property
    def url(self) -> str:
        return f"nats://{self.host}:{self.port}"

    @property
    def monitor_url(self) -> str:
        """Base of the monitoring pages (`/varz`, `/jsz`, `/healthz`)."""
        return f"http://{HOST}:{self.monitor_port}"

    @property
    def pid(self) -> int:
        """Process id of the server; EmbeddedUnavailable when it is not running."""
        if self._process is None:
            raise EmbeddedUnavailable("nats-server is not running: call start() first")
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.running

    def start(self) -> Self:
        """Start and wait until JetStream answers. Idle when it runs already."""
        if self.running:
            return self
        self.directory.mkdir(parents=True, exist_ok=True)
        for _ in range(5):
            try:
                self._launch()
            except EmbeddedUnavailable as error:
                # Between our look and its bind another program can take a port. Once told it stays.
                if self._ports_proven or "ddress already in use" not in str(error):
                    raise
                self._choose_ports()
            else:
                self._ports_proven = True
                return self
        raise EmbeddedUnavailable("no free port was found for nats-server: stop some servers and try again")

    def stop(self, immediate: bool = False) -> None:
        """Shut down; `immediate` is the same as kill()."""
        if self._process is None:
            return
        self._process.signal(signal.SIGKILL if immediate else signal.SIGTERM)
        if not self._process.wait(_STOP_SECONDS):
            self.kill()
        self._process = None

    def kill(self) -> None:
        """Crash: SIGKILL, nothing flushed, nobody told."""
        if self._process is None:
            return
        self._process.signal(signal.SIGKILL)
        if not self._process.wait(_STOP_SECONDS):
            raise EmbeddedUnavailable(f"nats-server outlived a SIGKILL: process {self._process.pid}")
        self._process = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _choose_ports(self) -> None:
        self.port = free_port()
        self.monitor_port = free_port()
        while self.monitor_port == self.port:
            self.monitor_port = free_port()

    def _launch(self) -> None:
        settings = self.directory / "nats.conf"
        # A JSON string is a valid string of nats-server's configuration too.
        store = json.dumps(str(self.directory / "jetstream"))
        settings.write_text(
            f'listen: "{self.host}:{self.port}"\nhttp: "{HOST}:{self.monitor_port}"\n'
            f"jetstream {{ store_dir: {store} }}\n{self.configuration}\n"
        )
        settings.chmod(0o600)
        process = ServerProcess(
            [self._program, "--config", settings],
            log=self.log,
            account=None,
            orphan_signal=signal.SIGTERM,
            cwd=self.directory,
            environment=os.environ,
        )
        process.wait_ready(self._healthy, _START_SECONDS)
        self._process = process

    def _healthy(self) -> bool:
        connection = http.client.HTTPConnection(HOST, self.monitor_port, timeout=5)
        try:
            connection.request("GET", "/healthz")
            return connection.getresponse().status == http.client.OK
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()
