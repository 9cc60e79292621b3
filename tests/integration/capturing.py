"""Watchers without a manifest: a spec, its names, and what its ring holds, read as the listener reads it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from tablewatcher.errors import DatabaseError, Reason
from tablewatcher.event import Event
from tablewatcher.naming import WatcherNames, watcher_names
from tablewatcher.postgres.connection.session import Connection, connect
from tablewatcher.postgres.install.apply import Applied, apply
from tablewatcher.postgres.install.plan import Plan
from tablewatcher.postgres.install.survey import survey
from tablewatcher.postgres.ring.outbox import Outbox
from tablewatcher.postgres.ring.position import Page, Position
from tablewatcher.postgres.ring.snapshot import Snapshot
from tablewatcher.spec import model
from tablewatcher.spec.model import Action, NatsSink, Table, WatcherSpec

from ..conftest import Database

FIRST = Position(Snapshot.parse("1:1:"))
ALL = frozenset(Action)


def spec_of(table: str = "t", *, schema: str = "public", name: str = "w", **fields: Any) -> WatcherSpec:
    """A spec that watches everything of `table`, with `fields` changed."""
    given = {"actions": ALL, "sink": NatsSink(("nats://127.0.0.1:4222",), "x"), **fields}
    return WatcherSpec("shop", name, model.Database("secret"), Table(schema, table), **given)


def names_of(spec: WatcherSpec) -> WatcherNames:
    return watcher_names("test", spec.namespace, spec.name)


@dataclass(slots=True)
class Watched:
    """One applied watcher, and a connection that reads its ring."""

    spec: WatcherSpec
    names: WatcherNames
    dsn: str
    reader: Connection
    outbox: Outbox
    position: Position = FIRST
    generation: int = 1

    async def page(self, limit: int = 1000) -> Page | None:
        """The next page with events, noted as delivered."""
        while True:
            try:
                page = await self.outbox.next_page(self.position, limit)
            except DatabaseError as error:
                if error.reason is not Reason.RECONCILING:
                    raise
                # Another generation has begun: a listener starts anew.
                self.generation += 1
                self.outbox = _outbox(self.reader, self.spec, self.generation)
                continue
            if page is None:
                return None
            self.position = page.position(None)
            if page.events:
                return page

    async def events(self) -> list[Event]:
        """All that has come since the last call."""
        found: list[Event] = []
        while (page := await self.page()) is not None:
            found.extend(page.events)
        return found

    async def data(self) -> list[dict[str, Any]]:
        """The `data` of all that has come, without what every event repeats."""
        found = [json.loads(event.body)["data"] for event in await self.events()]
        for data in found:
            del data["source"]
        return found


async def watch(dsn: str, spec: WatcherSpec, *, admin: str | None = None) -> Watched:
    """Applies `spec` (as `admin`, where given) and opens its ring."""
    names = names_of(spec)
    await apply(admin or dsn, spec, names)
    return await opened(dsn, spec)


@asynccontextmanager
async def watching(database: Database, tables: str, spec: WatcherSpec) -> AsyncIterator[Watched]:
    """What `tables`, SQL, makes in a new database, watched as `spec` says."""
    await database.execute(tables)
    found = await watch(database.dsn, spec)
    async with found.reader:
        yield found


async def plan(dsn: str, spec: WatcherSpec, names: WatcherNames, *, adopt: str | None = None) -> Plan:
    """What `apply` would run now. Raises the first of what stands against it."""
    found = await survey(dsn, spec, names, adopt=adopt)
    if found.plan is None:
        raise found.faults[0]
    return found.plan


async def opened(dsn: str, spec: WatcherSpec) -> Watched:
    """The ring of a watcher that is applied already."""
    reader = await connect(dsn)
    await reader.execute("SET enable_seqscan = off")
    return Watched(spec, names_of(spec), dsn, reader, _outbox(reader, spec, 1))


def _outbox(reader: Connection, spec: WatcherSpec, generation: int) -> Outbox:
    return Outbox(reader, asyncio.Lock(), spec, names_of(spec), database="test", generation=generation)


__all__ = ["ALL", "FIRST", "Applied", "Watched", "names_of", "opened", "plan", "spec_of", "watch", "watching"]
