"""The servers of one trial, its watchers and listeners, and what is known of them."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import random
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Coroutine, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg

from tablewatcher.embedded import EmbeddedNats
from tablewatcher.errors import TableWatcherError
from tablewatcher.naming import LOCAL_INSTANCE, WatcherNames, watcher_names
from tablewatcher.postgres.asking import ask
from tablewatcher.postgres.install.apply import apply, destroy
from tablewatcher.postgres.requests import Kind
from tablewatcher.spec.parse import parse_manifest

from ...relay import Relay
from ...versions import newest_postgres, older_postgres
from ..commands import put, write_secret
from ..listeners import Listener
from . import wide
from .consumers import Endpoint, Reader
from .leases import Owners
from .truth import TABLES, Arrival, Change
from .watchers import NAMESPACE, WHO, Makes, Watcher

OURS = "tw"
ROLES = (
    f"CREATE ROLE {OURS} LOGIN PASSWORD '{OURS}'; GRANT CREATE ON DATABASE postgres TO {OURS};"
    f" GRANT TRIGGER ON account, bulk, wide, parted, parted_0, parted_1, parted_2 TO {OURS}"
)
# Its commits survive the death of its processes, which is all that happens to it here.
SETTINGS = {"fsync": "off", "max_connections": "120", "shared_buffers": "64MB", "max_wal_size": "512MB"}
# What nobody waits for stays in memory for as long as the WAL writer sleeps.
SETTINGS |= {"wal_buffers": "32MB", "wal_writer_flush_after": "1GB"}


@asynccontextmanager
async def meanwhile(work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """It goes on beside what is done inside, and is cancelled after that. Raises what has ended it by then."""
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


class Gate(Relay):
    """In front of the database: nothing passes while it is shut, and nobody is told."""

    def __init__(self, to: int) -> None:
        super().__init__(to)
        self.is_open = asyncio.Event()
        self.is_open.set()

    async def passing(self, data: bytes, *, answer: bool) -> None:
        await self.is_open.wait()


class World:
    """Everything of one trial, from `standing` on. long: whether there is time for large transactions and long pauses.

    two_phase: whether transactions can be prepared. versions: numbers of changes, for all who write. lazy: while it is
    so nobody waits for the disk.
    """

    reader: Reader
    gate: Gate

    def __init__(self, folder: Path, seed: str, *, long: bool) -> None:
        self.folder = folder
        self.long = long
        self.chance = random.Random(f"{seed}/world")
        self.two_phase = self.chance.random() < 0.5
        settings = SETTINGS | {"max_prepared_transactions": "40" if self.two_phase else "0"}
        settings["wal_writer_delay"] = self.chance.choice(["200ms", "10s"])
        older = long and self.chance.random() < 0.4
        self.postgres = (older_postgres if older else newest_postgres)(folder / "postgres", settings)
        self.nats = EmbeddedNats(folder / "nats")
        self.endpoint = Endpoint(seed)
        self.watchers: dict[str, Watcher] = {}
        self.listeners: list[Listener] = []
        self.owners = Owners()
        # Whoever does something to a server, or to a listener, has it for itself meanwhile.
        self.locks = {name: asyncio.Lock() for name in ("postgres", "nats", "endpoint", "gate", "ddl", "bulk", "wide")}
        self.listener_locks = [asyncio.Lock(), asyncio.Lock()]
        self.faults: list[str] = []
        self.versions = itertools.count(1)
        self.lazy = False
        # Megabytes and open files of a listener, the most there were.
        self.most: defaultdict[str, tuple[int, int]] = defaultdict(lambda: (0, 0))
        # Whether a command needs a table for itself: then nobody should prepare a transaction.
        self.wants_table = False
        self._began = time.monotonic()

    def say(self, what: str) -> None:
        """A line of the trial's log."""
        with (self.folder / "log").open("a") as file:
            file.write(f"{time.monotonic() - self._began:7.2f} {what}\n")

    @property
    def dsn(self) -> str:
        """Of the application."""
        return self.postgres.dsn()

    @property
    def own_dsn(self) -> str:
        """Of the role that applies and delivers."""
        return self.postgres.dsn(user=OURS, password=OURS)

    async def connect(self, name: str) -> psycopg.AsyncConnection[tuple[Any, ...]]:
        """A connection of the application's, which bears `name`. It prepares nothing: types of columns change."""
        return await psycopg.AsyncConnection.connect(
            self.dsn, autocommit=True, connect_timeout=20, application_name=name, prepare_threshold=None
        )

    async def sql(self, statement: str, *parameters: Any) -> list[tuple[Any, ...]]:
        """The rows of one statement."""
        async with await self.connect("trial") as connection:
            cursor = await connection.execute(statement.encode(), parameters or None)
            return await cursor.fetchall() if cursor.description is not None else []

    @asynccontextmanager
    async def standing(self) -> AsyncIterator[None]:
        """Servers and listeners run inside; everything is gone afterwards."""
        async with AsyncExitStack() as stack:
            stack.enter_context(self.postgres)
            stack.enter_context(self.nats)
            await self.endpoint.start()
            stack.push_async_callback(self.endpoint.stop)
            self.reader = Reader(self.nats.url)
            await self.reader.make(allow_batched=self.chance.random() < 0.6)
            await self.sql(f"{TABLES} {wide.TABLE} {ROLES}")
            self.gate = await stack.enter_async_context(Gate(self.postgres.port))
            await self._install()
            stack.push_async_callback(self._end)
            self._listen()
            reading = [asyncio.create_task(each()) for each in (self.reader.run, self.reader.subscribe)]
            try:
                yield
            finally:
                await _cancelled(reading)

    async def command(self, word: str, name: str, seconds: float = 0.0, **meant: str) -> bool:
        """Does what a command does, without a process of its own: that takes less time. False: it was refused.

        word: apply, destroy, `parked replay` (of what is meant, as `ask` has it), or `replay` (the same, since so many
        seconds).
        """
        spec = parse_manifest(self.watchers[name].manifest())
        names = self.names(name)
        try:
            if word == "apply":
                await apply(self.own_dsn, spec, names)
            elif word == "destroy":
                await destroy(self.own_dsn, spec, names)
            elif word == "replay":
                await ask(self.own_dsn, names, Kind.REPLAY, since=timedelta(seconds=seconds), **meant)
            else:
                await ask(self.own_dsn, names, Kind.PARKED, **meant)
        except TableWatcherError as error:
            self.say(f"{word} {name}: {error.reason}: {error.message[:200]}")
            return False
        self.say(f"{word} {name} {meant or ''}".rstrip())
        return True

    async def skip(self, name: str, **meant: str) -> bool:
        """Asks to drop what is meant of what is aside, as `ask` has it. Whether that is done after a while."""
        try:
            asked = await ask(self.own_dsn, self.names(name), Kind.SKIP, **meant)
        except TableWatcherError as error:
            self.say(f"skip {name}: {error.reason}: {error.message[:200]}")
            return False
        self.say(f"skip {name} {meant}")
        deadline = time.monotonic() + 15
        while time.monotonic() < deadline:
            rows = await self.sql("SELECT state FROM tablewatcher.request WHERE id = %s", asked.id)
            if not rows or rows[0][0] in ("done", "failed"):
                return True
            await asyncio.sleep(0.3)
        return False

    def names(self, name: str) -> WatcherNames:
        """What a watcher's objects are called."""
        return watcher_names(LOCAL_INSTANCE, NAMESPACE, name)

    def write(self, watcher: Watcher) -> None:
        """Its manifest, for the listeners."""
        put(self.folder / "manifests" / f"{watcher.name}.yaml", json.dumps(watcher.manifest()))

    def arrivals(self, watcher: Watcher) -> list[Arrival]:
        """What the sink has taken, in its order."""
        return self.endpoint.accepted(watcher.name) if watcher.http else self.reader.arrivals[watcher.name]

    def came(self, watcher: Watcher) -> int:
        """How many events the sink has taken."""
        return len((self.endpoint if watcher.http else self.reader).ids[watcher.name])

    async def changes(self) -> list[Change]:
        """All that was committed, in order."""
        rows = await self.sql(
            "SELECT n, name, action, key, old_key, kind, old_kind, xid, extract(epoch FROM began)::float8,"
            " extract(epoch FROM noted)::float8, image FROM truth ORDER BY n"
        )
        return [Change(*row) for row in rows]

    async def _install(self) -> None:
        (self.folder / "manifests").mkdir()
        for watcher in Makes(self.nats.url, self.endpoint.port, self.chance).all():
            self.watchers[watcher.name] = watcher
            self.write(watcher)
            watcher.asking.begin(time.time(), watcher.asked())
            assert await self.command("apply", watcher.name)

    def _listen(self) -> None:
        """The first of them reaches the database through the gate."""
        gated = self.own_dsn.replace(f":{self.postgres.port}/", f":{self.gate.port}/")
        for nth, dsn in enumerate((gated, self.own_dsn)):
            secrets = self.folder / f"secrets-{nth}"
            options = ("--secrets-dir", write_secret(secrets, WHO, listener=str(nth)))
            log = self.folder / f"listener-{nth}.log"
            self.listeners.append(Listener(self.folder / "manifests", dsn, log, options))
            self.listeners[nth].start()

    async def _end(self) -> None:
        for listener in self.listeners:
            await listener.close()


async def _cancelled(tasks: Iterable[asyncio.Task[None]]) -> None:
    """They have ended. The NATS client may take a cancellation for the end of a time."""
    left = set(tasks)
    while left:
        for task in left:
            task.cancel()
        _, left = await asyncio.wait(left, timeout=1)
