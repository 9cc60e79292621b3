"""A real nats-server with JetStream of our own: start, stop, crash and start again on the same port."""

from __future__ import annotations

import http.client
import json
import os
import signal
from pathlib import Path

from .installation import nats_program
from .ports import HOST, free_port
from .process import ServerProcess
from .server import EmbeddedServer

_START_SECONDS = 30.0


class EmbeddedNats(EmbeddedServer):
    """nats-server in `directory` (made if missing, kept afterwards), listening on 127.0.0.1, or on `host` instead.

    configuration: further lines of nats-server's configuration, for example `authorization { token: x }`.
    Read at every start, so it may be changed while the server is down.
    """

    name = "nats-server"

    def __init__(self, directory: str | os.PathLike[str], configuration: str = "", host: str = HOST) -> None:
        self.directory = Path(directory).absolute()
        self.configuration = configuration
        self.host = host
        self.log = self.directory / "nats.log"
        self._program = nats_program()
        super().__init__()

    @property
    def url(self) -> str:
        return f"nats://{self.host}:{self.port}"

    @property
    def monitor_url(self) -> str:
        """Base of the monitoring pages (`/varz`, `/jsz`, `/healthz`)."""
        return f"http://{HOST}:{self.monitor_port}"

    def _choose_ports(self) -> None:
        self.port = free_port()
        self.monitor_port = free_port()

    def _prepare(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)

    def _launch(self) -> ServerProcess:
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
        return process

    def _healthy(self) -> bool:
        connection = http.client.HTTPConnection(HOST, self.monitor_port, timeout=5)
        try:
            connection.request("GET", "/healthz")
            return connection.getresponse().status == http.client.OK
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()
