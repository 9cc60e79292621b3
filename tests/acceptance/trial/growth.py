"""What the listeners take of the machine over a trial: memory and open files."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from pathlib import Path

from .world import World, meanwhile

# Megabytes and open files of one listener, while it works, and when all is delivered. Up to 86 and 109 were seen; of
# HTTP requests there may be 32 at a time for each of seven watchers.
MOST_AT_WORK = (150, 300)
MOST_AT_REST = (130, 150)
_PROC = Path("/proc")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


@contextlib.asynccontextmanager
async def grown(world: World) -> AsyncIterator[None]:
    """They are looked at once a second; more than they should have is a fault."""
    async with meanwhile(_watch(world)):
        yield


def taken(pid: int) -> tuple[int, int]:
    """Megabytes and open files of a process; nothing where that cannot be known, or it is gone."""
    try:
        pages = int((_PROC / str(pid) / "statm").read_text().split()[1])
        return pages * _PAGE_BYTES >> 20, len(list((_PROC / str(pid) / "fd").iterdir()))
    except OSError:
        return 0, 0


def at_rest(world: World) -> list[str]:
    """What is too much when all is delivered."""
    return [text for pid in _pids(world) if (text := _too_much(world, pid, MOST_AT_REST, "at rest"))]


async def _watch(world: World) -> None:
    told: set[int] = set()
    while True:
        for pid in _pids(world):
            if pid not in told and (text := _too_much(world, pid, MOST_AT_WORK, "")):
                told.add(pid)
                world.faults.append(text)
        await asyncio.sleep(1)


def _pids(world: World) -> list[int]:
    return [pid for listener in world.listeners if (pid := listener.pid) is not None]


def _too_much(world: World, pid: int, most: tuple[int, int], when: str) -> str:
    found = taken(pid)
    world.most[when] = max(found[0], world.most[when][0]), max(found[1], world.most[when][1])
    if found[0] <= most[0] and found[1] <= most[1]:
        return ""
    return f"listener {pid} takes {found[0]} MB and has {found[1]} files open {when}, and not {most[0]} and {most[1]}"
