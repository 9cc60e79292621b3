"""The writing half of the demonstration: clients that change orders, and what of it has been committed."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ...postgres.connection.session import Connection, connected

SCHEMA, TABLE = "public", "orders"
# Updates of the first are counted; those of the second too, or must not arrive, as the watchers have it.
STATUS, NOTE = "status", "note"
WRITTEN = ("id", "customer", "total", STATUS, NOTE)
CLIENTS = 4
TRANSACTIONS = 400
PER_SECOND = 100.0
_ROLLED_BACK_SHARE = 0.08
_NOTE_SHARE = 0.08
_CHOICES = ("insert", "update", "delete", "both")
_WEIGHTS = (45, 35, 10, 10)

_INSERT = (
    "INSERT INTO public.orders (customer, total) VALUES (%s, %s)"
    " RETURNING id, pg_catalog.pg_current_xact_id()::text AS tx"
)
_UPDATE = (
    "UPDATE public.orders SET status = CASE status WHEN 'new' THEN 'paid' WHEN 'paid' THEN 'shipped' ELSE 'new' END"
    " WHERE id = %s RETURNING id, pg_catalog.pg_current_xact_id()::text AS tx"
)
_DELETE = "DELETE FROM public.orders WHERE id = %s RETURNING id, pg_catalog.pg_current_xact_id()::text AS tx"
_ANNOTATE = (
    "UPDATE public.orders SET note = coalesce(note, '') || '.'"
    " WHERE id = %s RETURNING id, pg_catalog.pg_current_xact_id()::text AS tx"
)


@dataclass(frozen=True, slots=True)
class Change:
    """One row change of one transaction; a transaction here makes at most one of each kind to a row."""

    transaction: str
    action: str
    key: str


@dataclass(slots=True)
class Ledger:
    """What the writers know. `committed`: each change, and the epoch second at which its COMMIT was sent."""

    committed: dict[Change, float] = field(default_factory=dict)
    transactions: int = 0
    rolled_back: int = 0
    unwatched: int = 0


class Writers:
    """Changes rows over several connections at once, at a steady rate, and keeps the ledger.

    notes_arrive: whether an update of NOTE alone is an event.
    """

    def __init__(self, dsn: str, *, notes_arrive: bool) -> None:
        self.ledger = Ledger()
        self._dsn = dsn
        self._notes_arrive = notes_arrive
        self._rows: list[int] = []
        self._chance = random.Random()  # noqa: S311 - chooses what to write, nothing secret

    async def one_of_each(self) -> None:
        """One order is placed, paid and removed: three transactions."""
        async with connected(self._dsn) as connection:
            changes: list[tuple[str, str, tuple[Any, ...]]] = [("insert", _INSERT, ("ada", "42.50"))]
            key = await self._transaction(connection, changes)
            await self._transaction(connection, [("update", _UPDATE, (key,))])
            await self._transaction(connection, [("delete", _DELETE, (key,))])

    async def run(self, advance: Callable[[], None]) -> None:
        """All the transactions; `advance` is called after each. Raises the first client's DatabaseError."""
        start = asyncio.get_running_loop().time()
        try:
            async with asyncio.TaskGroup() as group:
                for client in range(CLIENTS):
                    group.create_task(self._client(range(client, TRANSACTIONS, CLIENTS), start, advance))
        except ExceptionGroup as faults:
            raise faults.exceptions[0] from None

    async def _client(self, turns: range, start: float, advance: Callable[[], None]) -> None:
        loop = asyncio.get_running_loop()
        async with connected(self._dsn) as connection:
            for turn in turns:
                await asyncio.sleep(max(start + turn / PER_SECOND - loop.time(), 0.0))
                await self._turn(connection)
                advance()

    async def _turn(self, connection: Connection) -> None:
        chance = self._chance
        drawn = chance.random()
        if self._rows and drawn < _NOTE_SHARE:
            await self._annotate(connection)
            return
        keep = drawn < 1 - _ROLLED_BACK_SHARE
        choice = chance.choices(_CHOICES, _WEIGHTS)[0] if self._rows else "insert"
        changes: list[tuple[str, str, tuple[Any, ...]]] = []
        if choice in ("insert", "both"):
            changes.append(("insert", _INSERT, (f"customer {chance.randrange(50)}", f"{chance.randrange(1, 99)}.99")))
        if choice in ("update", "both"):
            changes.append(("update", _UPDATE, (chance.choice(self._rows),)))
        if choice == "delete":
            row = chance.choice(self._rows)
            if keep:
                self._rows.remove(row)
            changes.append(("delete", _DELETE, (row,)))
        await self._transaction(connection, changes, keep=keep)

    async def _annotate(self, connection: Connection) -> None:
        row = self._chance.choice(self._rows)
        if self._notes_arrive:
            await self._transaction(connection, [("update", _ANNOTATE, (row,))])
        else:
            self.ledger.unwatched += (await connection.execute(_ANNOTATE.encode(), [row])).rowcount

    async def _transaction(
        self, connection: Connection, changes: list[tuple[str, str, tuple[Any, ...]]], *, keep: bool = True
    ) -> int | None:
        made: list[Change] = []
        placed: int | None = None
        await connection.execute("BEGIN")
        for action, statement, values in changes:
            found = await (await connection.execute(statement.encode(), values)).fetchone()
            if found is None:
                continue  # another client has removed the row meanwhile
            made.append(Change(found["tx"], action, str(found["id"])))
            placed = found["id"] if action == "insert" else placed
        if not keep:
            await connection.execute("ROLLBACK")
            self.ledger.rolled_back += 1
            return None
        sent = time.time()
        await connection.execute("COMMIT")
        self.ledger.transactions += 1
        self.ledger.committed |= dict.fromkeys(made, sent)
        if placed is not None:
            self._rows.append(placed)
        return placed
