"""The end of a TableWatcher: capture stops, what is captured is delivered, everything of it goes. 45 seconds in all.

Nothing here may hold the object back: what cannot be removed is left with the SQL that removes it, in an Event or,
where none can be made, in the log.
"""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import AsyncIterator, Coroutine, Mapping
from contextlib import asynccontextmanager
from typing import Any

import structlog

from ..errors import DatabaseError, Reason, SpecInvalid, TableWatcherError
from ..naming import WatcherNames, watcher_names
from ..postgres.install.apply import destroy, neutralise
from ..postgres.install.removal_sql import removal_sql
from ..postgres.progress import drained, released
from ..spec.model import DeletionPolicy, WatcherSpec
from ..spec.parse import parse_manifest
from .client import ApiError
from .reconcile import Watcher, World

TOTAL_SECONDS = 45.0
DRAIN_SECONDS = 20.0
STEP_SECONDS = 7.0
LOCK_PATIENCE = 5.0
MAX_NOTE = 1024

log = structlog.get_logger("tablewatcher.operator")

Body = Mapping[str, Any]


async def clean_up(world: World, body: Body, watcher: Watcher | None) -> None:
    """Removes what there is of the watcher. Never raises, but for being cancelled.

    `watcher`: its loop of this process, stopped by now, if it had one; it knows the last connection that worked.
    """
    metadata = body["metadata"]
    try:
        spec = parse_manifest(dict(body))
    except SpecInvalid:
        # Nothing of it was ever installed, or an earlier manifest was good.
        if watcher is None or watcher.spec is None:
            return
        spec = watcher.spec
    names = watcher_names(world.instance, metadata["namespace"], metadata["name"])
    try:
        async with asyncio.timeout(TOTAL_SECONDS):
            await _remove(world, spec, names, body, watcher)
    except TimeoutError:
        await _say(world, spec, names, body, "the clean-up took longer than 45 seconds")
    except Exception as error:
        log.exception("unexpected fault in the clean-up", watcher=spec.qualified_name)
        await _say(world, spec, names, body, f"unexpected fault: {type(error).__name__}")


async def _remove(world: World, spec: WatcherSpec, names: WatcherNames, body: Body, watcher: Watcher | None) -> None:
    installed = bool((body.get("status") or {}).get("database")) or (
        watcher is not None and watcher.database.applied is not None
    )
    conninfo, fault = await _conninfo(world, spec, watcher)
    if conninfo:
        fault = await _attempt(_stop_capture(spec, names, conninfo, watcher))
    if not await world.groups.leave(spec, seconds=STEP_SECONDS):
        log.warning("the listener's objects could not be updated", watcher=spec.qualified_name)
    if conninfo and fault is None:
        fault = await _attempt(_drop(spec, names, conninfo))
    if fault is not None and installed:
        await _say(world, spec, names, body, fault)
    else:
        log.info("removed", watcher=spec.qualified_name, fault=fault)


async def _conninfo(world: World, spec: WatcherSpec, watcher: Watcher | None) -> tuple[str, str | None]:
    """The connection to use, or why there is none. The Secrets of a namespace that ends go first."""
    if watcher is not None and watcher.database.last_working:
        return watcher.database.last_working, None
    try:
        return (await world.secrets.access(spec)).conninfo, None
    except (TableWatcherError, ApiError) as error:
        return "", str(error)


async def _attempt(step: Coroutine[None, None, None]) -> str | None:
    try:
        await step
    except TableWatcherError as error:
        return f"{error.reason}: {error.message}"
    return None


async def _stop_capture(spec: WatcherSpec, names: WatcherNames, conninfo: str, watcher: Watcher | None) -> None:
    async with _step():
        await neutralise(conninfo, spec, names)
    subscription = watcher.database.subscription if watcher is not None else None
    report = subscription.report if subscription is not None else None
    forwarding = report is not None and report.forwarding and report.reason != Reason.SUSPENDED
    # A loop that has just started knows nothing of the listener yet: then waiting is the safer guess.
    if spec.suspend or (subscription is not None and report is not None and not (subscription.leased and forwarding)):
        return
    async with _step(DRAIN_SECONDS + 2):
        if not await drained(conninfo, names, seconds=DRAIN_SECONDS):
            log.warning("deleted before everything was delivered", watcher=spec.qualified_name)


async def _drop(spec: WatcherSpec, names: WatcherNames, conninfo: str) -> None:
    # A listener that lets go by itself ends without an error; one that is gone has nothing to let go.
    await released(conninfo, names, seconds=STEP_SECONDS)
    async with _step(STEP_SECONDS + LOCK_PATIENCE):
        done = await destroy(conninfo, spec, names, patience=LOCK_PATIENCE)
    for note in done.notes:
        log.warning(note, watcher=spec.qualified_name)


@asynccontextmanager
async def _step(seconds: float = STEP_SECONDS) -> AsyncIterator[None]:
    """A time limit whose end is a fault like any other."""
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError:
        raise DatabaseError(Reason.DATABASE_UNREACHABLE, "the database does not answer") from None


async def _say(world: World, spec: WatcherSpec, names: WatcherNames, body: Body, why: str) -> None:
    policy = spec.deletion_policy
    sql = removal_sql(names, policy)
    kept = " (the ring stays)" if policy is DeletionPolicy.RETAIN else ""
    note = f"Not removed from the database{kept}. Run there: {sql} Cause: {why}"[:MAX_NOTE]
    log.error("left in the database", watcher=spec.qualified_name, cause=why, sql=sql)
    metadata = body["metadata"]
    now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    event = {
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {"generateName": "tablewatcher-", "namespace": metadata["namespace"]},
        "eventTime": now,
        "reportingController": "tablewatcher.io/operator",
        "reportingInstance": "tablewatcher-operator",
        "action": "CleanUp",
        "reason": str(Reason.DELETION_BLOCKED),
        "type": "Warning",
        "note": note,
        "regarding": {
            "apiVersion": "tablewatcher.io/v1alpha1",
            "kind": "TableWatcher",
            "name": metadata["name"],
            "namespace": metadata["namespace"],
            "uid": metadata["uid"],
        },
    }
    try:
        await world.cluster.create_event(metadata["namespace"], event)
    except ApiError as error:
        log.warning("no Event could be made; the SQL is in the log", watcher=spec.qualified_name, fault=str(error))
