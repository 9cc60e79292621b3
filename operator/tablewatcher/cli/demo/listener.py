"""The demonstration's listener: `tablewatcher listen` as a process of its own, which ends when we do."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import signal
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from ...embedded import EmbeddedUnavailable, free_port
from ...embedded.process import ServerProcess
from ...errors import Reason, TableWatcherError

HOST = "127.0.0.1"
_READY_SECONDS = 20.0
_STOP_SECONDS = 20.0


class Listener:
    """A running `tablewatcher listen`; its log is `listen.log` in `directory`."""

    def __init__(self, manifests: Path, secrets: Path, directory: Path) -> None:
        self._port = free_port()
        self._directory = directory
        self._command: list[str | Path] = [sys.executable, "-P", "-m", "tablewatcher.cli", "listen"]
        self._command += ["-f", manifests, "--secrets-dir", secrets, "--http-port", str(self._port)]
        self._process: ServerProcess | None = None

    @property
    def url(self) -> str:
        """Where it serves /metrics, /healthz and /readyz."""
        return f"http://{HOST}:{self._port}"

    async def ready(self) -> None:
        """Until every watcher forwards. Raises TableWatcherError with the reason where one does not in time."""
        deadline = time.monotonic() + _READY_SECONDS
        while True:
            answer = await asyncio.to_thread(self._ask)
            if answer.get("ready"):
                return
            process = self._process
            if process is None or not process.running or time.monotonic() > deadline:
                tail = "" if process is None else process.log_tail()
                raise TableWatcherError(Reason.LISTENER_ROLLING_OUT, f"the listener does not get ready:\n{tail}")
            await asyncio.sleep(0.05)

    def __enter__(self) -> Self:
        package = Path(__file__).parents[3]
        path = os.pathsep.join(filter(None, (str(package), os.environ.get("PYTHONPATH"))))
        # TABLEWATCHER_DSN of the caller's shell would lead the listener to another database.
        inherited = {name: text for name, text in os.environ.items() if not name.startswith("TABLEWATCHER_")}
        self._process = ServerProcess(
            self._command,
            log=self._directory / "listen.log",
            account=None,
            orphan_signal=signal.SIGTERM,
            cwd=self._directory,
            environment=inherited | {"PYTHONPATH": path},
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.signal(signal.SIGTERM)
        if not process.wait(_STOP_SECONDS):
            process.signal(signal.SIGKILL)
            if not process.wait(_STOP_SECONDS):
                raise EmbeddedUnavailable("the listener outlived a SIGKILL")

    def _ask(self) -> dict[str, object]:
        connection = http.client.HTTPConnection(HOST, self._port, timeout=2)
        try:
            connection.request("GET", "/readyz")
            found = json.loads(connection.getresponse().read())
        except (OSError, http.client.HTTPException, ValueError):
            return {}
        finally:
            connection.close()
        return found if isinstance(found, dict) else {}
