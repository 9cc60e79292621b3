"""The role that capture runs as: what it needs, what it must not need, and who else may have a hand in its ring."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass

import psycopg
import pytest

from tablewatcher.cli.checks import Level, database_checks
from tablewatcher.errors import DatabaseError, Reason
from tablewatcher.postgres.connection.session import connect
from tablewatcher.postgres.drift import Drift
from tablewatcher.postgres.install.apply import apply
from tablewatcher.postgres.install.grants import to_capture
from tablewatcher.postgres.install.survey import survey
from tablewatcher.spec.model import Action, Capture, DeliveryPolicy, Granularity, NatsSink, WatcherSpec

from ..conftest import Database
from ..conftest import any_postgres as postgres  # noqa: F401 - both versions
from .capturing import names_of, opened, plan, spec_of, watch

WRITES = frozenset({Action.INSERT, Action.UPDATE, Action.DELETE})
STEP = "let the capture function write the ring"


@dataclass(frozen=True, slots=True)
class Maker:
    """A role of no privilege that owns table `t` and may make schemas, in a database of which we are the superuser."""

    role: str
    dsn: str
    database: Database


@pytest.fixture
async def maker(database: Database) -> AsyncIterator[Maker]:
    role = f"maker_{secrets.token_hex(4)}"
    await database.execute(
        f"CREATE ROLE {role} LOGIN PASSWORD 'p'; GRANT CREATE ON DATABASE {database.name} TO {role};"
        f" CREATE TABLE t (id int PRIMARY KEY, v text); ALTER TABLE t OWNER TO {role}"
    )
    yield Maker(role, database.dsn_of(role, "p"), database)
    await database.execute(f"DROP OWNED BY {role} CASCADE; DROP ROLE {role}")


@pytest.mark.parametrize("granularity", [Granularity.AUTO, Granularity.ROW])
@pytest.mark.parametrize("column", ["id", "v"])
async def test_a_column_of_a_type_that_the_role_may_not_cast(
    granularity: Granularity, column: str, maker: Maker
) -> None:
    """Of the key, and of the subject. An expression's functions are looked up though it is never evaluated."""
    spec = spec_of(
        actions=WRITES,
        columns=("v",),
        capture=Capture(granularity=granularity),
        sink=NatsSink(("nats://127.0.0.1:4222",), "x.{column:v}"),
    )
    watched = await watch(maker.dsn, spec)
    async with watched.reader:
        await maker.database.execute(
            "CREATE TYPE odd AS (a text); CREATE FUNCTION odd_text(odd) RETURNS text LANGUAGE sql AS 'SELECT ($1).a';"
            " CREATE CAST (odd AS text) WITH FUNCTION odd_text(odd); REVOKE ALL ON FUNCTION odd_text(odd) FROM PUBLIC;"
            f" ALTER TABLE t ALTER {column} TYPE odd USING row({column}::text)::odd"
        )
        values = {"id": "row(g::text)::odd, 'a'", "v": "g, row('a')::odd"}[column]
        await maker.database.execute(
            f"INSERT INTO t SELECT {values} FROM generate_series(1, 40) AS g; UPDATE t SET v = v; DELETE FROM t"
        )
        found = [data["action"] for data in await watched.data()]
    assert found == ["insert"] * 40 + ["delete"] * 40


async def everything_captured(maker: Maker, spec: WatcherSpec) -> None:
    """Each branch of the function: chunks, waking, leaving out, and the bound, at which capture stops."""
    names = names_of(spec)
    await maker.database.execute(
        f"SELECT setval('tablewatcher.{names.wake}', extract(epoch FROM now())::bigint + 60);"
        " INSERT INTO t SELECT g, repeat('x', 100) FROM generate_series(1, 5000) AS g; UPDATE t SET v = 'y';"
        " DELETE FROM t WHERE id > 1; SET tablewatcher.skip = on; DELETE FROM t; TRUNCATE t; RESET tablewatcher.skip"
    )
    ((stopped, skipped),) = await maker.database.execute(
        "SELECT stop.last_value, skips.last_value"
        f" FROM tablewatcher.{names.stop} AS stop, tablewatcher.{names.skips} AS skips"
    )
    assert stopped > 0
    assert skipped == 2


@pytest.fixture
def spec() -> WatcherSpec:
    # With a bound that is soon passed.
    delivery = DeliveryPolicy(overflow_bytes=1 << 20)
    return spec_of(actions=frozenset(Action), columns=("v",), capture=Capture(allow_skip=True), delivery=delivery)


async def test_the_functions_owner_needs_our_grants_and_no_others(maker: Maker, spec: WatcherSpec) -> None:
    """The function is given to a role that owns nothing else."""
    names = names_of(spec)
    await apply(maker.database.dsn, spec, names)
    await maker.database.execute(f"GRANT CREATE ON SCHEMA tablewatcher TO {maker.role}")
    await maker.database.execute(f"ALTER FUNCTION tablewatcher.{names.function}() OWNER TO {maker.role}")
    await maker.database.execute(f"REVOKE ALL ON SCHEMA tablewatcher FROM {maker.role}")
    applied = await apply(maker.database.dsn, spec, names)
    assert [step.what for step in applied.plan.steps] == [STEP]
    await everything_captured(maker, spec)
    assert not await plan(maker.database.dsn, spec, names)


async def test_each_right_that_is_taken_is_given_back(maker: Maker, spec: WatcherSpec) -> None:
    names = names_of(spec)
    await apply(maker.dsn, spec, names)
    for right in to_capture(names):
        qualified = right.name if right.kind == "SCHEMA" else f"tablewatcher.{right.name}"
        what = f"{right.privilege} ON {right.kind} {qualified}"
        # pg_sequence_last_value is content with either.
        also = f"; REVOKE USAGE ON SEQUENCE {qualified} FROM {maker.role}" if right.privilege == "SELECT" else ""
        await maker.database.execute(f"REVOKE {what} FROM {maker.role}{also}")
        found = (await apply(maker.database.dsn, spec, names)).plan
        assert [(step.what, step.sql) for step in found.steps] == [(STEP, f'GRANT {what} TO "{maker.role}"')]
    await everything_captured(maker, spec)


@pytest.mark.parametrize("of", ["ids", "slot", "wake", "stop", "skips"])
async def test_a_right_to_a_sequence_that_is_taken_is_told_and_loses_nothing(
    maker: Maker, spec: WatcherSpec, of: str
) -> None:
    """Without it writes fail, or are captured all the same: a look at a sequence may give NULL in place of an error."""
    owners, names = maker.database, names_of(spec)
    await apply(maker.dsn, spec, names)
    watched = await opened(owners.dsn, spec)
    async with watched.reader as reader:
        drift = Drift(reader, asyncio.Lock(), names, spec)
        # A ring that has turned once: what goes to another slot than it should is read all the same.
        await owners.execute(f"SELECT setval('tablewatcher.{names.slot}', 1); INSERT INTO t VALUES (0, 'a')")
        await owners.execute(f"REVOKE ALL ON SEQUENCE tablewatcher.{getattr(names, of)} FROM {maker.role}")
        for values in ("VALUES (1, 'a')", "SELECT g, 'b' FROM generate_series(2, 99) AS g"):
            with contextlib.suppress(psycopg.errors.InsufficientPrivilege):
                await owners.execute(f"INSERT INTO t {values}")
        written = [key for (key,) in await owners.execute("SELECT id FROM t ORDER BY id")]
        found = list(database_checks(spec, await survey(owners.dsn, spec, names), names))
        (check,) = (each for each in found if each.name == "writes")
        assert check.level is Level.FAIL
        assert check.text.startswith("every write to public.t fails") is (len(written) == 1)
        assert "lost rights" in await drift.look()
        await apply(owners.dsn, spec, names)
        assert await drift.look() == ""
        assert [int(str(event.key)) for event in await watched.events()] == written


@pytest.mark.parametrize("what", ["USAGE ON SCHEMA tablewatcher", "INSERT ON {ring}"])
async def test_whoever_takes_a_right_that_writes_need_is_told(maker: Maker, spec: WatcherSpec, what: str) -> None:
    """Nothing of ours can keep these writes from failing: see decision 0030."""
    names, owners = names_of(spec), maker.database
    await apply(maker.dsn, spec, names)
    taken = what.format(ring=f"tablewatcher.{names.rings[0]}")
    async with await connect(owners.dsn) as connection:
        drift = Drift(connection, asyncio.Lock(), names, spec)

        async def said() -> tuple[str, Level]:
            found = list(database_checks(spec, await survey(owners.dsn, spec, names), names))
            (check,) = (each for each in found if each.name == "writes")
            return await drift.look(), check.level

        assert await said() == ("", Level.OK)
        await owners.execute(f"REVOKE {taken} FROM {maker.role}")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            await owners.execute("INSERT INTO t VALUES (1, 'a')")
        fault, level = await said()
        assert fault.startswith(
            f"writes to public.t fail, or may: role {maker.role}, as which the capture function runs,"
        )
        assert level is Level.FAIL
        if "SCHEMA" in what:
            async with await connect(maker.dsn) as listeners:
                with pytest.raises(DatabaseError, match="if capture runs as this role, writes to its table fail"):
                    await Drift(listeners, asyncio.Lock(), names, spec).look()
            with pytest.raises(DatabaseError, match="lacks rights, and writes to the table fail for want of some;"):
                await plan(maker.dsn, spec, names)
        await apply(owners.dsn, spec, names)
        assert await said() == ("", Level.OK)
        await owners.execute("INSERT INTO t VALUES (1, 'a')")


async def test_the_owner_of_a_partition_with_partitions_adds_more(maker: Maker, spec: WatcherSpec) -> None:
    """Postgres puts the trigger of the partition on them in the name of whoever makes them."""
    owners, names = maker.database, names_of(spec)
    await owners.execute(
        "DROP TABLE t; CREATE TABLE t (id int, v text, PRIMARY KEY (id, v)) PARTITION BY RANGE (id); CREATE TABLE u"
        " PARTITION OF t FOR VALUES FROM (0) TO (9) PARTITION BY LIST (v); GRANT ALL ON SCHEMA public TO"
        f" {maker.role}; ALTER TABLE u OWNER TO {maker.role}"
    )
    watched = await watch(owners.dsn, spec)
    async with watched.reader, await connect(maker.dsn) as theirs:
        await theirs.execute("CREATE TABLE public.a PARTITION OF public.u FOR VALUES IN ('a')")
        await owners.execute(f"REVOKE EXECUTE ON FUNCTION tablewatcher.{names.function}() FROM {maker.role}")
        await apply(owners.dsn, spec, names)
        await theirs.execute(
            "CREATE TABLE public.b (LIKE public.u INCLUDING ALL);"
            " ALTER TABLE public.u ATTACH PARTITION public.b FOR VALUES IN ('b')"
        )
        await owners.execute("INSERT INTO t VALUES (1, 'a'), (1, 'b')")
        assert [event.key for event in await watched.events()] == ["1,a", "1,b"]


async def test_a_ring_that_another_role_brings_up(maker: Maker, spec: WatcherSpec) -> None:
    """A ring of an earlier version had no sequence for what is left out."""
    names = names_of(spec)
    await apply(maker.dsn, spec, names)
    await maker.database.execute(f"DROP SEQUENCE tablewatcher.{names.skips}")
    assert STEP in [step.what for step in (await apply(maker.database.dsn, spec, names)).plan.steps]
    assert not await plan(maker.dsn, spec, names)
    await everything_captured(maker, spec)


async def test_a_function_that_another_role_writes_again(maker: Maker, spec: WatcherSpec) -> None:
    """It could be written; with it no row of the table could be."""
    names = names_of(spec)
    await apply(maker.database.dsn, spec, names)
    await maker.database.execute(
        f"DROP FUNCTION tablewatcher.{names.function}() CASCADE; GRANT USAGE, CREATE ON SCHEMA tablewatcher TO"
        f" {maker.role}; GRANT SELECT, INSERT, UPDATE, DELETE ON tablewatcher.migration, tablewatcher.watcher,"
        f" tablewatcher.progress, tablewatcher.parked, tablewatcher.request, tablewatcher.gap TO {maker.role};"
        f" GRANT EXECUTE ON FUNCTION tablewatcher.token(text[]), tablewatcher.utf8(text) TO {maker.role};"
        f" GRANT SELECT ON ALL TABLES IN SCHEMA tablewatcher TO {maker.role};"
        f" GRANT USAGE ON SEQUENCE tablewatcher.{names.ids} TO {maker.role}"
    )
    with pytest.raises(DatabaseError) as refused:
        await apply(maker.dsn, spec, names)
    assert refused.value.reason is Reason.PERMISSION_DENIED
    before, _, remedy = refused.value.message.partition("; the ring's owner must run: ")
    assert "writes would fail" in before
    await maker.database.execute("INSERT INTO t VALUES (6000, 'nothing was installed'); DELETE FROM t")
    await maker.database.execute(remedy)
    await maker.database.execute(f"GRANT INSERT ON tablewatcher.{names.rings[0]} TO {maker.role}")
    assert (await apply(maker.dsn, spec, names)).plan
    await everything_captured(maker, spec)
