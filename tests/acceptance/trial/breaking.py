"""What breaks while writers write: processes, sessions, connections, servers. Each puts right what it has broken."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import time
from collections.abc import AsyncIterator

from .consumers import MOODS, OK
from .world import World

# A truncation comes before this, or after its number is drawn.
_BEGIN_LAZY = "BEGIN; SET LOCAL synchronous_commit = off; LOCK TABLE account IN ROW EXCLUSIVE MODE"
# So many rows that listeners are busy: else their own commits have the WAL on the disk in no time.
_LAZY_ROWS = 20
_LAZY = (
    "INSERT INTO account (key, version, kind) SELECT 'lazy-' || i, i, 'a' FROM generate_series({0}, {1}) AS i;"
    " INSERT INTO truth (n, name, action, key, kind) SELECT i, 'account', 'insert', 'lazy-' || i, 'a'"
    " FROM generate_series({0}, {1}) AS i; COMMIT"
)
# Who hangs with a table for itself keeps writers waiting, and nobody can help that.
_HELD = "SELECT FROM pg_locks WHERE pid = %s AND mode = 'AccessExclusiveLock'"
OUR_SESSIONS = "SELECT pid, application_name FROM pg_stat_activity WHERE application_name LIKE 'tablewatcher%'"


def some(world: World, chance: random.Random) -> int:
    """One of the listeners."""
    return chance.randrange(len(world.listeners))


async def kill_listener(world: World, chance: random.Random) -> None:
    nth = some(world, chance)
    async with world.listener_locks[nth]:
        world.say(f"kill listener {nth}")
        await world.listeners[nth].kill()
        await asyncio.sleep(chance.choice([0, 0, 0.5, 3]))
        world.listeners[nth].start()


async def terminate_listener(world: World, chance: random.Random) -> None:
    nth = some(world, chance)
    async with world.listener_locks[nth]:
        world.say(f"terminate listener {nth}")
        code = await world.listeners[nth].terminate()
        if code not in (0, -signal.SIGTERM):  # the latter where it has hardly begun
            world.faults.append(f"listener {nth} ended with {code}")
        await asyncio.sleep(chance.choice([0, 0, 0.5, 3]))
        world.listeners[nth].start()


async def freeze_listener(world: World, chance: random.Random) -> None:
    nth = some(world, chance)
    async with world.listener_locks[nth]:
        # No lease lasts longer than ten: after twenty, another has long gone on from there.
        seconds = chance.choice([0.2, 2, 7, 12, 20] if world.long else [0.2, 2, 7, 12])
        world.say(f"freeze listener {nth} for {seconds} s")
        world.listeners[nth].send(signal.SIGSTOP)
        await asyncio.sleep(seconds)
        world.owners.awake[nth] = time.monotonic()
        world.listeners[nth].send(signal.SIGCONT)
        world.say(f"listener {nth} goes on")


async def end_session(world: World, chance: random.Random) -> None:
    """A session of a listener, or of a command."""
    found = await world.sql(OUR_SESSIONS)
    for pid, name in chance.sample(found, min(len(found), chance.choice([1, 1, 2, 3, 9]))):
        world.say(f"end session {name}")
        await world.sql("SELECT pg_terminate_backend(%s)", pid)


async def freeze_session(world: World, chance: random.Random) -> None:
    """A server process of a listener hangs, while all others of the server answer."""
    async with world.locks["postgres"]:
        found = await world.sql(f"{OUR_SESSIONS} AND application_name LIKE 'tablewatcher listener%'")
        if not found:
            return
        pid, name = chance.choice(found)
        seconds = chance.choice([1, 6, 12])
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP)
        # Whatever becomes of us: what it holds may keep the next question waiting, too.
        going_on = asyncio.get_running_loop().call_later(seconds, _go_on, pid)
        try:
            if not await world.sql(_HELD, pid):
                world.say(f"freeze session {name} for {seconds} s")
                await asyncio.sleep(seconds)
        finally:
            going_on.cancel()
            _go_on(pid)
            world.say(f"session {name} goes on")


def _go_on(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGCONT)


async def cancel_session(world: World, chance: random.Random) -> None:
    found = await world.sql(OUR_SESSIONS)
    for _ in range(20):
        for pid, _name in found:
            await world.sql("SELECT pg_cancel_backend(%s)", pid)
    world.say("cancelled what sessions do")


async def end_writer(world: World, chance: random.Random) -> None:
    found = await world.sql("SELECT pid FROM pg_stat_activity WHERE application_name = 'writer'")
    for (pid,) in chance.sample(found, min(len(found), 2)):
        await world.sql("SELECT pg_terminate_backend(%s)", pid)
    world.say("end sessions of writers")


async def shut_gate(world: World, chance: random.Random) -> None:
    """Nothing passes between a listener and its database; then all of it, or nothing any more."""
    async with world.locks["gate"]:
        seconds = chance.choice([0.5, 3, 8, 18])
        world.say(f"gate is shut for {seconds} s")
        world.gate.is_open.clear()
        await asyncio.sleep(seconds)
        if chance.random() < 0.5:
            await world.gate.cut()
        world.gate.is_open.set()
        world.say("gate is open")


@contextlib.asynccontextmanager
async def undisturbed(world: World) -> AsyncIterator[None]:
    """Nobody else breaks listeners and database meanwhile: what takes long would seldom come to its end."""
    async with contextlib.AsyncExitStack() as stack:
        for lock in (*world.listener_locks, world.locks["postgres"]):
            await stack.enter_async_context(lock)
        yield


async def cut_off(world: World, chance: random.Random) -> None:
    """The first listener has no database for longer than its leases last, and events to try again all the while."""
    if not world.long:
        return
    async with world.locks["gate"], undisturbed(world):
        if not world.owners.of(0):
            await _hand_over(world)
        names = world.owners.of(0)
        world.say(f"listener 0 is cut off, and {names} are unwell")
        world.endpoint.unwell.update(names)
        try:
            await _is_refused(world)
            world.gate.is_open.clear()
            await asyncio.sleep(chance.choice([15, 19]))
        finally:
            world.gate.is_open.set()
            world.endpoint.unwell.difference_update(names)
        world.say("listener 0 is back")


async def _is_refused(world: World) -> None:
    """Returns when the first listener has got an answer or two: then it has something to send."""
    since = time.monotonic() + 0.5
    for _ in range(40):
        await asyncio.sleep(0.3)
        if world.endpoint.latest.get(0, 0.0) > since:
            return


async def _hand_over(world: World) -> None:
    """The first listener gets what the other one has."""
    await world.listeners[1].terminate()
    for _ in range(20):
        if world.owners.of(0):
            break
        await asyncio.sleep(0.3)
    world.listeners[1].start()


async def restart_postgres(world: World, chance: random.Random) -> None:
    async with world.locks["postgres"]:
        how = chance.choice(["kill", "immediate", "fast"])
        world.say(f"postgres: {how}")
        if how == "kill":
            await asyncio.to_thread(world.postgres.kill)
        else:
            await asyncio.to_thread(world.postgres.stop, how == "immediate")
        await asyncio.sleep(chance.choice([0, 0, 1, 4]))
        await asyncio.to_thread(world.postgres.start)
        world.say("postgres is back")


async def lose_the_end(world: World, chance: random.Random) -> None:
    """The database crashes while nobody has waited for the disk: the last commits are gone, and were never sent."""
    async with world.locks["postgres"]:
        world.lazy = True
        try:
            await asyncio.sleep(0.2)  # those who wait for the disk now have it soon
            async with await world.connect("lazy") as connection:
                first, until = next(world.versions), time.monotonic() + chance.uniform(0.2, 0.8)
                while (now := time.monotonic()) < until or (now < until + 3 and not _has_come(world, first)):
                    await connection.execute(_BEGIN_LAZY)
                    drawn = [next(world.versions) for _ in range(_LAZY_ROWS)]
                    await connection.execute(_LAZY.format(drawn[0], drawn[-1]).encode())
            await asyncio.to_thread(world.postgres.kill)
            world.say("postgres: killed, and nobody has waited for the disk")
        finally:
            world.lazy = False
        await asyncio.to_thread(world.postgres.start)
        world.say("postgres is back")


def _has_come(world: World, version: int) -> bool:
    """Whether a sink has just got something as new as that."""
    found = (*world.reader.arrivals.values(), *world.endpoint.attempts.values())
    return any((each.version or 0) > version for arrivals in found for each in arrivals[-20:])


async def restart_nats(world: World, chance: random.Random) -> None:
    async with world.locks["nats"]:
        how = chance.choice(["kill", "kill", "stop"])
        world.say(f"nats: {how}")
        await asyncio.to_thread(world.nats.kill if how == "kill" else world.nats.stop)
        await asyncio.sleep(chance.choice([0, 0, 1, 5]))
        await asyncio.to_thread(world.nats.start)
        world.say("nats is back")


async def freeze_nats(world: World, chance: random.Random) -> None:
    async with world.locks["nats"]:
        seconds = chance.choice([0.5, 3, 8])
        world.say(f"freeze nats for {seconds} s")
        os.kill(world.nats.pid, signal.SIGSTOP)
        await asyncio.sleep(seconds)
        os.kill(world.nats.pid, signal.SIGCONT)


async def change_stream(world: World, chance: random.Random) -> None:
    async with world.locks["nats"]:
        if chance.random() < 0.5:
            world.say("purge what is read")
            await world.reader.purge()
        else:
            batched = chance.random() < 0.5
            world.say(f"stream: allow_batched {batched}")
            await world.reader.configure(allow_batched=batched)


async def moody(world: World, chance: random.Random) -> None:
    names = [name for name, each in world.watchers.items() if each.http]
    for name in chance.sample(names, chance.choice([1, 2, len(names)])):
        world.endpoint.moods[name] = chance.choice(MOODS)
    world.say(f"moods {world.endpoint.moods}")
    await asyncio.sleep(chance.choice([0.3, 1, 3, 6]))
    for name in names:
        world.endpoint.moods[name] = OK
    world.say("all are well")


async def unwell_for_long(world: World, chance: random.Random) -> None:
    """An endpoint takes nothing for as long as a ring takes to turn twice."""
    if not world.long:
        return
    name = chance.choice([name for name, each in world.watchers.items() if each.http])
    world.say(f"{name} is unwell for long")
    world.endpoint.unwell.add(name)
    await asyncio.sleep(chance.choice([25, 35]))
    world.endpoint.unwell.discard(name)
    world.say(f"{name} is well")


async def endpoint_away(world: World, chance: random.Random) -> None:
    async with world.locks["endpoint"]:
        world.say("endpoint is away")
        await world.endpoint.stop()
        await asyncio.sleep(chance.choice([0.2, 1, 4]))
        await world.endpoint.start()
        world.say("endpoint is back")


async def stop_all(world: World, chance: random.Random) -> None:
    """No listener for a while: a backlog gathers."""
    async with contextlib.AsyncExitStack() as stack:
        for lock in world.listener_locks:
            await stack.enter_async_context(lock)
        world.say("no listener")
        for listener in world.listeners:
            await (listener.kill() if chance.random() < 0.5 else listener.terminate())
        await asyncio.sleep(chance.choice([0.5, 3, 8]))
        for listener in world.listeners:
            listener.start()
        world.say("listeners again")
