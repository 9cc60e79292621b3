"""One transaction of a writer, and the statements it may consist of. What they do is noted in table `truth`, in it."""

from __future__ import annotations

import itertools
import random
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import psycopg

Connection = psycopg.AsyncConnection[tuple[Any, ...]]
KINDS = ("a", "b", "c")
# Keys that all write.
HOT = tuple(f"hot-{nth}" for nth in range(4))
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


async def write_all(work: Work, name: str, size: int) -> None:
    """Of table `bulk`, which nobody else writes: its rows come where there are none, else all of them change or go.

    name: what it is called now.
    """
    ((there, kind),) = await work.execute(f"SELECT count(*)::int, min(kind) FROM {name}")
    rows, first, new = there or size, work.version(), work.kind()
    for _ in range(rows):
        work.version()
    action = "insert" if not there else work.chance.choice(["update", "update", "delete", "truncate"])
    await work.execute(_ALL[action].format(name), *_values(action, first, new, rows))
    if action == "truncate":
        await work.note("bulk", [(first, action, "", None, None, None)])
        return
    await work.execute(
        "INSERT INTO truth (n, name, action, key, kind, old_kind) SELECT %s::bigint + i, 'bulk', %s, 'b-' || i, %s, %s"
        " FROM generate_series(1, %s::int) AS i",
        first,
        action,
        None if action == "delete" else new,
        kind,
        rows,
    )


def _values(action: str, first: int, kind: str, rows: int) -> list[object]:
    return {"insert": [first, kind, rows], "update": [first, kind]}.get(action, [])


_ALL = {
    "insert": "INSERT INTO {} (key, version, kind) SELECT 'b-' || i, %s::bigint + i, %s"
    " FROM generate_series(1, %s::int) AS i",
    "update": "UPDATE {} SET version = %s::bigint + substr(key, 3)::int, kind = %s",
    "delete": "DELETE FROM {}",
    "truncate": "TRUNCATE {}",
}


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
