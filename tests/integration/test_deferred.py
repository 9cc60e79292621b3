"""Changes at COMMIT, under row-level security, past traps: all are told, in order per row, of their transaction."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import psycopg
import pytest

from tablewatcher.postgres.install.apply import apply
from tablewatcher.postgres.quoting import identifier
from tablewatcher.spec.model import Action, Capture, Condition, Granularity, Operator

from ..conftest import Database
from .capturing import Watched, names_of, opened, plan, spec_of, watch

CHANGES = frozenset({Action.INSERT, Action.UPDATE, Action.DELETE})


async def told(watched: Watched) -> list[tuple[str, str, int]]:
    """Of each event its operation, key and transaction."""
    return [(event.op, event.key, json.loads(event.body)["data"]["source"]["txId"]) for event in await watched.events()]


async def transaction_id(writer: psycopg.AsyncConnection[Any]) -> int:
    ((found,),) = await (await writer.execute("SELECT pg_current_xact_id()::text::bigint")).fetchall()
    return int(found)


async def test_a_deferred_cascade_is_told_at_commit(any_database: Database) -> None:
    """The rows that a deferred foreign key deletes and changes, after all that the transaction did itself."""
    await any_database.execute(
        "CREATE TABLE parent (id int PRIMARY KEY); INSERT INTO parent VALUES (1), (2);"
        " CREATE TABLE t (id int PRIMARY KEY, p int REFERENCES parent ON DELETE CASCADE ON UPDATE CASCADE"
        " DEFERRABLE INITIALLY DEFERRED)"
    )
    watched = await watch(any_database.dsn, spec_of(columns=("p",), actions=CHANGES))
    async with watched.reader:
        async with await any_database.connect() as writer, writer.transaction():
            await writer.execute("INSERT INTO t VALUES (10, 1), (11, 2), (12, 3)")
            await writer.execute("DELETE FROM parent WHERE id = 1; UPDATE parent SET id = 20 WHERE id = 2")
            await writer.execute("INSERT INTO parent VALUES (3)")
            ours = await transaction_id(writer)
        found = await told(watched)
    assert [each[:2] for each in found] == [("i", "10"), ("i", "11"), ("i", "12"), ("d", "10"), ("u", "11")]
    assert {each[2] for each in found} == {ours}


@pytest.mark.parametrize("granularity", [Granularity.AUTO, Granularity.ROW])
async def test_a_constraint_trigger_that_writes_at_commit(granularity: Granularity, any_database: Database) -> None:
    """Of a table beside it, deferred: it changes, adds and removes rows when the transaction thinks itself done."""
    await any_database.execute(
        "CREATE TABLE t (id int PRIMARY KEY, n int); CREATE TABLE item (t int);"
        " CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        "   UPDATE t SET n = n + 1 WHERE id = NEW.t; INSERT INTO t VALUES (NEW.t + 100, 0), (NEW.t + 200, 0);"
        "   DELETE FROM t WHERE id = NEW.t + 100; RETURN NULL; END $$;"
        " CREATE CONSTRAINT TRIGGER late AFTER INSERT ON item DEFERRABLE INITIALLY DEFERRED"
        " FOR EACH ROW EXECUTE FUNCTION f()"
    )
    watched = await watch(
        any_database.dsn, spec_of(columns=("n",), actions=CHANGES, capture=Capture(granularity=granularity))
    )
    async with watched.reader:
        async with await any_database.connect() as writer:
            async with writer.transaction():
                await writer.execute("INSERT INTO item VALUES (1), (2); INSERT INTO t VALUES (1, 0), (2, 0)")
                await writer.execute("UPDATE t SET n = 5 WHERE id = 1")
                ours = await transaction_id(writer)
            with pytest.raises(psycopg.errors.UniqueViolation):
                await writer.execute("INSERT INTO item VALUES (101), (1)")
        found = await told(watched)
    assert [each[:2] for each in found] == [
        *[("i", "1"), ("i", "2"), ("u", "1")],
        *[("u", "1"), ("i", "101"), ("i", "201"), ("d", "101")],
        *[("u", "2"), ("i", "102"), ("i", "202"), ("d", "102")],
    ]
    assert {each[2] for each in found} == {ours}


async def test_a_constraint_trigger_of_the_watched_table_itself(any_database: Database) -> None:
    await any_database.execute(
        "CREATE TABLE t (id int PRIMARY KEY, n int); CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        "   IF NEW.n = 0 THEN UPDATE t SET n = 1 WHERE id = NEW.id; END IF; RETURN NULL; END $$;"
        " CREATE CONSTRAINT TRIGGER late AFTER INSERT OR UPDATE ON t DEFERRABLE INITIALLY DEFERRED"
        " FOR EACH ROW EXECUTE FUNCTION f()"
    )
    watched = await watch(any_database.dsn, spec_of(columns=("n",), actions=CHANGES))
    async with watched.reader:
        await any_database.execute("INSERT INTO t VALUES (1, 0), (2, 0)")
        await any_database.execute("BEGIN; SET CONSTRAINTS ALL IMMEDIATE; INSERT INTO t VALUES (3, 0); COMMIT")
        found = [(data["action"], data["key"]["id"], data["after"]["n"]) for data in await watched.data()]
    for key in (1, 2, 3):
        assert [each for each in found if each[1] == key] == [("insert", key, 0), ("update", key, 1)]


async def test_keys_that_change_places_under_a_deferred_key(any_database: Database) -> None:
    """A deferred key identifies nothing while it is not checked: the row as a whole does."""
    await any_database.execute(
        "CREATE TABLE t (id int PRIMARY KEY DEFERRABLE INITIALLY DEFERRED, n text);"
        " INSERT INTO t VALUES (1, 'a'), (2, 'b')"
    )
    watched = await watch(any_database.dsn, spec_of(columns=("n",), actions=CHANGES))
    async with watched.reader:
        await any_database.execute(
            "UPDATE t SET id = 3 - id; INSERT INTO t VALUES (1, 'c'); DELETE FROM t WHERE n = 'c'"
        )
        found = [(data["action"], data["key"]) for data in await watched.data()]
    assert found == [
        ("update", {"id": 2, "n": "a"}),
        ("update", {"id": 1, "n": "b"}),
        ("insert", {"id": 1, "n": "c"}),
        ("delete", {"id": 1, "n": "c"}),
    ]


async def test_a_trigger_that_fires_before_ours_is_named(any_database: Database) -> None:
    """What it does to its own row is told first: said, since only its owner can rename it."""
    await any_database.execute(
        "CREATE TABLE t (id int PRIMARY KEY, n int); CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        "   IF NEW.n = 0 THEN UPDATE t SET n = 1 WHERE id = NEW.id; END IF; RETURN NULL; END $$;"
        " CREATE FUNCTION g() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';"
        ' CREATE TRIGGER "00_before" BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION g();'
        ' CREATE CONSTRAINT TRIGGER "00_deferred" AFTER UPDATE ON t DEFERRABLE INITIALLY DEFERRED'
        ' FOR EACH ROW EXECUTE FUNCTION f(); CREATE TRIGGER "01_after" AFTER UPDATE ON t'
        ' FOR EACH ROW EXECUTE FUNCTION f(); CREATE TRIGGER "00_Audit" AFTER INSERT ON t'
        " FOR EACH ROW EXECUTE FUNCTION f()"
    )
    spec = spec_of(actions=CHANGES)
    (note,) = (await apply(any_database.dsn, spec, names_of(spec))).notes
    assert note.startswith('trigger "00_Audit" fires before ours')
    watched = await opened(any_database.dsn, spec)
    async with watched.reader:
        await any_database.execute("INSERT INTO t VALUES (1, 0)")
        assert [event.op for event in await watched.events()] == ["u", "i"]
        await any_database.execute('ALTER TRIGGER "00_Audit" ON t RENAME TO audit; INSERT INTO t VALUES (2, 0)')
        assert [event.op for event in await watched.events()] == ["i", "u"]
    assert (await apply(any_database.dsn, spec, names_of(spec))).notes == ()


@pytest.fixture
async def roles(any_database: Database) -> AsyncIterator[dict[str, str]]:
    """The DSNs of an owner, a writer and a role that installs: no superusers, none a member of another."""
    made = {role: f"{role}_{any_database.name}" for role in ("owner", "writer", "installer")}
    for name in made.values():
        await any_database.execute(f"CREATE ROLE {name} LOGIN PASSWORD 'x'")
    yield {role: any_database.dsn_of(name, "x") for role, name in made.items()}
    for name in made.values():
        await any_database.execute(f"REASSIGN OWNED BY {name} TO CURRENT_USER; DROP OWNED BY {name}; DROP ROLE {name}")


@pytest.mark.parametrize("security", ["ENABLE", "FORCE"])
@pytest.mark.parametrize("granularity", [Granularity.AUTO, Granularity.ROW])
async def test_row_level_security_hides_nothing_from_capture(
    security: str, granularity: Granularity, any_database: Database, roles: dict[str, str]
) -> None:
    """No right of the writer's is asked for but its own on the table, and none of the installer's to see a row."""
    owner, writer, installer = (identifier(f"{role}_{any_database.name}") for role in roles)
    await any_database.execute(
        f"GRANT CREATE ON SCHEMA public TO {owner}; GRANT CREATE ON DATABASE {any_database.name} TO {installer};"
        f" SET ROLE {owner}; CREATE TABLE t (id int PRIMARY KEY, tenant text, n int);"
        f" GRANT SELECT, INSERT, UPDATE, DELETE ON t TO {writer}; GRANT TRIGGER ON t TO {installer};"
        f" ALTER TABLE t ENABLE ROW LEVEL SECURITY; ALTER TABLE t {security} ROW LEVEL SECURITY;"
        " CREATE POLICY own ON t USING (tenant = current_setting('app.tenant', true));"
    )
    spec = spec_of(
        columns=("n",),
        actions=CHANGES,
        include_before=True,
        where=(Condition("n", Operator.GREATER_THAN, ("0",)),),
        capture=Capture(granularity=granularity),
    )
    await apply(roles["installer"], spec, names_of(spec))
    assert not await plan(roles["installer"], spec, names_of(spec))
    watched = await opened(roles["installer"], spec)
    async with watched.reader:
        assert await (await watched.reader.execute("SELECT has_table_privilege('public.t', 'SELECT')")).fetchone() == {
            "has_table_privilege": False
        }
        async with await psycopg.AsyncConnection.connect(roles["writer"], autocommit=True) as session:
            await session.execute("SET app.tenant = 'a'; SET row_security = on")
            await session.execute("INSERT INTO t SELECT g, 'a', g FROM generate_series(1, 50) AS g")
            # A policy's own refusal stays what it is, and leaves nothing behind.
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                await session.execute("INSERT INTO t VALUES (100, 'b', 1)")
            await session.execute("SET app.tenant = 'b'; UPDATE t SET n = 99; DELETE FROM t")
            await session.execute("SET app.tenant = 'a'; UPDATE t SET n = 99 WHERE id = 1; DELETE FROM t WHERE id = 2")
        async with await psycopg.AsyncConnection.connect(roles["owner"], autocommit=True) as session:
            await session.execute("DELETE FROM t WHERE id = 3")
        found = [(event.op, event.key) for event in await watched.events()]
    by_owner = [("d", "3")] if security == "ENABLE" else []
    assert found == [*(("i", str(key)) for key in range(1, 51)), ("u", "1"), ("d", "2"), *by_owner]


HIJACK = """
CREATE SCHEMA trap; GRANT USAGE ON SCHEMA trap TO PUBLIC;
CREATE FUNCTION trap.sprung() RETURNS void LANGUAGE plpgsql AS $$ BEGIN RAISE 'sprung as %', current_user; END $$;
CREATE FUNCTION trap.to_json(int) RETURNS json LANGUAGE plpgsql AS $$ BEGIN PERFORM trap.sprung(); END $$;
CREATE FUNCTION trap.to_json(text) RETURNS json LANGUAGE plpgsql AS $$ BEGIN PERFORM trap.sprung(); END $$;
CREATE FUNCTION trap.concat(text) RETURNS text LANGUAGE plpgsql AS $$ BEGIN PERFORM trap.sprung(); END $$;
CREATE FUNCTION trap.octet_length(text) RETURNS int LANGUAGE plpgsql AS $$ BEGIN PERFORM trap.sprung(); END $$;
CREATE FUNCTION trap.nextval(regclass) RETURNS bigint LANGUAGE plpgsql AS $$ BEGIN PERFORM trap.sprung(); END $$;
CREATE FUNCTION trap.pg_sequence_last_value(regclass) RETURNS bigint LANGUAGE plpgsql AS
  $$ BEGIN PERFORM trap.sprung(); END $$;
CREATE FUNCTION trap.pg_notify(text, text) RETURNS void LANGUAGE plpgsql AS $$ BEGIN PERFORM trap.sprung(); END $$;
CREATE FUNCTION trap.joined(text, text) RETURNS text LANGUAGE plpgsql AS $$ BEGIN PERFORM trap.sprung(); END $$;
CREATE FUNCTION trap.compared(int, int) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN PERFORM trap.sprung(); END $$;
CREATE OPERATOR trap.|| (FUNCTION = trap.joined, LEFTARG = text, RIGHTARG = text);
CREATE OPERATOR trap.> (FUNCTION = trap.compared, LEFTARG = int, RIGHTARG = int);
CREATE OPERATOR trap.= (FUNCTION = trap.compared, LEFTARG = int, RIGHTARG = int);
"""
# Each of them found first, if anything of ours were looked up as the writer would.
TEMPORARY = (
    "CREATE TEMPORARY TABLE tablewatcher_new (id int, n int); CREATE TEMPORARY TABLE gone (id int);"
    " CREATE TEMPORARY TABLE c (id int, n int); CREATE TEMPORARY TABLE r (id bigint, body text);"
    " CREATE TEMPORARY TABLE pg_class (oid oid); CREATE TEMPORARY TABLE pg_attribute (attname text);"
    " CREATE DOMAIN pg_temp.text AS pg_catalog.text CHECK (trap.sprung() IS NULL);"
    " CREATE DOMAIN pg_temp.json AS pg_catalog.json CHECK (trap.sprung() IS NULL);"
    " CREATE DOMAIN pg_temp.record AS pg_catalog.int4 CHECK (trap.sprung() IS NULL)"
)


@pytest.mark.parametrize("granularity", [Granularity.AUTO, Granularity.ROW])
async def test_nothing_of_the_writers_is_run_by_our_function(granularity: Granularity, any_database: Database) -> None:
    await any_database.execute(f"CREATE TABLE t (id int PRIMARY KEY, n int); {HIJACK}")
    spec = spec_of(
        columns=("n",),
        actions=CHANGES,
        include_before=True,
        where=(Condition("n", Operator.GREATER_THAN, ("0",)),),
        capture=Capture(granularity=granularity),
    )
    watched = await watch(any_database.dsn, spec)
    async with watched.reader, await any_database.connect() as writer:
        await writer.execute(TEMPORARY)
        await writer.execute("SET search_path = pg_temp, trap, public, pg_catalog")
        # The trap works: it is what the session itself finds.
        with pytest.raises(psycopg.errors.RaiseException, match="sprung"):
            await writer.execute("SELECT to_json(1)")
        await writer.execute("INSERT INTO public.t VALUES (1, 1)")
        await writer.execute("INSERT INTO public.t SELECT g, g FROM generate_series(2, 100) AS g")
        await writer.execute("UPDATE public.t SET n = 200; DELETE FROM public.t")
        events = await watched.events()
    keys = [str(key) for key in range(1, 101)]
    assert [event.op for event in events] == ["i"] * 100 + ["u"] * 100 + ["d"] * 100
    assert [event.key for event in events] == keys * 3
    assert not any(b'"truncated"' in event.body for event in events)
