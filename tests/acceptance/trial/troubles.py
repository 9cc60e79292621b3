"""All troubles, by how often they come, and one after the other."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable

import nats
import nats.js.errors
import psycopg

from . import breaking, demands
from .world import World

Trouble = Callable[[World, random.Random], Awaitable[None]]
TROUBLES: dict[Trouble, int] = {
    breaking.kill_listener: 8,
    breaking.terminate_listener: 6,
    breaking.freeze_listener: 7,
    breaking.stop_all: 2,
    breaking.end_session: 6,
    breaking.cancel_session: 2,
    breaking.end_writer: 2,
    breaking.shut_gate: 4,
    breaking.restart_postgres: 4,
    breaking.restart_nats: 5,
    breaking.freeze_nats: 3,
    breaking.change_stream: 4,
    breaking.lose_the_end: 5,
    breaking.moody: 10,
    breaking.unwell_for_long: 3,
    breaking.endpoint_away: 4,
    demands.refuse: 9,
    demands.replay_parked: 3,
    demands.replay: 6,
    demands.skip_parked: 3,
    demands.write_much: 4,
    demands.change_manifest: 8,
    demands.make_again: 3,
    demands.migrate: 5,
    demands.change_wide: 5,
    demands.keep_house: 5,
    demands.limit: 2,
    demands.read_for_long: 3,
}


async def trouble(world: World, stop: asyncio.Event, seed: str) -> None:
    """One after the other, until told to stop. What fails since something else is broken was trouble all the same."""
    chance = random.Random(seed)
    while not stop.is_set():
        (chosen,) = chance.choices(list(TROUBLES), list(TROUBLES.values()))
        own = random.Random(chance.random())
        try:
            await chosen(world, own)
        except (psycopg.OperationalError, OSError, nats.errors.Error, nats.js.errors.Error) as error:
            world.say(f"{chosen.__name__}: {type(error).__name__} {error}")
        await asyncio.sleep(chance.uniform(0, 1.0))
