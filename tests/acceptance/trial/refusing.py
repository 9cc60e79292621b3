"""Endpoints that refuse rows for good, and what people do about it while everything goes on."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import time

from tablewatcher.naming import WatcherNames
from tablewatcher.postgres.ring.cursor_sql import newest

from .breaking import undisturbed
from .changing import HOT
from .demands import applied
from .watchers import HALTS, Watcher
from .world import World

# An attempt that was under way when a watcher stopped has come by then: a request may take two seconds.
_UNDER_WAY = 2.5
_STOPPED = """
SELECT l.epoch, split_part(p.message, ' ', 4) FROM ({lease}) AS l JOIN tablewatcher.progress AS p USING (epoch)
WHERE p.hash = '{hash}' AND p.message LIKE 'stopped at event %'
"""
_ASKED = """
SELECT count(*) FILTER (WHERE state IN ('asked', 'running')), max(id) FROM tablewatcher.request WHERE hash = %s
"""


async def refuse(world: World, chance: random.Random) -> None:
    """Some rows are refused until they are put aside, and then brought back, or dropped; perhaps too early."""
    keys = _keys(chance)
    world.say(f"refuse {sorted(keys)}")
    world.endpoint.refused |= keys
    await asyncio.sleep(chance.choice([1, 4, 8]))
    if chance.random() < 0.4:
        await (skip_parked if chance.random() < 0.5 else replay_parked)(world, chance)
        await asyncio.sleep(chance.choice([0, 1, 3]))
    world.endpoint.refused -= keys
    world.say("refuse no more")
    await (skip_parked if chance.random() < 0.3 else replay_parked)(world, chance)


async def ask_again_and_again(world: World, chance: random.Random) -> None:
    """What is aside of one watcher is asked for, all of it, a row or an event, while more comes and goes there."""
    watcher, keys = _one_that_parks(world, chance), _keys(chance)
    world.say(f"refuse {sorted(keys)}, and ask {watcher.name} for them again and again")
    world.endpoint.refused |= keys
    try:
        await asyncio.sleep(chance.choice([1, 3]))
        times = chance.choice([3, 8, 16])
        for nth in range(times):
            if nth == times // 2:
                world.endpoint.refused -= keys
                world.say("refuse no more")
            meant = chance.choice([{}, *_ways(await _aside(world, watcher), chance)])
            await world.command("parked replay", watcher.name, **meant)
            await asyncio.sleep(chance.choice([0, 0.1, 0.4]))
    finally:
        world.endpoint.refused -= keys


async def replay_parked(world: World, chance: random.Random) -> None:
    await world.command("parked replay", chance.choice([name for name, each in world.watchers.items() if each.http]))


async def skip_parked(world: World, chance: random.Random) -> None:
    """Something that is aside is dropped: an event, or a key. It may come all the same, and at any time."""
    await _skip(world, _one_that_parks(world, chance), chance)


async def halt(world: World, chance: random.Random) -> None:
    """A watcher stops at a row that it alone has refused: nothing passes it, until a person acts."""
    watcher = world.watchers[HALTS]
    async with undisturbed(world) if chance.random() < 0.7 else contextlib.nullcontext():
        await _halted(world, watcher, chance)


async def _halted(world: World, watcher: Watcher, chance: random.Random) -> None:
    world.say(f"{HALTS} has a hot row refused")
    world.endpoint.refused_by[HALTS] = {chance.choice(HOT)}
    try:
        is_stopped = await _stops(world, watcher, 20 if world.long else 6)
        if not watcher.asking.parks and (aside := await _aside(world, watcher)):
            world.faults.append(f"{HALTS} has put {aside[0][0]} of key {aside[0][1]} aside")
        if not is_stopped:
            return
        world.faults += await _passed(world, watcher)
        if chance.random() < 0.5:
            await _park_instead(world, watcher, chance)
    finally:
        world.endpoint.refused_by[HALTS] = set()
        world.say(f"{HALTS} has nothing refused")


def _keys(chance: random.Random) -> set[str]:
    own = [*(f"w{n}-{k}" for n in range(6) for k in range(10)), "0,w0-1", "1,w1-2", "2,w2-3"]
    return {*chance.sample(own, 6), chance.choice(HOT)}


def _one_that_parks(world: World, chance: random.Random) -> Watcher:
    return world.watchers[chance.choice([name for name, each in world.watchers.items() if each.asking.parks])]


async def _aside(world: World, watcher: Watcher) -> list[tuple[str, str, str]]:
    """Event id, key and data."""
    query = "SELECT event_id, key, data FROM tablewatcher.parked WHERE hash = %s ORDER BY n LIMIT 1000"
    return [(event_id, key, data) for event_id, key, data in await world.sql(query, world.names(watcher.name).hash)]


def _ways(aside: list[tuple[str, str, str]], chance: random.Random) -> list[dict[str, str]]:
    """To name one of these: by itself, or all of its row."""
    if not aside:
        return []
    event_id, key, _ = chance.choice(aside)
    return [{"event_id": event_id}, {"key": key}]


async def _skip(world: World, watcher: Watcher, chance: random.Random) -> None:
    aside = await _aside(world, watcher)
    if not aside:
        return
    event_id, key, data = chance.choice(aside)
    if chance.random() < 0.5:
        watcher.asking.dropped.add((str(json.loads(data)["source"]["txId"]), key))
        await world.skip(watcher.name, event_id=event_id)
        return
    # Whatever comes for it until the listener has dropped what there is.
    watcher.asking.dropped_keys[key] = float("inf")
    if await world.skip(watcher.name, key=key):
        watcher.asking.dropped_keys[key] = time.time()


async def _stopped(world: World, names: WatcherNames) -> tuple[int, str] | None:
    """The lease under which a watcher has stopped, and the event."""
    lease = newest(names, "epoch")
    found = await world.sql(_STOPPED.format(lease=lease, hash=names.hash))
    return (found[0][0], found[0][1]) if found else None


async def _stops(world: World, watcher: Watcher, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if (found := await _stopped(world, world.names(watcher.name))) is not None:
            world.say(f"{watcher.name} has stopped at {found[1]}")
            return True
        await asyncio.sleep(0.3)
    return False


async def _passed(world: World, watcher: Watcher) -> list[str]:
    """What was sent past the event at which it has stopped, in words. It is refused all the while."""
    names, attempts = world.names(watcher.name), world.endpoint.attempts[watcher.name]
    before, asked = await _stopped(world, names), await world.sql(_ASKED, names.hash)
    await asyncio.sleep(_UNDER_WAY)
    seen = len(attempts)
    await asyncio.sleep(1.5)
    later = attempts[seen:]
    # Under another lease everything is tried anew, and what was asked for may take back what was tried for it.
    if before is None or asked[0][0] or await world.sql(_ASKED, names.hash) != asked:
        return []
    if await _stopped(world, names) != before:
        return []
    world.say(f"{watcher.name} stands still: {len(later)} attempts")
    return [f"{watcher.name} has stopped, and sent {each}" for each in later if each.event_id != before[1]][:1]


async def _park_instead(world: World, watcher: Watcher, chance: random.Random) -> None:
    """As the message says. What is aside by then is asked for, or dropped; then it is to stop again."""
    watcher.asking.parks = True
    await _on_exhausted(world, watcher, "Park")
    for _ in range(20):
        if await _aside(world, watcher):
            break
        await asyncio.sleep(0.3)
    if chance.random() < 0.5:
        await _on_exhausted(world, watcher, "Halt")
    if chance.random() < 0.3:
        await _skip(world, watcher, chance)
    elif chance.random() < 0.5:
        await world.command("parked replay", watcher.name)
        await asyncio.sleep(chance.choice([0, 1]))
    world.endpoint.refused_by[HALTS] = set()
    await world.command("parked replay", watcher.name)
    await _on_exhausted(world, watcher, "Halt")


async def _on_exhausted(world: World, watcher: Watcher, word: str) -> None:
    async with watcher.lock:
        world.say(f"{watcher.name}: onExhausted {word}")
        watcher.spec["delivery"] = {**watcher.spec["delivery"], "onExhausted": word}
        await applied(world, watcher)
