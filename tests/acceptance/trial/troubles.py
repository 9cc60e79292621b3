"""All troubles, by how often they come, and one after the other."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence

import nats
import nats.js.errors
import psycopg

from . import breaking, demands, refusing
from .world import World

Trouble = Callable[[World, random.Random], Awaitable[None]]
TROUBLES: dict[Trouble, int] = {
    breaking.kill_listener: 8,
    breaking.terminate_listener: 6,
    breaking.freeze_listener: 7,
    breaking.stop_all: 2,
    breaking.end_session: 6,
    breaking.cancel_session: 2,
    breaking.freeze_session: 4,
    breaking.end_writer: 2,
    breaking.shut_gate: 4,
    breaking.cut_off: 4,
    breaking.restart_postgres: 4,
    breaking.restart_nats: 5,
    breaking.freeze_nats: 3,
    breaking.change_stream: 4,
    breaking.lose_the_end: 5,
    breaking.moody: 10,
    breaking.unwell_for_long: 3,
    breaking.endpoint_away: 4,
    demands.replay: 9,
    refusing.refuse: 9,
    refusing.replay_parked: 3,
    refusing.skip_parked: 3,
    refusing.ask_again_and_again: 4,
    refusing.halt: 4,
    demands.write_much: 4,
    demands.change_manifest: 8,
    demands.reroute: 3,
    demands.make_again: 3,
    demands.migrate: 5,
    demands.change_wide: 5,
    demands.keep_house: 5,
    demands.limit: 2,
    demands.read_for_long: 3,
}


# Each shows faults of its own, and comes too seldom by chance alone: a long trial has two of them in any case.
RARE = (breaking.cut_off, refusing.halt, refusing.ask_again_and_again, demands.reroute)


def rare(world: World, seed: str) -> list[Trouble]:
    """Those that this trial has in any case, in order."""
    return random.Random(f"{seed}/rare").sample(RARE, 2) if world.long else []


async def trouble(world: World, stop: asyncio.Event, seed: str, first: Sequence[Trouble] = ()) -> None:
    """`first`, then one after the other, until told to stop.

    What fails since something else is broken was trouble all the same.
    """
    chance, due = random.Random(seed), list(first)
    while not stop.is_set():
        chosen = due.pop(0) if due else chance.choices(list(TROUBLES), list(TROUBLES.values()))[0]
        own = random.Random(chance.random())
        try:
            await chosen(world, own)
        except (psycopg.OperationalError, OSError, nats.errors.Error, nats.js.errors.Error) as error:
            world.say(f"{chosen.__name__}: {type(error).__name__} {error}")
        await asyncio.sleep(chance.uniform(0, 1.0))
