"""One TableWatcher's loop: look at everything, make it so, report what was found; again when woken, or after a while.

Level-triggered: each pass starts from the whole manifest and the whole world, and no pass depends on having seen
what happened before it. One watcher's loop never waits for another's.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import structlog

from ..errors import Reason, SpecInvalid, TableWatcherError
from ..metrics import Metrics
from ..naming import watcher_names
from ..postgres.connection.pooling import POOLED
from ..spec.model import NatsSink, WatcherSpec
from ..spec.parse import parse_manifest
from .client import ApiError, Cluster
from .database import WatchedDatabase
from .group import Groups
from .poll import Polls, Subscription
from .secret import SecretReader
from .status import NO_KEY, NOT_ENCRYPTED, Facts, Findings, Status, Verdict, database_fault, render, same

FINALIZER = "tablewatcher.io/cleanup"
ADOPT = "tablewatcher.io/adopt"
REQUESTED_AT = "tablewatcher.io/reconcile-requested-at"
# Status is written at most this often.
PAUSE_SECONDS = 1.0
FAULT_SECONDS = 5.0
RESYNC_SECONDS = 60.0

log = structlog.get_logger("tablewatcher.operator")

Body = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class World:
    """What all watchers share."""

    cluster: Cluster
    secrets: SecretReader
    polls: Polls
    groups: Groups
    metrics: Metrics
    instance: str


@dataclass(frozen=True, slots=True)
class _LastWrite:
    """The status written last, and the resourceVersion that the object had before."""

    version: str = ""
    status: Status = field(default_factory=dict)
    at: float = float("-inf")


class Watcher:
    """One TableWatcher, from its first event to its clean-up. `body()` is the object as last seen."""

    def __init__(self, world: World, namespace: str, name: str, body: Callable[[], Body]) -> None:
        self.spec: WatcherSpec | None = None
        self.body = body
        self._world = world
        self._labels = (namespace, name)
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._handled = ""
        self._last = _LastWrite()
        self._log = log.bind(watcher=f"{namespace}/{name}")
        self.database = WatchedDatabase(
            world.secrets, world.polls, watcher_names(world.instance, namespace, name), self._wake.set
        )

    def wake(self) -> None:
        """Something has happened to this watcher or to its listener."""
        self._wake.set()

    async def run(self) -> None:
        """Until cancelled or stopped; nothing that happens inside ends it."""
        self._task = asyncio.create_task(self._loop(), name="{}/{}".format(*self._labels))
        try:
            await asyncio.wait([self._task])
        finally:
            self._task.cancel()

    async def _loop(self) -> None:
        while True:
            self._wake.clear()
            wait = await self._timed_pass()
            with contextlib.suppress(TimeoutError):
                # Not wait_for: before Python 3.12 it may swallow a cancellation.
                async with asyncio.timeout(max(wait, PAUSE_SECONDS)):
                    await self._wake.wait()
                # What woke us often brings more of the same kind.
                await asyncio.sleep(PAUSE_SECONDS / 4)

    async def stop(self) -> None:
        """Ends the loop, and leaves everything as it is."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task], timeout=FAULT_SECONDS)
        await self.database.close()

    def forget(self) -> None:
        """Takes the watcher's series out of the metrics."""
        self._world.metrics.forget(self._labels)

    async def _timed_pass(self) -> float:
        loop, metrics = asyncio.get_running_loop(), self._world.metrics
        started, result = loop.time(), "error"
        try:
            ready, wait = await self._pass()
            result = "ready" if ready else "not_ready"
        except ApiError as error:
            self._log.warning("status cannot be written", fault=str(error))
            wait = FAULT_SECONDS
        except Exception:  # noqa: BLE001 - logged with its traceback; a loop that ends is never started again
            self._log.exception("unexpected fault; trying again")
            wait = FAULT_SECONDS
        metrics.reconcile_duration.labels(*self._labels).observe(loop.time() - started)
        metrics.reconciles.labels(*self._labels, result).inc()
        return wait

    async def _pass(self) -> tuple[bool, float]:
        body = self.body()
        metadata = body["metadata"]
        if FINALIZER not in (metadata.get("finalizers") or ()) or metadata.get("deletionTimestamp"):
            return False, RESYNC_SECONDS  # nothing is installed before its removal is certain
        if not (body.get("status") or {}).get("conditions"):
            await self._write(body, Findings(metadata["generation"]))
        findings = await self._look(body)
        await self._write(body, findings)
        ready = findings.ready.holds is True
        self._world.metrics.watcher_ready.labels(*self._labels).set(1 if ready else 0)
        left = self.database.seconds_left(asyncio.get_running_loop().time())
        return ready, min(left if findings.invalid is None else RESYNC_SECONDS, RESYNC_SECONDS)

    async def _look(self, body: Body) -> Findings:
        metadata = body["metadata"]
        annotations = metadata.get("annotations") or {}
        self.database.allow(str(annotations.get(ADOPT, "")))
        requested = str(annotations.get(REQUESTED_AT, ""))[:256]
        if requested != self._handled:
            self._handled = requested
            self.database.demand()
        findings = Findings(metadata["generation"], facts=Facts(reconcile_requested_at=requested))
        try:
            spec = parse_manifest(dict(body))
        except SpecInvalid as error:
            return replace(findings, invalid=error)
        self.spec = spec
        group = self._world.groups.of(spec)
        group.join(spec.name, self.wake)
        database, triggers, installed = await self._make_so(spec)
        if installed:
            group.forward(spec)
        stopped, sink = listener_word(self.database.subscription, spec.generation)
        return replace(
            findings,
            database=database,
            triggers=stopped if stopped is not None and installed else triggers,
            listener=group.listener(spec.name),
            sink=sink,
            suspended=spec.suspend,
            facts=self._facts(spec, group.name, requested),
        )

    def _facts(self, spec: WatcherSpec, listener: str, requested: str) -> Facts:
        applied = self.database.applied
        return Facts(
            qualified_table=f"{spec.table.schema}.{spec.table.name}",
            primary_key=applied.primary_key if applied else (),
            database=applied.database if applied else "",
            system_identifier=applied.system_identifier if applied else "",
            sink="nats" if isinstance(spec.sink, NatsSink) else "http",
            listener=listener,
            reconcile_requested_at=requested,
        )

    async def _make_so(self, spec: WatcherSpec) -> tuple[Verdict, Verdict, bool]:
        """DatabaseReady, TriggersInstalled, and whether this very spec is installed now."""
        try:
            await self.database.look(spec)
        except TableWatcherError as error:
            return *database_fault(error, applied=self.database.applied is not None), False
        except ApiError as error:
            known = Verdict(None, Reason.RECONCILING, f"Secret {spec.database.secret_name!r} cannot be read: {error}")
            return known, Verdict(None, Reason.RECONCILING, "waits for the Secret"), False
        for kind in self.database.repaired:
            self._log.warning("drift repaired", object=kind)
            self._world.metrics.drift_repaired.labels(*self._labels, kind).inc()
        applied = self.database.applied
        keyed = applied is not None and bool(applied.primary_key)
        said = "; ".join([*([] if keyed else [NO_KEY]), *(applied.notes if applied is not None else ())])
        triggers = Verdict(True, Reason.IN_SYNC if keyed else Reason.NO_PRIMARY_KEY, said)
        plain, pooled = applied is not None and not applied.encrypted, applied is not None and applied.pooled
        way = "; ".join([*([POOLED] if pooled else []), *([NOT_ENCRYPTED] if plain else [])])
        return Verdict(True, Reason.POOLER_DETECTED if pooled else Reason.CONNECTED, way), triggers, True

    async def _write(self, body: Body, findings: Findings) -> None:
        version = self.body()["metadata"]["resourceVersion"]
        # Our own last write may not have come back yet.
        previous = self._last.status if self._last.version == version else (self.body().get("status") or {})
        now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        status = render(findings, previous, now)
        if same(status, previous):
            return
        loop = asyncio.get_running_loop()
        await asyncio.sleep(self._last.at + PAUSE_SECONDS - loop.time())
        self._last = _LastWrite(version, status, loop.time())
        try:
            await self._world.cluster.apply_status(body["metadata"], status)
        except ApiError as error:
            self._last = _LastWrite(at=loop.time())
            if error.status not in (404, 409):  # it is gone, or another by now: its own event will tell
                raise
            return
        ready = findings.ready
        self._log.info("status written", ready=ready.holds, reason=str(ready.reason))


def listener_word(subscription: Subscription, generation: int) -> tuple[Verdict | None, Verdict]:
    """What the listener's row means: TriggersInstalled where it reports a stop of capture, and SinkReady."""
    report = subscription.report
    if report is None or not subscription.leased:
        return None, Verdict(None, Reason.RECONCILING, "no listener forwards this watcher yet")
    if not report.spoken or report.spec_generation != generation:
        return None, Verdict(None, Reason.RECONCILING, "the listener has not taken up this generation yet")
    reason = Reason(report.reason) if report.reason in set(Reason) else Reason.RECONCILING
    if reason in (Reason.CAPTURE_STOPPED, Reason.TRIGGERS_DRIFTED):
        unknown = "the listener tells of capture first; what it knows of the sink is in its message"
        return Verdict(False, reason, report.message), Verdict(None, Reason.RECONCILING, unknown)
    if report.forwarding and reason is Reason.EVENTS_PARKED:
        return None, Verdict(True, reason, report.message)
    if report.forwarding:
        return None, Verdict(True, Reason.ACKNOWLEDGED, "the sink takes events")
    return None, Verdict(None if reason is Reason.RECONCILING else False, reason, report.message)
