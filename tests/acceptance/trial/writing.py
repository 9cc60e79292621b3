"""Writers of every kind at once. Each notes what it does in table `truth`, in the same transaction."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

import psycopg

from .changing import HOT, STEPS, Busy, Connection, Work, delete, insert, truncate, update, upsert
from .wide import write_wide
from .world import World

COUNT = 6
# A transaction that was to be prepared is by then, or never will be.
PREPARE_SECONDS = 3.0
PAUSE = 0.08
MANY = 400
Transact = Callable[[Connection], Awaitable[None]]
GONE = (psycopg.OperationalError, psycopg.InterfaceError)


class Writers:
    """COUNT of them, in the tables of `world`. faults: what no writer should have met."""

    def __init__(self, world: World, seed: str) -> None:
        self._world = world
        self._seed = seed
        self._gids = itertools.count(1)
        # Transactions that are prepared, or are about to be, and when each is to end.
        self._prepared: dict[str, float] = {}
        self.faults: list[str] = []

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        stop = asyncio.Event()
        tasks = [asyncio.create_task(self._write(self._writer(nth), stop)) for nth in range(COUNT)]
        tasks.append(asyncio.create_task(self._write(self._wide_writer(), stop)))
        if self._world.two_phase:
            tasks.append(asyncio.create_task(self._finish(stop)))
        try:
            yield
        finally:
            stop.set()
            await asyncio.gather(*tasks)

    def _writer(self, nth: int) -> Transact:
        chance, keys = random.Random(f"{self._seed}/{nth}"), [f"w{nth}-{key}" for key in range(10)]

        async def transact(connection: Connection) -> None:
            await self._transact(connection, chance, nth, keys)
            await asyncio.sleep(chance.uniform(0, 2 * PAUSE))

        return transact

    def _wide_writer(self) -> Transact:
        chance, world = random.Random(f"{self._seed}/wide"), self._world

        async def transact(connection: Connection) -> None:
            await write_wide(Work(connection, chance, world.versions), world.sql, lazy=world.lazy)

        return transact

    async def _write(self, transact: Transact, stop: asyncio.Event) -> None:
        while not stop.is_set():
            try:
                async with await self._world.connect("writer") as connection:
                    while not stop.is_set():
                        await transact(connection)
            except GONE as error:
                if not _of_the_connection(error):
                    self.faults.append(f"{type(error).__name__} {error.sqlstate} {error}")
                await asyncio.sleep(0.1)
            except psycopg.Error as error:
                self.faults.append(f"{type(error).__name__} {error.sqlstate} {error}")
                await asyncio.sleep(0.1)

    async def _transact(self, connection: Connection, chance: random.Random, nth: int, own: Sequence[str]) -> None:
        work = Work(connection, chance, self._world.versions)
        await connection.execute("BEGIN")
        if chance.random() < 0.3 or self._world.lazy:
            await connection.execute("SET LOCAL synchronous_commit = off")
        try:
            await self._steps(work, chance, nth, own)
        except Busy:
            await connection.execute("ROLLBACK")
            return
        ending = chance.random()
        if ending < 0.08:
            await connection.execute("ROLLBACK")
        elif ending < 0.14 and self._may_prepare():
            gid = f"soak-{next(self._gids)}"
            self._prepared[gid] = time.monotonic() + chance.choice([0.05, 0.5, 2, 6])
            await connection.execute(f"PREPARE TRANSACTION '{gid}'".encode())
        else:
            await connection.execute("COMMIT")

    def _may_prepare(self) -> bool:
        may = self._world.two_phase and not (self._world.wants_table or self._world.lazy)
        return may and len(self._prepared) < 3

    async def _steps(self, work: Work, chance: random.Random, nth: int, own: Sequence[str]) -> None:
        kind = chance.random()
        if kind < 0.004:
            await truncate(work, ())
            return
        if kind < 0.012:
            await self._large(work, chance, nth)
            return
        if kind < 0.03:  # draws its ids early and commits late
            await upsert(work, chance.sample(own, 3))
            await asyncio.sleep(chance.choice([0.3, 1, 4]))
        for _ in range(chance.choice([1, 1, 1, 2, 3])):
            step = chance.choices(list(STEPS), list(STEPS.values()))[0]
            keys = chance.sample(own, chance.choice([1, 1, 2, 6])) + chance.sample(HOT, chance.choice([0, 0, 0, 1, 2]))
            if chance.random() < 0.1:
                await work.execute("SAVEPOINT s")
                await step(work, keys)
                await work.execute("ROLLBACK TO SAVEPOINT s")
            else:
                await step(work, keys)

    async def _large(self, work: Work, chance: random.Random, nth: int) -> None:
        """Many rows in a statement: they come, change, or go."""
        size = chance.choice([100, 700, MANY])
        keys = [f"w{nth}-big-{row}" for row in range(size)]
        await chance.choice([insert, upsert, update, delete])(work, keys)

    async def _finish(self, stop: asyncio.Event) -> None:
        """Ends prepared transactions when their time has come; at the end all."""
        chance = random.Random(f"{self._seed}/finish")
        while not stop.is_set() or self._prepared:
            now = time.monotonic()
            due = [gid for gid, at in self._prepared.items() if at <= now or stop.is_set()]
            with contextlib.suppress(*GONE):
                async with await self._world.connect("writer") as connection:
                    for gid in due:
                        verb = "COMMIT" if chance.random() < 0.8 else "ROLLBACK"
                        # Not prepared yet, if it ever is, or ended by an attempt that got no answer.
                        with contextlib.suppress(psycopg.errors.UndefinedObject):
                            await connection.execute(f"{verb} PREPARED '{gid}'".encode())
                        if await self._is_over(connection, gid, now):
                            del self._prepared[gid]
            await asyncio.sleep(0.2)

    async def _is_over(self, connection: Connection, gid: str, now: float) -> bool:
        """Whether there is no such transaction, and none will come."""
        found = await connection.execute("SELECT FROM pg_prepared_xacts WHERE gid = %s", [gid])
        return await found.fetchone() is None and now - self._prepared[gid] > PREPARE_SECONDS


def _of_the_connection(error: psycopg.Error) -> bool:
    state = error.sqlstate or ""
    return not state or state[:2] in ("57", "08") or state == "25P02"
