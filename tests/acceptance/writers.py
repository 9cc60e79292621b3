"""Concurrent writers with a log of what each of them did: slow, rolled back, nested, hot, many rows at a time.

Every change of a row carries a version, drawn while the row's lock is held, so versions of a key rise in the order of
their commits. The same transaction notes it in table `truth`, which nobody watches: after a crash that table tells
what a commit without an answer has come to. The change was made between `began` and `noted`.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import random
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from typing import Any

import psycopg

from ..conftest import Database, poll
from .checker import Change, History, Outcome

TABLES = """
CREATE TABLE account (key text PRIMARY KEY, version bigint NOT NULL, note text NOT NULL DEFAULT '');
CREATE TABLE truth (
    key text NOT NULL, version bigint NOT NULL,
    began timestamptz NOT NULL DEFAULT now(), noted timestamptz NOT NULL DEFAULT clock_timestamp());
"""
HOT_KEYS = tuple(f"hot-{nth}" for nth in range(4))
PRIVATE_KEYS = 12
_CONNECTION_LOST = (psycopg.OperationalError, psycopg.InterfaceError)

Connection = psycopg.AsyncConnection[tuple[Any, ...]]


class Transaction:
    """One open transaction and the changes it has made so far; `dropped` are those of a savepoint given up."""

    def __init__(self, connection: Connection, history: History, versions: itertools.count[int]) -> None:
        self._connection = connection
        self._history = history
        self._versions = versions
        self.changes: list[Change] = []
        self.dropped: list[Change] = []

    async def put(self, keys: Sequence[str]) -> None:
        """Inserts or updates the rows of `keys`: one statement for those that are there, one for the others."""
        wanted = sorted(set(keys))
        there = await self._locked(wanted)
        changes = self._draw(wanted)
        old = [change for change in changes if change[0] in there]
        new = [change for change in changes if change[0] not in there]
        if old:
            await self._execute(
                "UPDATE account AS a SET version = n.version FROM unnest(%s::text[], %s::bigint[]) AS n (key, version)"
                " WHERE a.key = n.key",
                *_columns(old),
            )
        if new:
            await self._execute(
                "INSERT INTO account (key, version) SELECT * FROM unnest(%s::text[], %s::bigint[])",
                *_columns(new),
            )
        await self._note(changes)

    async def delete(self, keys: Sequence[str]) -> None:
        """Deletes the rows of `keys` that are there. The version of a deletion travels in the context."""
        there = await self._locked(sorted(set(keys)))
        if not there:
            return
        changes = self._draw(sorted(there))
        await self._execute(
            "SELECT set_config('tablewatcher.context', %s, true)", json.dumps({"versions": dict(changes)})
        )
        await self._execute("DELETE FROM account WHERE key = ANY (%s)", sorted(there))
        await self._note(changes)

    async def savepoint(self, keys: Sequence[str]) -> None:
        """Changes `keys` under a savepoint, and rolls back to it."""
        await self._execute("SAVEPOINT s")
        before = len(self.changes)
        await self.put(keys)
        await self._execute("ROLLBACK TO SAVEPOINT s")
        self.dropped += self.changes[before:]
        del self.changes[before:]

    def settle(self, outcome: Outcome) -> None:
        """What the end of the transaction means for all its changes."""
        self._history.settle(self.dropped, Outcome.FAIL)
        self._history.settle(self.changes, outcome)

    async def _locked(self, keys: list[str]) -> set[str]:
        cursor = await self._connection.execute(
            "SELECT key FROM account WHERE key = ANY (%s) ORDER BY key FOR UPDATE", [keys]
        )
        return {str(row[0]) for row in await cursor.fetchall()}

    def _draw(self, keys: Sequence[str]) -> list[Change]:
        changes = [(key, next(self._versions)) for key in keys]
        for change in changes:
            self._history.invoke(change)
        self.changes += changes
        return changes

    async def _note(self, changes: Sequence[Change]) -> None:
        await self._execute(
            "INSERT INTO truth (key, version) SELECT * FROM unnest(%s::text[], %s::bigint[])", *_columns(changes)
        )

    async def _execute(self, statement: str, *parameters: Any) -> None:
        await self._connection.execute(statement.encode(), parameters or None)


async def put(database: Database, *keys: str) -> None:
    """The next version of each key, one transaction each."""
    for key in keys:
        await database.execute(
            "INSERT INTO account (key, version) VALUES (%s, 1)"
            " ON CONFLICT (key) DO UPDATE SET version = account.version + 1",
            key,
        )


Plan = Callable[[Transaction, random.Random, Sequence[str]], Coroutine[Any, Any, None]]


async def _one(transaction: Transaction, chance: random.Random, keys: Sequence[str]) -> None:
    await transaction.put([chance.choice(keys)])


async def _hot(transaction: Transaction, chance: random.Random, _: Sequence[str]) -> None:
    await transaction.put(chance.sample(HOT_KEYS, 2))


async def _many(transaction: Transaction, chance: random.Random, keys: Sequence[str]) -> None:
    await transaction.put(chance.sample(keys, 8))


async def _again(transaction: Transaction, chance: random.Random, keys: Sequence[str]) -> None:
    key = chance.choice(keys)
    for _ in range(3):
        await transaction.put([key])
    await transaction.delete([key])
    await transaction.put([key])


async def _remove(transaction: Transaction, chance: random.Random, keys: Sequence[str]) -> None:
    await transaction.delete(chance.sample(keys, 3))


async def _nested(transaction: Transaction, chance: random.Random, keys: Sequence[str]) -> None:
    first, second, third = chance.sample(keys, 3)
    await transaction.put([first])
    await transaction.savepoint([first, second])
    await transaction.put([second, third])


async def _slow(transaction: Transaction, chance: random.Random, keys: Sequence[str]) -> None:
    """Draws its first ids early and commits late, after others that began later."""
    await transaction.put(chance.sample(keys, 3))
    await asyncio.sleep(chance.uniform(0.1, 0.8))
    await transaction.put([chance.choice(keys)])
    if chance.random() < 0.3:
        await transaction.put([chance.choice(HOT_KEYS)])


PLANS: dict[Plan, int] = {_one: 6, _hot: 4, _many: 3, _again: 2, _remove: 2, _nested: 2, _slow: 3}
ROLLED_BACK = 0.1


class Writers:
    """`count` writers on a database that has TABLES.

    relaxed: share of transactions that commit without waiting for the disk; a crash of the database may undo them, so
    their outcome counts as unknown. pause: seconds that each waits after a transaction at the most.
    """

    def __init__(self, dsn: str, *, count: int = 14, relaxed: float = 0.0, seed: int = 1, pause: float = 0.02) -> None:
        self._dsn = dsn
        self._count = count
        self._relaxed = relaxed
        self._seed = seed
        self._pause = pause
        self._versions = itertools.count(1)
        self.history = History()
        self.committed = 0
        self.faults: list[str] = []

    async def connect(self) -> Connection:
        """A connection to write with."""
        return await psycopg.AsyncConnection.connect(self._dsn, autocommit=True, connect_timeout=30)

    def open(self, connection: Connection) -> Transaction:
        """The record of a transaction that the caller begins, ends and settles."""
        return Transaction(connection, self.history, self._versions)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """They write inside; at its end each finishes the transaction it is in."""
        async with await self.connect() as connection:
            await self._transact(connection, random.Random(self._seed), lambda t, *_: t.put(HOT_KEYS), ())
        stop = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            for nth in range(self._count):
                group.create_task(self._write(nth, stop))
            try:
                yield
            finally:
                stop.set()

    async def progress(self, changes: int, seconds: float = 40.0) -> None:
        """Returns after that many more committed changes."""
        goal = self.committed + changes
        await poll(lambda: self.committed >= goal, seconds, every=0.005)

    async def resolve(self) -> None:
        """Settles unknown outcomes by what the database has."""
        async with await self.connect() as connection:
            rows = await (await connection.execute("SELECT key, version FROM truth")).fetchall()
        self.history.resolve([(str(key), int(version)) for key, version in rows])

    async def _write(self, nth: int, stop: asyncio.Event) -> None:
        chance = random.Random(f"{self._seed}/{nth}")
        keys = [f"w{nth}-{key}" for key in range(PRIVATE_KEYS)]
        while not stop.is_set():
            try:
                async with await self.connect() as connection:
                    while not stop.is_set():
                        plan = chance.choices(list(PLANS), list(PLANS.values()))[0]
                        await self._transact(connection, chance, plan, keys)
                        await asyncio.sleep(chance.uniform(0, self._pause))
            except _CONNECTION_LOST as error:
                self.faults.append(f"{type(error).__name__} {error}".strip())
                await asyncio.sleep(0.05)

    async def _transact(self, connection: Connection, chance: random.Random, plan: Plan, keys: Sequence[str]) -> None:
        """One transaction, to its end. Raises what psycopg does; by then its outcome is in the log."""
        transaction = self.open(connection)
        is_relaxed = chance.random() < self._relaxed
        ending = "ROLLBACK" if chance.random() < ROLLED_BACK and keys else "COMMIT"
        outcome = Outcome.FAIL
        try:
            await connection.execute("BEGIN")
            if is_relaxed:
                await connection.execute("SET LOCAL synchronous_commit = off")
            await plan(transaction, chance, keys)
            if ending == "COMMIT":
                outcome = Outcome.INFO
            await connection.execute(ending)
            if ending == "COMMIT" and not is_relaxed:
                outcome = Outcome.OK
        finally:
            transaction.settle(outcome)
            self.committed += len(transaction.changes) if outcome is not Outcome.FAIL else 0


def _columns(changes: Sequence[Change]) -> tuple[list[str], list[int]]:
    return [key for key, _ in changes], [version for _, version in changes]
