"""What people ask for while writers write: other manifests, replays, migrations, upkeep of the database, limits."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator
from typing import Any

import psycopg

from .breaking import end_session, freeze_listener, kill_listener
from .changing import HOT, Work, write_all
from .watchers import AGAIN, Watcher
from .wide import migration
from .world import OURS, World


async def write_much(world: World, chance: random.Random) -> None:
    """One transaction of very many rows, by one statement or by two."""
    async with world.locks["bulk"], _bulk(world, chance) as name, await world.connect("writer") as connection:
        work = Work(connection, chance, world.versions)
        await connection.execute("BEGIN")
        for _ in range(chance.choice([1, 1, 2])):
            await write_all(work, name, 50_000 if world.long else 3_000)
        await connection.execute("ROLLBACK" if chance.random() < 0.1 else "COMMIT")
        world.say(f"wrote much to {name}")


@contextlib.asynccontextmanager
async def _bulk(world: World, chance: random.Random) -> AsyncIterator[str]:
    """What table `bulk` is called now: the application may have given it another name, which its events never have."""
    if chance.random() < 0.6 or not await _run(world, "ALTER TABLE bulk RENAME TO bulky"):
        yield "bulk"
        return
    try:
        yield "bulky"
        await asyncio.sleep(chance.choice([0, 2]))
    finally:
        assert await _run(world, "ALTER TABLE bulky RENAME TO bulk")


async def replay(world: World, chance: random.Random) -> None:
    """What was delivered lately is sent again, of all rows or of one; perhaps twice at once, and perhaps whoever does
    it ends in its midst."""
    watcher = chance.choice(list(world.watchers.values()))
    for _ in range(chance.choice([1, 1, 2])):
        meant = {"key": _key(watcher, chance)} if chance.random() < 0.4 else {}
        await world.command("replay", watcher.name, chance.choice([1, 5, 20]), **meant)
    if chance.random() < 0.5:
        await asyncio.sleep(chance.uniform(0, 1.5))
        await chance.choice([kill_listener, kill_listener, freeze_listener, end_session])(world, chance)


def _key(watcher: Watcher, chance: random.Random) -> str:
    """One that has many events, or few."""
    if watcher.table == "parted":
        return f"{chance.randrange(3)},{chance.choice([*HOT, 'w0-1', 'w1-2'])}"
    return chance.choice([*HOT, *HOT, "w0-1", "w1-2", "b-1"])


async def change_manifest(world: World, chance: random.Random) -> None:
    """Other columns, conditions, batches, subjects, bounds, or a pause."""
    watcher = world.watchers[chance.choice([name for name in world.watchers if name != AGAIN])]
    async with watcher.lock:
        changed = changes_of(watcher, chance)
        world.say(f"manifest of {watcher.name}: {changed}")
        watcher.rerouted |= "sink" in changed
        watcher.spec |= changed
        await applied(world, watcher)
    if watcher.spec.get("suspend"):
        await asyncio.sleep(chance.choice([0.5, 4]))
        async with watcher.lock:
            watcher.spec["suspend"] = False
            await applied(world, watcher)


async def reroute(world: World, chance: random.Random) -> None:
    """A subject names one column, then another, and what has been sent by then is sent again."""
    found = [each for each in world.watchers.values() if not each.http and each.table == "account"]
    watcher, columns = chance.choice(found), ["version", "kind"]
    for name in chance.sample(columns, 2):
        async with watcher.lock:
            world.say(f"subject of {watcher.name}: {name}")
            watcher.rerouted = True
            watcher.spec |= {"columns": columns, "sink": _with_subject(watcher, f".{{column:{name}}}")}
            await applied(world, watcher)
        await asyncio.sleep(chance.choice([0.5, 2]))
    await world.command("replay", watcher.name, 20)


def changes_of(watcher: Watcher, chance: random.Random) -> dict[str, Any]:
    """Another value for a field of its spec; None removes it."""
    spec = watcher.spec
    columns = chance.choice([["*"], ["version", "kind"], ["version", "kind", "note"]])
    if watcher.table == "wide":
        columns = spec["columns"]
    kinds = chance.choice([None, ["a"], ["a", "b"], ["b", "c"]])
    where: Any = kinds and [{"column": "kind", "operator": "In", "values": kinds}]
    retention = {"retentionSeconds": chance.choice([0, 5, 600])}
    if watcher.http:
        many = chance.choice([1, 2, 100]) if watcher.table != "bulk" else 1000
        batch = {"maxEvents": many, "lingerMilliseconds": chance.choice([0, 20])}
        sink = {"http": {**spec["sink"]["http"], "batch": batch, "concurrency": chance.choice([1, 4, 32])}}
        other, form = sink, "Structured"
    else:
        # {column:kind} in a subject wants the column.
        sink, form = _to_nats(watcher, columns, chance), chance.choice(["Structured", "Binary"])
        other = _to_nats(watcher, spec.get("columns", []), chance)
    found: list[dict[str, Any]] = [
        {"columns": columns, "sink": sink, "format": form},
        {"includeBefore": not spec.get("includeBefore", False)},
        {"where": where},
        {"sink": other, "format": form},
        {"capture": {"granularity": chance.choice(["Auto", "Row"])}},
        {"delivery": {**spec["delivery"], **retention}},
        {"suspend": True},
    ]
    return chance.choice(found)


def _to_nats(watcher: Watcher, columns: list[str], chance: random.Random) -> dict[str, Any]:
    """Its sink with another subject. columns: those that are sent."""
    named = [f".{{column:{name}}}" for name in ("kind", "version") if name in columns or "*" in columns]
    return _with_subject(watcher, chance.choice(["", ".{key}", ".{table}", *named, *named]))


def _with_subject(watcher: Watcher, last: str) -> dict[str, Any]:
    """last: what follows name and action."""
    sink = watcher.spec["sink"]["nats"]
    above = sink["subject"].partition(".")[0]
    return {"nats": {**sink, "subject": f"{above}.{watcher.name}.{{action}}{last}"}}


async def applied(world: World, watcher: Watcher) -> None:
    """Applies the watcher as it is now, for as long as it takes."""
    watcher.asking.begin(time.time(), watcher.asked())
    world.write(watcher)
    await insist(world, "apply", watcher.name)
    watcher.asking.settled(time.time())


async def insist(world: World, word: str, name: str) -> None:
    while not await world.command(word, name):
        # It may need the table to itself for a moment, and some transaction is always prepared.
        world.wants_table = True
        await asyncio.sleep(0.5)
    world.wants_table = False


async def make_again(world: World, chance: random.Random) -> None:
    """One watcher of several on a table is destroyed, and applied anew."""
    watcher = world.watchers[AGAIN]
    async with watcher.lock:
        await insist(world, "destroy", AGAIN)
        await asyncio.sleep(chance.choice([0, 0.5, 3]))
        await applied(world, watcher)
        # What was undelivered went with the ring, and what ran without it was not seen.
        watcher.asking.forgiven.add((0.0, time.time()))


async def _run(world: World, statement: str) -> bool:
    """As an application's migration: it gives up rather than have others wait. False: it has."""
    for _ in range(60):
        try:
            async with await world.connect("migration") as connection:
                await connection.execute("SET lock_timeout = '150ms'")
                await connection.execute(statement.encode())
        except psycopg.OperationalError:
            await asyncio.sleep(0.3)
        else:
            world.say(statement)
            return True
    return False


AGAIN_A_PARTITION = (
    "BEGIN; LOCK TABLE parted IN ACCESS EXCLUSIVE MODE; ALTER TABLE parted DETACH PARTITION parted_1;"
    " ALTER TABLE parted ATTACH PARTITION parted_1 FOR VALUES IN (1); COMMIT"
)
MIGRATIONS = (
    ("ALTER TABLE account ADD extra text DEFAULT 'x'", "ALTER TABLE account DROP COLUMN extra"),
    ("ALTER TABLE account RENAME note TO memo", "ALTER TABLE account RENAME memo TO note"),
    ("ALTER TABLE account ALTER amount TYPE bigint", "ALTER TABLE account ALTER amount TYPE int"),
    ("ALTER TABLE account ALTER kind TYPE varchar(10)", "ALTER TABLE account ALTER kind TYPE text"),
    ("ALTER TABLE account ALTER version TYPE numeric", "ALTER TABLE account ALTER version TYPE bigint"),
    ("ALTER TABLE parted ADD extra int", "ALTER TABLE parted DROP COLUMN extra"),
    ("CREATE TABLE parted_9 PARTITION OF parted FOR VALUES IN (9)", "DROP TABLE parted_9"),
    (
        AGAIN_A_PARTITION,
        "ANALYZE parted",
    ),
    ("CREATE INDEX account_kind ON account (kind)", "DROP INDEX account_kind"),
)


async def migrate(world: World, chance: random.Random) -> None:
    """The application changes its tables, and changes them back."""
    async with world.locks["ddl"]:
        change, back = chance.choice(MIGRATIONS)
        if await _run(world, change):
            await asyncio.sleep(chance.choice([0.5, 3]))
            assert await _run(world, back)


async def change_wide(world: World, chance: random.Random) -> None:
    """The application makes others of the columns that have odd types. Perhaps somebody applies what watches them."""
    async with world.locks["wide"]:
        for nth, statement in enumerate(migration(chance)):
            if not await _run(world, statement):
                assert not nth, statement
                return
            await asyncio.sleep(chance.choice([0.5, 3]))
        for watcher in [each for each in world.watchers.values() if each.table == "wide" and chance.random() < 0.7]:
            async with watcher.lock:
                await applied(world, watcher)


async def keep_house(world: World, chance: random.Random) -> None:
    """Upkeep by a DBA, of the ring too."""
    async with world.locks["ddl"]:
        found = await world.sql(
            "SELECT relkind::text, relname::text FROM pg_class WHERE relname ~ '^(ring|cursor)_'"
            " AND relnamespace = to_regnamespace('tablewatcher') AND relkind IN ('r', 'i') ORDER BY relname"
        )
        ring = chance.choice([name for kind, name in found if kind == "r"])
        index = chance.choice([name for kind, name in found if kind == "i"])
        statements = (
            f"VACUUM FULL tablewatcher.{ring}",
            f"VACUUM (FREEZE, ANALYZE) tablewatcher.{ring}",
            f"REINDEX INDEX CONCURRENTLY tablewatcher.{index}",
            "REINDEX TABLE CONCURRENTLY account",
            "VACUUM FULL account",
            "VACUUM FREEZE",
            "ANALYZE",
            "CHECKPOINT",
        )
        with contextlib.suppress(psycopg.errors.UndefinedTable):  # its watcher has been destroyed
            await _run(world, chance.choice(statements))


LIMITS = (
    ("statement_timeout", "30ms"),
    ("lock_timeout", "1ms"),
    ("idle_in_transaction_session_timeout", "100ms"),
    ("default_transaction_isolation", "serializable"),
    ("search_path", "public"),
    ("work_mem", "64kB"),
)


async def limit(world: World, chance: random.Random) -> None:
    """Settings for the role that delivers, as a DBA has them for applications."""
    name, value = chance.choice(LIMITS)
    world.say(f"the role has {name} = {value}")
    await world.sql(f"ALTER ROLE {OURS} SET {name} = '{value}'")
    await end_session(world, chance)
    await asyncio.sleep(3)
    await world.sql(f"ALTER ROLE {OURS} RESET ALL")


async def read_for_long(world: World, chance: random.Random) -> None:
    """Somebody keeps a snapshot, perhaps with a transaction id."""
    async with await world.connect("reader") as connection:
        await connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        await connection.execute("SELECT count(*) FROM truth")
        if chance.random() < 0.5:
            await connection.execute("SELECT pg_current_xact_id()")
        await asyncio.sleep(chance.choice([2, 10]))
