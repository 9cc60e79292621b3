"""Looks which listener has the lease of a watcher, again and again, and whether another one sends all the same."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import psycopg

from tablewatcher.naming import WatcherNames
from tablewatcher.postgres.ring.cursor_sql import newest

from .watchers import AGAIN
from .world import World, meanwhile

_EVERY = 0.5


@asynccontextmanager
async def owned(world: World) -> AsyncIterator[None]:
    """Whoever sends for a watcher that another listener has is looked for meanwhile."""
    async with meanwhile(_watch(world)):
        yield


async def _watch(world: World) -> None:
    names = {name: world.names(name) for name, each in world.watchers.items() if each.http and name != AGAIN}
    query = " UNION ALL ".join(_newest(name, each) for name, each in names.items())
    while True:
        try:
            async with await world.connect("trial") as connection:
                while True:
                    await _look(world, connection, query)
                    await asyncio.sleep(_EVERY)
        except (psycopg.OperationalError, OSError):
            await asyncio.sleep(0.2)


def _newest(name: str, names: WatcherNames) -> str:
    columns = f"'{name}' AS name, epoch, holder"
    return f"({newest(names, columns)})"


async def _look(world: World, connection: psycopg.AsyncConnection[tuple[Any, ...]], query: str) -> None:
    owners, endpoint = world.owners, world.endpoint
    owners.pids |= {pid: nth for nth, each in enumerate(world.listeners) if (pid := each.pid) is not None}
    calls, endpoint.calls = endpoint.calls, []
    rows = await (await connection.execute(query.encode())).fetchall()
    found = {name: (epoch, _process(holder)) for name, epoch, holder in rows}
    for text in owners.looked(time.monotonic(), found, calls)[:1]:
        world.say(f"{text}; leases {found}, processes {owners.pids}")
        world.faults.append(text)


def _process(holder: str) -> int:
    """Its id, 0 where there is none, as `tablewatcher.listener.holder` has it."""
    parts = holder.split("/")
    return int(parts[3]) if len(parts) == 5 else 0
