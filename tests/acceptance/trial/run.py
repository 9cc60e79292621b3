"""One trial: writers and troubles for a while, then peace, and what is wrong by then."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

from .demands import applied
from .growth import grown
from .owners import owned
from .troubles import rare, trouble
from .verdict import verdict, waits
from .world import OURS, World
from .writing import Writers

# So many at a time.
TROUBLES = 3
# From so many seconds on there is time for large transactions, long pauses, and other versions of PostgreSQL.
LONG = 40


async def run(folder: Path, seed: str, seconds: float, *, patience: float) -> Sequence[str]:
    """What was wrong; nothing, where all is well. What was done is in the file `log` of `folder`.

    seconds: until the last trouble begins. patience: for how many seconds nothing may come of what is still to come.
    """
    world = World(folder, seed, long=seconds >= LONG)
    async with world.standing():
        writers, stop = Writers(world, seed), asyncio.Event()
        async with grown(world), waits(world), owned(world), writers.running():
            async with asyncio.TaskGroup() as group:
                for nth in range(TROUBLES):
                    first = rare(world, seed) if nth == 0 else ()
                    group.create_task(trouble(world, stop, f"{seed}/{nth}", first))
                await asyncio.sleep(seconds)
                stop.set()
            await _make_peace(world)
            await asyncio.sleep(1)
        world.say("the writers have ended")
        found = await verdict(world, writers, patience)
        world.say(f"listeners took, in MB and open files, {dict(world.most)}")
    for text in found:
        world.say(text)
    return found


async def _make_peace(world: World) -> None:
    """All is as it should be again."""
    world.say("peace")
    world.endpoint.moods.clear()
    world.endpoint.refused.clear()
    world.endpoint.refused_by.clear()
    world.endpoint.unwell.clear()
    await world.sql(f"ALTER ROLE {OURS} RESET ALL")
    for watcher in world.watchers.values():
        if watcher.spec.get("suspend"):
            watcher.spec["suspend"] = False
            await applied(world, watcher)
