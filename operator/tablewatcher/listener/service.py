"""The process: watchers as the manifests have them now, one task each, and the health server."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import structlog
import uvloop
from prometheus_client import CollectorRegistry

from ..errors import SpecInvalid
from ..metrics import Metrics
from ..naming import watcher_names
from ..postgres.connection.conninfo import conninfo
from ..sinks.shared_look import SharedLooks
from ..spec.model import WatcherSpec
from .draining import Figures
from .files import Looks, Manifests, signature
from .health import HealthServer
from .holder import this_process
from .manifests import NotRead, read
from .observe import Observer
from .options import Options
from .secrets import DirectorySecrets
from .stopping import stopping
from .target import Target
from .telling import Telling
from .watch import Watch

log = structlog.get_logger("tablewatcher.listener")

RELOAD_SECONDS = 1.0


class Service:
    """All watchers of one listener: those that run, and those that end and may have to begin again.

    show: where a person sees a line about a backlog, as `Telling` has it.
    """

    def __init__(self, options: Options, show: Callable[[str], None] | None = None) -> None:
        self._options = options
        self._show = show
        self._secrets = DirectorySecrets(options.secrets_dir, database_too=not options.dsn)
        self._metrics = Metrics(CollectorRegistry())
        self._looks = SharedLooks()
        self._watches: dict[str, Watch] = {}
        self._ending: dict[str, tuple[Watch, asyncio.Task[None]]] = {}
        self._wanted: dict[str, WatcherSpec] = {}
        self._origins: dict[str, Path] = {}
        self._targets: dict[tuple[object, ...], Target] = {}
        self._signature: object = None
        self._unusable: tuple[str, ...] = ("the manifests have not been read yet",)

    async def run(self) -> None:
        """Until it is told to stop; then every watcher drains and releases its lease."""
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        numbers = stopping()
        for number in numbers:
            loop.add_signal_handler(number, stop.set)
        # Whoever became this process has kept back what was sent while it was loaded.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, numbers)
        health = HealthServer(
            self._metrics.registry,
            lambda: [(name, watch.observer) for name, watch in self._watches.items()],
            lambda: self._unusable,
        )
        health.start(self._options.http_host, self._options.http_port)
        log.info("listening", http_port=self._options.http_port, instance=self._options.instance)
        telling = asyncio.create_task(Telling(self._figures, self._show).run(), name="telling")
        following = asyncio.create_task(self._follow(), name="manifests")
        stopped = asyncio.create_task(stop.wait())
        try:
            # Whoever tells us to end does not wait for manifests that are being read.
            await asyncio.wait([following, stopped], return_when=asyncio.FIRST_COMPLETED)
            if following.done():
                following.result()
            log.info("stopping", watchers=len(self._watches))
        finally:
            for task in (telling, following, stopped):
                task.cancel()
            await asyncio.gather(telling, following, stopped, return_exceptions=True)
            await self.close()
            await health.stop()

    async def close(self) -> None:
        """Stops every watcher and ends the connections."""
        self._wanted = {}
        stopping = [watch.stop() for watch in self._watches.values()]
        await asyncio.gather(*stopping, *(task for _, task in self._ending.values()))
        for target in self._targets.values():
            await target.close()

    def _figures(self) -> Iterator[Figures]:
        for name, watch in self._watches.items():
            if not watch.spec.suspend:  # there it is meant to wait
                behind = watch.observer.behind
                yield Figures(name, behind.waiting, behind.delivered)

    async def _follow(self) -> None:
        """Does as the manifests say. Until cancelled; SpecInvalid as `_tell_faults`."""
        looks = Looks()
        while True:
            if looks.is_due(signature(self._options.files), self._signature):
                await self._reload()
            await asyncio.sleep(RELOAD_SECONDS)

    async def _reload(self) -> None:
        """Reads the manifests where they have changed, and does as they say."""
        newest = signature(self._options.files)
        if newest == self._signature:
            return
        try:
            found = await read(self._options.files, require_secret=self._options.dsn is None)
        except NotRead as error:
            log.warning("manifests cannot be read, trying again", fault=str(error))
            return
        if signature(self._options.files) != newest:
            return  # changed meanwhile: what was read may be the moment in between
        first, self._signature = self._signature is None, newest
        self._tell_faults(found, first=first)
        self._take_up(found)

    def _tell_faults(self, found: Manifests, *, first: bool) -> None:
        """Says what of the manifests cannot be used. Raises SpecInvalid where there is nothing to wait for.

        first: nothing has been read before.
        """
        useless = first and found.faults and not found.specs and not any(map(Path.is_dir, self._options.files))
        for fault in found.faults[1:] if useless else found.faults:
            log.error(fault.message)
        if useless:  # whoever started us tells the first
            raise SpecInvalid(found.faults[0].name, found.faults[0].errors)
        self._unusable = tuple(fault.message for fault in found.faults)
        if not (found.specs or found.faults):
            files = [*map(str, self._options.files)]
            self._unusable = (f"no TableWatcher manifest in {', '.join(files)}: put one there",)
            log.warning("no TableWatcher manifest there; waiting for one", files=files)

    def _take_up(self, found: Manifests) -> None:
        """Starts, stops and restarts watchers as the manifests have them now."""
        # What was good and cannot be read now, or has a mistake, goes on as it was.
        silent = {name for name in self._wanted if found.are_silent_on(name, self._origins[name])}
        self._wanted = {**found.specs, **{name: self._wanted[name] for name in silent}}
        self._origins.update(found.origins)
        for name in [name for name, watch in self._watches.items() if self._wanted.get(name) != watch.spec]:
            watch = self._watches.pop(name)
            if name not in self._wanted:
                log.warning("no manifest names it any more: stopping", watcher=name, file=str(self._origins[name]))
            self._ending[name] = watch, asyncio.create_task(self._end(name, watch))
        for name, spec in self._wanted.items():
            if name not in self._watches and name not in self._ending:
                self._watches[name] = self._start(spec)

    async def _end(self, name: str, watch: Watch) -> None:
        """Stops a watcher, which may take as long as its endpoint; then it begins again if it is wanted by now."""
        await watch.stop()
        del self._ending[name]
        if name in self._wanted:
            self._watches[name] = self._start(self._wanted[name])
        else:
            self._metrics.forget((watch.spec.namespace, watch.spec.name))
        await self._close_unused()

    async def _close_unused(self) -> None:
        """Ends the connections of databases that no watcher names any more."""
        running = [*self._watches.values(), *(watch for watch, _ in self._ending.values())]
        used = {self._target_key(watch.spec) for watch in running}
        for target in [self._targets.pop(key) for key in self._targets.keys() - used]:
            await target.close()

    def _target_key(self, spec: WatcherSpec) -> tuple[object, ...]:
        return ("dsn", spec.database.tls) if self._options.dsn else (spec.namespace, spec.database)

    def _start(self, spec: WatcherSpec) -> Watch:
        key = self._target_key(spec)
        if key not in self._targets:
            self._targets[key] = Target(lambda: self._conninfo(spec))
        return Watch(
            spec,
            watcher_names(self._options.instance, spec.namespace, spec.name),
            self._targets[key],
            self._secrets,
            Observer(spec, self._metrics, this_process()),
            addresses=self._options.addresses,
            looks=self._looks,
        )

    def _conninfo(self, spec: WatcherSpec) -> str:
        return conninfo(spec.database, self._secrets, namespace=spec.namespace, dsn=self._options.dsn)


def serve(options: Options, show: Callable[[str], None] | None = None) -> None:
    """Runs a listener until it is told to stop, as `Service`. Raises TableWatcherError where it cannot start."""
    # Measured: a fifth less time a drained event than the standard loop.
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(Service(options, show).run())
