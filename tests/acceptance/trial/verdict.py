"""What is wrong at the end of a trial, in words; nothing, where all is well."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import psycopg

from ..commands import tablewatcher
from .growth import at_rest
from .judging import faults, wanted
from .replays import unsent
from .routes import misrouted
from .stretches import holes
from .truth import Change, by_table
from .watchers import CORE_WATCHER, WIDE
from .wide import unlike
from .world import World, meanwhile
from .writing import Writers

# Writers may wait half a second for a change of ours, which tests of its own hold. Here all share the processors with
# the database, and what is looked for is who waits without end.
LONGEST_WAIT = 2.0
_ALIVE = (
    "BEGIN; INSERT INTO account (key, version, kind) VALUES ('alive-{n}', {n}, '{kind}');"
    " INSERT INTO truth (n, name, action, key, kind) VALUES ({n}, 'account', 'insert', 'alive-{n}', '{kind}'); COMMIT"
)
# So many of each are told.
_TOLD = 3
_WAITING = """
SELECT w.pid, left(w.query, 80) || ' waits for ' || b.application_name || ': ' || left(b.query, 200)
FROM pg_stat_activity AS w CROSS JOIN LATERAL unnest(pg_blocking_pids(w.pid)) AS p (pid)
JOIN pg_stat_activity AS b ON b.pid = p.pid
WHERE w.application_name = 'writer' AND w.wait_event_type = 'Lock' AND b.application_name LIKE 'tablewatcher%'
"""


@asynccontextmanager
async def waits(world: World) -> AsyncIterator[None]:
    """Writers that wait for us meanwhile are looked for, as the database knows them."""
    async with meanwhile(_watch(world)):
        yield


async def _watch(world: World) -> None:
    while True:
        try:
            async with await world.connect("trial") as connection:
                since: dict[int, float] = {}
                while True:
                    waiting = dict(await (await connection.execute(_WAITING)).fetchall())
                    now = time.monotonic()
                    since = {pid: since.get(pid, now) for pid in waiting}
                    late = [pid for pid, at in since.items() if now - at > LONGEST_WAIT]
                    world.faults += [f"waited: {waiting[pid]}" for pid in late[:1]]
                    await asyncio.sleep(0.05)
        except (psycopg.OperationalError, OSError):
            await asyncio.sleep(0.2)


async def verdict(world: World, writers: Writers, seconds: float) -> list[str]:
    """seconds: for how long nothing may come of what is still to come."""
    found = await _core_is_alive(world, seconds)
    changes = await world.changes()
    world.say(f"{len(changes)} changes, {Counter(each.action for each in changes)}")
    tables = by_table(changes)
    await _drained(world, tables, seconds)
    # What is left is counted about: the last of it may still be on its way, and these wait for that.
    told = await _told(world)
    found += [fault for name, each in world.watchers.items() for fault in _of_watcher(world, name, tables[each.table])]
    found += await _of_replays(world)
    found += [f"writer: {text}" for text in Counter(writers.faults)]
    malformed = [*world.endpoint.malformed, *world.reader.malformed]
    found += [f"malformed: {text}" for text in malformed[:_TOLD]]
    if world.reader.skipped:
        found.append(f"{world.reader.skipped} messages were gone before they were read")
    return [*found, *world.faults[:_TOLD], *told, *at_rest(world), *_logged(world)]


async def _core_is_alive(world: World, seconds: float) -> list[str]:
    """What goes by core NATS may be lost, but not all of it: a row is written until one has arrived."""
    name, deadline, written = CORE_WATCHER, time.monotonic() + seconds, set[int | None]()
    while time.monotonic() < deadline:
        n = next(world.versions)
        # Its condition, if it has one, takes one of them.
        await world.sql(_ALIVE.format(n=n, kind="ab"[len(written) % 2]))
        written.add(n)
        await asyncio.sleep(0.5)
        if any(each.version in written for each in world.reader.arrivals[name]):
            return []
    return [f"{name}: nothing arrives any more"]


async def _drained(world: World, tables: dict[str, list[Change]], seconds: float) -> None:
    """All has arrived, and nothing is aside; or for so long nothing has come."""
    left_of, least, since = _Left(world, tables), sum(map(len, tables.values())) * len(world.watchers), time.monotonic()
    while time.monotonic() < since + seconds:
        ((aside,),) = await world.sql("SELECT count(*) FROM tablewatcher.parked")
        left = {name: left_of(name) for name in world.watchers}
        if not (aside or any(left.values())):
            return
        if sum(left.values()) < least:
            least, since = sum(left.values()), time.monotonic()
        world.say(f"left {left}, aside {aside}")
        if aside:
            for name, each in world.watchers.items():
                if each.http:
                    await world.command("parked replay", name)
        await asyncio.sleep(1)


class _Left:
    """About how many events of a watcher are still to come. What must come is counted anew where it may be other."""

    def __init__(self, world: World, tables: dict[str, list[Change]]) -> None:
        self._world = world
        self._tables = tables
        self._wanted: dict[str, tuple[tuple[int, ...], int]] = {}

    def __call__(self, name: str) -> int:
        watcher = self._world.watchers[name]
        watcher.forgive(_gaps(self._world, name))
        state = watcher.asking.state()
        if name not in self._wanted or self._wanted[name][0] != state:
            self._wanted[name] = state, wanted(watcher.asking, self._tables[watcher.table])
        return max(self._wanted[name][1] - self._world.came(watcher), 0)


def _gaps(world: World, name: str) -> list[dict[str, Any]]:
    return (world.endpoint.gaps if world.watchers[name].http else world.reader.gaps)[name]


def _of_watcher(world: World, name: str, changes: list[Change]) -> list[str]:
    watcher = world.watchers[name]
    wrong = watcher.forgive(_gaps(world, name))
    wrong += faults(watcher.asking, changes, world.arrivals(watcher))
    # What was refused counts for the order, too: nothing may overtake an event that is still owed.
    tried = world.endpoint.attempts[name]
    wrong += [f"tried: {text}" for text in faults(watcher.asking, changes, tried, complete=False)]
    if watcher.asking.ordered:
        gone = {(each.xid, each.key) for each in changes if watcher.asking.was_dropped(each)}
        wrong += holes([each for each in tried if (each.xid, each.key) not in gone])
    if not watcher.http:
        wrong += misrouted(name, changes, world.arrivals(watcher), changed=watcher.rerouted)
    wrong += unlike(changes, [*world.arrivals(watcher), *tried], every=name == WIDE)
    found = [f"{name}: {text}" for text in wrong[:_TOLD]]
    return found + ([f"{name}: {len(wrong)} faults in all"] if len(wrong) > _TOLD else [])


async def _of_replays(world: World) -> list[str]:
    query = "SELECT id, message FROM tablewatcher.request WHERE kind = 'replay' AND state = 'done' AND hash = %s"
    found: list[str] = []
    for name, watcher in world.watchers.items():
        if not watcher.asking.lossy:
            said = [(number, message) for number, message in await world.sql(query, world.names(name).hash)]
            found += [f"{name}: {text}" for text in unsent(said, world.arrivals(watcher))]
    return found[:_TOLD]


async def _told(world: World) -> list[str]:
    """What status, `/readyz` and `/metrics` say, where all is delivered: within a while they must say so."""
    deadline, wrong = time.monotonic() + 40, await _untrue(world)
    while wrong and time.monotonic() < deadline:
        await asyncio.sleep(1)
        wrong = await _untrue(world)
    return [f"told: {text}" for text in wrong[:_TOLD]]


async def _untrue(world: World) -> list[str]:
    wrong, sums = [], Counter[str]()
    for listener in world.listeners:
        for name in ("ring_rows", "ring_oldest_age_seconds", "events_parked", "listener_connected"):
            sums[name] += int(await listener.metric(name))
        if not await listener.is_ready():
            wrong.append("a listener is not ready")
    if sums != Counter(listener_connected=len(world.watchers)):
        wrong.append(f"metrics: {sums}")
    open_ = await world.sql("SELECT id, kind, state FROM tablewatcher.request WHERE state IN ('asked', 'running')")
    wrong += [f"requests: {open_}"] if open_ else []
    if not wrong:
        answer = await tablewatcher("status", "-f", world.folder / "manifests", "--dsn", world.own_dsn, "-o", "json")
        told = json.loads(answer.out)
        wrong += [f"{each}" for each in told if each["state"] != "forwarding" or each["waiting"]]
    return wrong


def _logged(world: World) -> list[str]:
    texts = [listener.log.read_text() for listener in world.listeners]
    return [f"log: {found[0]}" for text in texts if (found := re.search(".*(Traceback|unexpected fault).*", text))]
