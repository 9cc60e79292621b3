"""What kopf calls: a daemon for each TableWatcher, and events of watchers and of listener Deployments.

Only daemons and events are used: any create, update, delete or resume handler would make kopf write its
last-handled annotation. kopf starts no daemon for an object that is being deleted already, and would release it at
once: so the clean-up runs in the event handler, which kopf awaits before it takes the finalizer off. That way it also
runs when the deletion was asked for while no operator was there.
"""

from __future__ import annotations

import asyncio

import kopf
import structlog

from .cleanup import clean_up
from .objects import selector
from .reconcile import FINALIZER, Watcher, World

GROUP, VERSION, PLURAL = "tablewatcher.io", "v1alpha1", "tablewatchers"
EXIT_SECONDS = 5.0

log = structlog.get_logger("tablewatcher.operator")


class Watchers:
    """The loops of this process, by uid: an object of the same name may come after another."""

    def __init__(self, world: World) -> None:
        self.world = world
        self._running: dict[str, Watcher] = {}
        self._ended: set[str] = set()

    async def run(self, uid: str, namespace: str, name: str, body: kopf.Body) -> None:
        """One watcher's loop, until its object goes or the operator ends."""
        if uid in self._ended:
            return
        watcher = Watcher(self.world, namespace, name, lambda: body)
        self._running[uid] = watcher
        await watcher.run()

    async def seen(self, kind: str | None, uid: str, body: kopf.Body) -> None:
        """An event of a watcher; the last of them ends with its clean-up."""
        metadata = body["metadata"]
        watcher = self._running.get(uid)
        if kind == "DELETED":
            await self._end(uid, body, clean=False)
        elif not metadata.get("deletionTimestamp"):
            if watcher is not None:
                watcher.wake()
        elif FINALIZER in (metadata.get("finalizers") or ()) and uid not in self._ended:
            await self._end(uid, body, clean=True)

    async def close(self) -> None:
        """Ends all loops; nothing is removed."""
        await asyncio.gather(*(watcher.stop() for watcher in self._running.values()))
        await self.world.groups.close()
        await self.world.polls.close()

    async def _end(self, uid: str, body: kopf.Body, *, clean: bool) -> None:
        watcher = self._running.get(uid)
        if watcher is not None:
            await watcher.stop()
        if clean:
            await clean_up(self.world, dict(body), watcher)
        elif watcher is not None and watcher.spec is not None and uid not in self._ended:
            # Somebody took the finalizer off by hand: the listener must not go on without its manifest.
            await self.world.groups.leave(watcher.spec, seconds=EXIT_SECONDS)
        self._running.pop(uid, None)
        self._ended.add(uid)
        if watcher is not None:
            watcher.forget()


def registry(watchers: Watchers) -> kopf.OperatorRegistry:
    """The handlers."""
    found = kopf.OperatorRegistry()

    # Cancelled when the operator ends; at a deletion it has ended before.
    @kopf.daemon(GROUP, VERSION, PLURAL, registry=found, cancellation_timeout=EXIT_SECONDS)
    async def reconcile(uid: str, namespace: str | None, name: str, body: kopf.Body, **_: object) -> None:
        await watchers.run(uid, namespace or "", name, body)

    @kopf.on.event(GROUP, VERSION, PLURAL, registry=found)
    async def watcher_event(type: str | None, uid: str, body: kopf.Body, **_: object) -> None:  # noqa: A002 - kopf's name
        await watchers.seen(type, uid, body)

    @kopf.on.event("apps", "v1", "deployments", registry=found)
    async def deployment_event(namespace: str | None, name: str, **_: object) -> None:
        watchers.world.groups.look(namespace or "", name)

    @kopf.on.login(registry=found)
    def login(settings: kopf.OperatorSettings, **_: object) -> kopf.ConnectionInfo | None:
        return kopf.login_with_service_account(settings=settings) or kopf.login_with_kubeconfig(settings=settings)

    return found


def settings(instance: str) -> kopf.OperatorSettings:
    """kopf as we need it: no peering, no events of its own, no search for CRDs and namespaces."""
    found = kopf.OperatorSettings()
    found.peering.standalone = True
    found.posting.enabled = False
    found.scanning.disabled = True
    found.persistence.finalizer = FINALIZER
    found.networking.connect_timeout = 5
    found.networking.request_timeout = 30
    found.networking.error_backoffs = (0.5, 1, 2, 5)
    found.watching.server_timeout = 240
    found.watching.connect_timeout = 5
    found.queueing.error_delays = (1, 1, 2, 3, 5, 8, 13)
    found.process.ultimate_exiting_timeout = 25
    found.watching.label_selectors["apps", "v1", "deployments"] = selector(instance)
    return found
