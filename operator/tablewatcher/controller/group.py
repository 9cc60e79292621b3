"""One listener group: the only writer of its ConfigMap and its Deployment.

Watchers tell it what they want and read what it found; they never wait for each other in here. A watcher that has
not spoken since the operator's start keeps the entry it has in the ConfigMap: delivery goes on whatever happens to
the operator, so an entry goes only when its watcher has left.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field

import structlog

from ..errors import Reason, TableWatcherError
from ..metrics import Metrics
from ..spec.model import WatcherSpec
from .client import ApiError, Cluster
from .objects import (
    ANNOTATION_CONTENT,
    LABEL_GROUP,
    GroupKey,
    ListenerSettings,
    Object,
    admit,
    config_map,
    content_hash,
    deployment,
    entry,
    entry_key,
    group_name,
    mounted,
)
from .references import References
from .status import Verdict

RESYNC_SECONDS = 30.0
RETRY_SECONDS = 5.0
GATHER_SECONDS = 0.1
# Several watchers that come with Secrets of their own make one rollout, not one each.
ROLLOUT_GATHER_SECONDS = 2.0

log = structlog.get_logger("tablewatcher.operator")


@dataclass(slots=True)
class _Member:
    notify: Callable[[], None]
    spec: WatcherSpec | None = None
    fault: TableWatcherError | None = None


@dataclass(slots=True)
class _Written:
    """What the API server has of us, as of the last look."""

    content: dict[str, str] = field(default_factory=dict)
    template: Object | None = None
    deployment: Object | None = None
    fault: TableWatcherError | None = None
    looked: bool = False


class Group:
    """Runs until it has no members and its objects are gone."""

    def __init__(self, cluster: Cluster, settings: ListenerSettings, key: GroupKey, metrics: Metrics) -> None:
        self.key = key
        self.name = group_name(settings.instance, key)
        self._cluster = cluster
        self._settings = settings
        self._metrics = metrics
        self._members: dict[str, _Member] = {}
        self._left: set[str] = set()
        self._written = _Written()
        self._wake = asyncio.Event()
        self._round = asyncio.Condition()
        self._rounds = 0
        self._task = asyncio.create_task(self._run(), name=f"group {key.namespace}/{self.name}")

    @property
    def members(self) -> int:
        """Watchers of this group, with an entry or without."""
        return len(self._members)

    def join(self, name: str, notify: Callable[[], None]) -> None:
        """A watcher of this group exists; `notify` is called when the group's objects change."""
        member = self._members.get(name)
        if member is None:
            self._members[name] = _Member(notify)
        else:
            member.notify = notify
        self._left.discard(name)

    def forward(self, spec: WatcherSpec) -> None:
        """A watcher is installed in its database and wants to be forwarded."""
        member = self._members[spec.name]
        if member.spec != spec:
            member.spec = spec
            self._wake.set()

    def look(self) -> None:
        """Something has happened to the group's objects."""
        self._wake.set()

    async def leave(self, name: str, *, seconds: float) -> bool:
        """Takes a watcher out; whether the API server had it within `seconds`."""
        self._members.pop(name, None)
        self._left.add(name)
        return await self._next_round(seconds)

    async def _next_round(self, seconds: float) -> bool:
        # A round that is under way may have read the members before the change.
        wanted = self._rounds + 2
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while self._rounds < wanted and not self._task.done():
                    self._wake.set()
                    async with self._round:
                        with contextlib.suppress(TimeoutError):
                            async with asyncio.timeout(0.5):
                                await self._round.wait()
        return self._written.fault is None and self._rounds >= wanted

    def listener(self, name: str) -> Verdict:
        """ListenerAvailable for one watcher."""
        member = self._members.get(name)
        fault = (member.fault if member else None) or self._written.fault
        if fault is not None:
            return Verdict.fault(fault)
        if member is None or member.spec is None or self._written.deployment is None:
            return Verdict(None, Reason.RECONCILING, "the listener is being set up")
        if self._written.content.get(entry_key(name)) != entry(member.spec):
            return Verdict(None, Reason.RECONCILING, "the listener's manifests are being written")
        available = (self._written.deployment.get("status") or {}).get("availableReplicas") or 0
        if available < 1:
            return Verdict(
                False, Reason.LISTENER_ROLLING_OUT, f"Deployment {self.name} has no available Pod yet; see its Pods"
            )
        return Verdict(True, Reason.MINIMUM_REPLICAS_AVAILABLE, f"Deployment {self.name} is available")

    async def stop(self) -> None:
        """Ends the task and leaves the objects as they are."""
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task

    async def _run(self) -> None:
        while True:
            self._wake.clear()
            before = (self._written.deployment, self._written.fault, self._written.content)
            try:
                await self._synchronise()
                self._written.fault = None
                wait = RESYNC_SECONDS
            except ApiError as error:
                self._written.fault = _fault(self.name, error)
                log.warning("listener objects cannot be written", group=self.name, fault=str(error))
                wait = RETRY_SECONDS
            except Exception:
                log.exception("unexpected fault in a listener group", group=self.name)
                wait = RETRY_SECONDS
            self._rounds += 1
            async with self._round:
                self._round.notify_all()
            if before != (self._written.deployment, self._written.fault, self._written.content):
                for member in list(self._members.values()):
                    member.notify()
            with contextlib.suppress(TimeoutError):
                # Not wait_for: before Python 3.12 it may swallow a cancellation.
                async with asyncio.timeout(wait):
                    await self._wake.wait()
                await asyncio.sleep(GATHER_SECONDS)

    async def _synchronise(self) -> None:
        if not self._written.looked:
            found = await self._cluster.find(config_map(self._settings, self.key, {}))
            self._written.content = dict((found or {}).get("data") or {})
            self._written.looked = True
        content = self._content()
        if content:
            await self._write_config_map(content)
            await self._write_deployment(content)
        elif not self._members:
            await self._remove()

    def _content(self) -> dict[str, str]:
        gone = {entry_key(name) for name in self._left}
        content = {key: text for key, text in self._written.content.items() if key not in gone}
        for member in self._members.values():
            if member.spec is None:
                continue
            try:
                content = admit(content, member.spec)
                member.fault = None
            except TableWatcherError as error:
                member.fault = error
        return content

    async def _write_config_map(self, content: dict[str, str]) -> None:
        wanted = config_map(self._settings, self.key, content)
        found = await self._cluster.find(wanted)
        changed = (found or {}).get("data") != wanted["data"]
        if changed and content == self._written.content:
            self._repaired("configmap")
        if changed:
            await self._cluster.apply(wanted)
        self._written.content = content
        if changed:
            await self._sync_pods(content)

    async def _sync_pods(self, content: dict[str, str]) -> None:
        """Has the kubelet renew the mounted files at once; without it, it does so within a minute and a half."""
        try:
            await self._cluster.annotate_pods(
                self.key.namespace, f"{LABEL_GROUP}={self.name}", ANNOTATION_CONTENT, content_hash(content)
            )
        except ApiError as error:
            log.warning("Pods cannot be annotated; they see the change later", group=self.name, fault=str(error))

    async def _write_deployment(self, content: dict[str, str]) -> None:
        wanted = deployment(self._settings, self.key, mounted(content, self.key))
        template = wanted["spec"]["template"]
        found = await self._cluster.find(wanted)
        known = self._written.template
        if found is not None and known is not None and template != known:
            await asyncio.sleep(ROLLOUT_GATHER_SECONDS)
            wanted = deployment(self._settings, self.key, mounted(self._content(), self.key))
        applied = await self._cluster.apply(wanted)
        generation = applied["metadata"].get("generation")
        before = (found or {}).get("metadata", {}).get("generation")
        if known == wanted["spec"]["template"] and generation != before:
            self._repaired("deployment")
        self._written.template = wanted["spec"]["template"]
        self._written.deployment = applied

    def _repaired(self, kind: str) -> None:
        log.warning("drift repaired", group=self.name, object=kind)
        for name in self._members:
            self._metrics.drift_repaired.labels(self.key.namespace, name, kind).inc()

    async def _remove(self) -> None:
        objects = (deployment(self._settings, self.key, References()), config_map(self._settings, self.key, {}))
        for each in objects:
            await self._cluster.delete(each)
        self._written = _Written(looked=True)
        for each in objects:
            # A finalizer of somebody else's may hold it back for long: the next round looks again.
            if await self._cluster.find(each) is not None:
                raise ApiError(409, f"{each['kind']} {self.name} is still there")


class Groups:
    """Every group of this operator."""

    def __init__(self, cluster: Cluster, settings: ListenerSettings, metrics: Metrics) -> None:
        self._cluster = cluster
        self._settings = settings
        self._metrics = metrics
        self._groups: dict[GroupKey, Group] = {}

    def of(self, spec: WatcherSpec) -> Group:
        """The group of a watcher, started where there is none."""
        key = GroupKey(spec.namespace, spec.database.secret_name)
        if key not in self._groups:
            self._groups[key] = Group(self._cluster, self._settings, key, self._metrics)
        return self._groups[key]

    def look(self, namespace: str, name: str) -> None:
        """The Deployment `name` has changed."""
        for group in self._groups.values():
            if (group.key.namespace, group.name) == (namespace, name):
                group.look()

    async def leave(self, spec: WatcherSpec, *, seconds: float) -> bool:
        """Takes a watcher out of its group, and the group away with its last; whether that came about in time."""
        group = self.of(spec)
        done = await group.leave(spec.name, seconds=seconds)
        if not group.members:
            self._groups.pop(group.key, None)
            await group.stop()
        return done

    async def close(self) -> None:
        """Ends every task; the objects stay."""
        await asyncio.gather(*(group.stop() for group in self._groups.values()))


def _fault(name: str, error: ApiError) -> TableWatcherError:
    if error.status in (401, 403, 422):
        advice = f"the API server refuses the objects of listener {name}: {error.message}"
        return TableWatcherError(Reason.MANUAL_ACTION_REQUIRED, advice)
    return TableWatcherError(Reason.LISTENER_ROLLING_OUT, f"the objects of listener {name} cannot be written yet")
