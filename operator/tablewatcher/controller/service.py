"""The operator's process: what is shared, kopf in its midst, and an orderly end."""

from __future__ import annotations

import asyncio
import signal
import socket
from typing import Any, cast

import kopf
import structlog
from prometheus_client import CollectorRegistry

from .. import __version__
from ..metrics import Metrics
from .client import WATCHERS, ApiError, Cluster, connect
from .group import Groups
from .handlers import Watchers, registry, settings
from .health import health_server
from .objects import ListenerSettings
from .options import Options
from .poll import Polls
from .reconcile import World
from .secret import SecretReader
from .sweep import sweep

RETRY_SECONDS = 2.0

log = structlog.get_logger("tablewatcher.operator")


async def serve(options: Options) -> None:
    """Until SIGTERM or SIGINT."""
    stop = asyncio.Event()
    _stop_at_signals(stop)
    metrics = Metrics(CollectorRegistry())
    health = health_server(metrics.registry)
    health.start(options.http_host, options.http_port)
    cluster = await connect()
    try:
        starting = asyncio.create_task(_started(cluster, options))
        stopping = asyncio.create_task(stop.wait())
        await asyncio.wait([starting, stopping], return_when=asyncio.FIRST_COMPLETED)
        if starting.done():
            await _run(cluster, options, starting.result(), metrics, stop)
        starting.cancel()
        stopping.cancel()
    finally:
        await cluster.close()
        await health.stop()


async def _run(cluster: Cluster, options: Options, instance: str, metrics: Metrics, stop: asyncio.Event) -> None:
    listener = ListenerSettings(
        image=options.listener_image,
        instance=instance,
        image_pull_policy=options.image_pull_policy,
        image_pull_secrets=options.image_pull_secrets,
        public_only=options.http_public_only,
        http_allow=options.http_allow,
        http_deny=options.http_deny,
        defaults=options.listener,
    )
    world = World(
        cluster,
        SecretReader(cluster, require_label=options.require_secret_label),
        Polls(),
        Groups(cluster, listener, metrics),
        metrics,
        instance,
    )
    watchers = Watchers(world)
    await sweep(cluster, listener, options.namespaces or (None,))
    log.info("operator started", version=__version__, instance=instance, namespaces=list(options.namespaces) or "all")
    running, quiet = asyncio.Event(), asyncio.Event()
    ending = asyncio.create_task(_end_loops(watchers, running, stop, quiet), name="end of all loops")
    try:
        await kopf.operator(
            registry=registry(watchers),
            settings=settings(instance),
            # Without a name kopf asks for that of its user, which a numeric user of a container does not have.
            identity=cast(Any, socket.gethostname()),
            clusterwide=not options.namespaces,
            namespaces=list(options.namespaces),
            ready_flag=running,
            stop_flag=quiet,
        )
    finally:
        ending.cancel()
        await watchers.close()
        log.info("operator stopped")


def _stop_at_signals(stop: asyncio.Event) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)


async def _end_loops(watchers: Watchers, running: asyncio.Event, stop: asyncio.Event, quiet: asyncio.Event) -> None:
    """Ends our tasks before kopf ends: it waits five seconds for what still runs, then cancels it."""
    await running.wait()
    _stop_at_signals(stop)  # kopf has put handlers of its own in the place of ours
    await stop.wait()
    await watchers.close()
    quiet.set()


async def _started(cluster: Cluster, options: Options) -> str:
    """Waits until the API server answers and serves our kind; the instance's name."""
    while True:
        try:
            await cluster.get(WATCHERS)
            if options.instance:
                return options.instance
            found = await cluster.get("/api/v1/namespaces/kube-system")
            return str(found["metadata"]["uid"])
        except ApiError as error:
            hint = "; install the CRD: crds/tablewatchers.yaml" if error.status == 404 else ""
            log.warning(f"waiting for the API server: {error}{hint}")
            await asyncio.sleep(RETRY_SECONDS)
