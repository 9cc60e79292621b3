"""`/healthz`, `/readyz` and `/metrics` of a listener."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from ..errors import Reason, TableWatcherError
from .observe import Observer


class HealthServer:
    """/healthz: the process runs. /readyz: every watcher forwards, or waits because it is told to; else 503 and why."""

    def __init__(self, registry: CollectorRegistry, watchers: Callable[[], Iterable[tuple[str, Observer]]]) -> None:
        self._registry = registry
        self._watchers = watchers
        self._runner: web.AppRunner | None = None

    async def start(self, host: str, port: int) -> None:
        """Listens. Raises TableWatcherError where the port is taken."""
        app = web.Application()
        app.router.add_get("/healthz", self._healthz)
        app.router.add_get("/readyz", self._readyz)
        app.router.add_get("/metrics", self._metrics)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, host, port).start()
        except OSError as error:
            raise TableWatcherError(
                Reason.MANUAL_ACTION_REQUIRED,
                f"port {port} on {host} cannot be used ({error.strerror}); choose another with --http-port",
            ) from None

    async def stop(self) -> None:
        """Stops listening."""
        if self._runner is not None:
            await self._runner.cleanup()

    async def _healthz(self, _: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def _readyz(self, _: web.Request) -> web.Response:
        watchers = {
            name: {"ready": observer.ready, "reason": str(observer.reason), "message": observer.message}
            for name, observer in self._watchers()
        }
        ready = all(entry["ready"] for entry in watchers.values())
        return web.json_response(
            {"ready": ready, "watchers": watchers},
            status=200 if ready else 503,
            dumps=lambda found: json.dumps(found) + "\n",
        )

    async def _metrics(self, _: web.Request) -> web.Response:
        body = generate_latest(self._registry)
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE_LATEST})
