"""`/healthz`, `/readyz` and `/metrics` of a listener."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from http import HTTPStatus

from prometheus_client import CollectorRegistry

from ..errors import Reason, TableWatcherError
from ..serving import Answer, PageServer, metrics, well
from .observe import Observer

_JSON = "application/json; charset=utf-8"


class HealthServer:
    """/healthz: the process runs. /readyz: every manifest can be used, and every watcher forwards, or waits because it
    is told to; else 503 and why.

    watchers: those that run, by name. unusable: what is wrong with the manifests, a sentence each; none: nothing is.
    """

    def __init__(
        self,
        registry: CollectorRegistry,
        watchers: Callable[[], Iterable[tuple[str, Observer]]],
        unusable: Callable[[], Sequence[str]],
    ) -> None:
        self._watchers = watchers
        self._unusable = unusable
        self._server = PageServer({"/healthz": well, "/readyz": self._readyz, "/metrics": partial(metrics, registry)})

    def start(self, host: str, port: int) -> None:
        """Listens. Raises TableWatcherError where the port is taken."""
        try:
            self._server.start(host, port)
        except OSError as error:
            remedy = "correct --http-host" if isinstance(error, socket.gaierror) else "choose another with --http-port"
            raise TableWatcherError(
                Reason.MANUAL_ACTION_REQUIRED, f"port {port} on {host} cannot be used ({error.strerror}); {remedy}"
            ) from None

    async def stop(self) -> None:
        """Stops listening."""
        await self._server.stop()

    def _readyz(self) -> Answer:
        watchers = {
            name: {"ready": observer.ready, "reason": str(observer.reason), "message": observer.message}
            for name, observer in self._watchers()
        }
        unusable = [*self._unusable()]
        ready = not unusable and all(entry["ready"] for entry in watchers.values())
        status = HTTPStatus.OK if ready else HTTPStatus.SERVICE_UNAVAILABLE
        told = {"ready": ready, "watchers": watchers, "unusableManifests": unusable}
        return status, _JSON, (json.dumps(told) + "\n").encode()
