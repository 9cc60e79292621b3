"""Writers of every kind at once. Each notes what it does in table `truth`, in the same transaction."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

import psycopg

from .world import World

Connection = psycopg.AsyncConnection[tuple[Any, ...]]
KINDS = ("a", "b", "c")
HOT = tuple(f"hot-{nth}" for nth in range(4))
COUNT = 6
# A transaction that was to be prepared is by then, or never will be.
PREPARE_SECONDS = 3.0
PAUSE = 0.08
MANY = 400
GONE = (psycopg.OperationalError, psycopg.InterfaceError)
Row = tuple[int, str, str, str | None, str | None, str | None]


class Busy(Exception):
    """Somebody else has a key that is wanted."""


class Work:
    """One transaction: what is done in it is noted in it. `name`: table; a key of `parted` is `part,key`."""

    def __init__(self, connection: Connection, chance: random.Random, versions: itertools.count[int]) -> None:
        self.connection = connection
        self.chance = chance
        self._versions = versions

    async def execute(self, statement: str, *parameters: Any) -> list[tuple[Any, ...]]:
        cursor = await self.connection.execute(statement.encode(), parameters or None)
        return await cursor.fetchall() if cursor.description is not None else []

    async def rows(self, name: str, keys: Sequence[str]) -> dict[str, str]:
        """Locks the keys and gives the kind of those that are there. Raises Busy."""
        wanted = sorted(set(keys))
        got = await self.execute(
            "SELECT pg_try_advisory_xact_lock(hashtextextended(%s || k, 0)) FROM unnest(%s::text[]) AS k", name, wanted
        )
        if not all(each for (each,) in got):
            raise Busy
        if name == "account":
            found = await self.execute("SELECT key, kind FROM account WHERE key = ANY (%s)", wanted)
        else:
            found = await self.execute(
                "SELECT part || ',' || key, kind FROM parted WHERE part || ',' || key = ANY (%s)", wanted
            )
        return dict(found)

    def kind(self) -> str:
        return self.chance.choice(KINDS)

    def version(self) -> int:
        return next(self._versions)

    async def note(self, name: str, rows: Sequence[Row]) -> None:
        """What was done to table `name`: number, action, key, the key before, kind, the kind before."""
        columns = [list(column) for column in zip(*rows, strict=True)]
        await self.execute(
            "INSERT INTO truth (name, n, action, key, old_key, kind, old_kind) SELECT %s, * FROM unnest(%s::bigint[],"
            " %s::text[], %s::text[], %s::text[], %s::text[], %s::text[])",
            name,
            *columns,
        )


async def insert(work: Work, keys: Sequence[str]) -> None:
    """By INSERT or COPY, the keys that are not there."""
    there = await work.rows("account", keys)
    new = [(key, work.version(), work.kind()) for key in dict.fromkeys(keys) if key not in there]
    if not new:
        return
    if work.chance.random() < 0.4:
        async with (
            work.connection.cursor() as cursor,
            cursor.copy("COPY account (key, version, kind) FROM STDIN") as copy,
        ):
            for row in new:
                await copy.write_row(row)
    else:
        columns = [list(column) for column in zip(*new, strict=True)]
        await work.execute(
            "INSERT INTO account (key, version, kind) SELECT * FROM unnest(%s::text[], %s::bigint[], %s::text[])",
            *columns,
        )
    await work.note("account", [(n, "insert", key, None, kind, None) for key, n, kind in new])


async def update(work: Work, keys: Sequence[str]) -> None:
    there = await work.rows("account", keys)
    if not there:
        return
    new = [(key, work.version(), work.kind()) for key in there]
    columns = [list(column) for column in zip(*new, strict=True)]
    await work.execute(
        "UPDATE account AS t SET version = n.version, kind = n.kind FROM unnest(%s::text[], %s::bigint[], %s::text[])"
        " AS n (key, version, kind) WHERE t.key = n.key",
        *columns,
    )
    await work.note("account", [(n, "update", key, None, kind, there[key]) for key, n, kind in new])


async def upsert(work: Work, keys: Sequence[str]) -> None:
    """By ON CONFLICT or MERGE, which may delete as well."""
    there = await work.rows("account", keys)
    new = [(key, work.version(), work.kind()) for key in dict.fromkeys(keys)]
    columns = [list(column) for column in zip(*new, strict=True)]
    source = "unnest(%s::text[], %s::bigint[], %s::text[])"
    merges = work.chance.random() < 0.5 and work.connection.info.server_version >= 150_000
    if merges:
        await work.execute(
            f"MERGE INTO account AS t USING {source} AS n (key, version, kind) ON t.key = n.key"
            " WHEN MATCHED AND n.kind = 'c' THEN DELETE"
            " WHEN MATCHED THEN UPDATE SET version = n.version, kind = n.kind"
            " WHEN NOT MATCHED THEN INSERT (key, version, kind) VALUES (n.key, n.version, n.kind)",
            *columns,
        )
    else:
        await work.execute(
            f"INSERT INTO account (key, version, kind) SELECT * FROM {source} ON CONFLICT (key)"
            " DO UPDATE SET version = excluded.version, kind = excluded.kind",
            *columns,
        )
    rows: list[Row] = []
    for key, n, kind in new:
        if key not in there:
            rows.append((n, "insert", key, None, kind, None))
        elif merges and kind == "c":
            rows.append((n, "delete", key, None, None, there[key]))
        else:
            rows.append((n, "update", key, None, kind, there[key]))
    await work.note("account", rows)


async def delete(work: Work, keys: Sequence[str]) -> None:
    there = await work.rows("account", keys)
    if there:
        await work.execute("DELETE FROM account WHERE key = ANY (%s)", list(there))
        await work.note("account", [(work.version(), "delete", key, None, None, there[key]) for key in there])


async def rename(work: Work, keys: Sequence[str]) -> None:
    """A row gets the key of one that is not there."""
    there = await work.rows("account", keys)
    free = [key for key in keys if key not in there]
    if not there or not free:
        await upsert(work, keys[:2])
        return
    old, new, n, kind = next(iter(there)), free[0], work.version(), work.kind()
    await work.execute("UPDATE account SET key = %s, version = %s, kind = %s WHERE key = %s", new, n, kind, old)
    await work.note("account", [(n, "update", new, old, kind, there[old])])


async def nothing(work: Work, keys: Sequence[str]) -> None:
    """Updates that change nothing, and so are no events."""
    await work.rows("account", keys)
    await work.execute("UPDATE account SET kind = kind WHERE key = ANY (%s)", list(keys))


async def in_parts(work: Work, keys: Sequence[str]) -> None:
    """Rows of a table with partitions: come, change, move to another partition, go; through the root or past it."""
    named = [f"{work.chance.randrange(3)},{key}" for key in keys[:3]]
    there = await work.rows("parted", named)
    rows: list[Row] = []
    for each in dict.fromkeys(named):
        part, _, key = each.partition(",")
        n, kind = work.version(), work.kind()
        place = work.chance.choice(["parted", f"parted_{part}"])
        if each not in there:
            values = (int(part), key, n, kind)
            await work.execute(f"INSERT INTO {place} (part, key, version, kind) VALUES (%s, %s, %s, %s)", *values)
            rows.append((n, "insert", each, None, kind, None))
        elif work.chance.random() < 0.3:
            await work.execute(f"DELETE FROM {place} WHERE part = %s AND key = %s", int(part), key)
            rows.append((n, "delete", each, None, None, there[each]))
        else:
            values = (n, kind, int(part), key)
            await work.execute(f"UPDATE {place} SET version = %s, kind = %s WHERE part = %s AND key = %s", *values)
            rows.append((n, "update", each, None, kind, there[each]))
    await work.note("parted", rows)


async def move(work: Work, keys: Sequence[str]) -> None:
    """To another partition: a delete and an insert."""
    key = keys[0]
    named = [f"{part},{key}" for part in range(3)]
    there = await work.rows("parted", named)
    free = [each for each in named if each not in there]
    if not there or not free:
        await in_parts(work, keys)
        return
    old, new = next(iter(there)), free[0]
    gone, n, kind = work.version(), work.version(), work.kind()
    await work.execute(
        "UPDATE parted SET part = %s, version = %s, kind = %s WHERE part = %s AND key = %s",
        int(new.partition(",")[0]),
        n,
        kind,
        int(old.partition(",")[0]),
        key,
    )
    await work.note("parted", [(gone, "delete", old, None, None, there[old]), (n, "insert", new, None, kind, None)])


async def truncate(work: Work, keys: Sequence[str]) -> None:
    await work.execute("SET LOCAL lock_timeout = '200ms'")
    try:
        await work.execute("LOCK TABLE account IN ACCESS EXCLUSIVE MODE")
    except psycopg.errors.LockNotAvailable:
        raise Busy from None
    n = work.version()
    await work.execute("TRUNCATE account")
    await work.note("account", [(n, "truncate", "", None, None, None)])


Step = Callable[[Work, Sequence[str]], Awaitable[None]]
STEPS: dict[Step, int] = {
    insert: 4,
    update: 6,
    upsert: 6,
    delete: 3,
    rename: 3,
    nothing: 1,
    in_parts: 5,
    move: 3,
}


class Writers:
    """COUNT of them, in the tables of `world`. faults: what no writer should have met."""

    def __init__(self, world: World, seed: str) -> None:
        self._world = world
        self._seed = seed
        self._versions = itertools.count(1)
        self._gids = itertools.count(1)
        # Transactions that are prepared, or are about to be, and when each is to end.
        self._prepared: dict[str, float] = {}
        self.faults: list[str] = []

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        stop = asyncio.Event()
        tasks = [asyncio.create_task(self._write(nth, stop)) for nth in range(COUNT)]
        if self._world.two_phase:
            tasks.append(asyncio.create_task(self._finish(stop)))
        try:
            yield
        finally:
            stop.set()
            await asyncio.gather(*tasks)

    async def _write(self, nth: int, stop: asyncio.Event) -> None:
        chance = random.Random(f"{self._seed}/{nth}")
        keys = [f"w{nth}-{key}" for key in range(10)]
        while not stop.is_set():
            try:
                async with await self._world.connect("writer") as connection:
                    while not stop.is_set():
                        await self._transact(connection, chance, nth, keys)
                        await asyncio.sleep(chance.uniform(0, 2 * PAUSE))
            except GONE as error:
                if not _of_the_connection(error):
                    self.faults.append(f"{type(error).__name__} {error.sqlstate} {error}")
                await asyncio.sleep(0.1)
            except psycopg.Error as error:
                self.faults.append(f"{type(error).__name__} {error.sqlstate} {error}")
                await asyncio.sleep(0.1)

    async def _transact(self, connection: Connection, chance: random.Random, nth: int, own: Sequence[str]) -> None:
        work = Work(connection, chance, self._versions)
        await connection.execute("BEGIN")
        if chance.random() < 0.3:
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
        return self._world.two_phase and len(self._prepared) < 3 and not self._world.wants_table

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
