"""Event triggers of the application come between what `apply` makes and what is there: it is said, nothing is left."""

from __future__ import annotations

import pytest

from tablewatcher.errors import DatabaseError, Reason
from tablewatcher.postgres.install.apply import apply, destroy

from ..conftest import Database
from .capturing import names_of, opened, plan, spec_of

SPEC = spec_of()
NAMES = names_of(SPEC)
FUNCTION = "CREATE FUNCTION public.f() RETURNS event_trigger LANGUAGE plpgsql AS $$ DECLARE r record; BEGIN {} END $$;"
TRIGGER = "CREATE EVENT TRIGGER e ON {} EXECUTE FUNCTION public.f()"
ON_TABLES = (
    "FOR r IN SELECT * FROM pg_event_trigger_ddl_commands() WHERE command_tag = 'CREATE TABLE' LOOP"
    " EXECUTE 'ALTER TABLE ' || r.object_identity || {}; END LOOP;"
)


def made(body: str, event: str = "ddl_command_end") -> str:
    return FUNCTION.format(body) + TRIGGER.format(event)


ANOTHER = "CREATE FUNCTION public.g() RETURNS void LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'not here'; END $$;"

IN_THE_WAY = {
    "it raises": (
        made("RAISE EXCEPTION 'not after five';"),
        "not after five; that comes from its function public.f(), which event trigger e runs",
    ),
    "it calls what raises": (
        ANOTHER + made("PERFORM public.g();"),
        "not here; that comes from its function public.f()",
    ),
    "it has a path of its own": (
        made("RAISE EXCEPTION 'not so';").replace("LANGUAGE", "SET search_path = public LANGUAGE"),
        "not so; that comes from its function public.f()",
    ),
    "it knows its own search_path alone": (made("INSERT INTO log VALUES (tg_tag);"), "by its schema too"),
    "row security for all": (
        made(ON_TABLES.format("' ENABLE ROW LEVEL SECURITY'")),
        "an event trigger of the database (e) has changed what TableWatcher had just made",
    ),
    "another owner": (
        made(ON_TABLES.format("' OWNER TO pg_monitor'")),
        "(e) has given what TableWatcher had just made",
    ),
}


@pytest.fixture
async def database(any_database: Database) -> Database:
    await any_database.execute("CREATE TABLE t (id int PRIMARY KEY); CREATE TABLE log (what text)")
    return any_database


@pytest.mark.parametrize("name", IN_THE_WAY)
async def test_what_is_in_the_way_is_told_and_nothing_is_left(name: str, database: Database) -> None:
    statement, words = IN_THE_WAY[name]
    await database.execute(statement)
    with pytest.raises(DatabaseError) as refused:
        await apply(database.dsn, SPEC, NAMES)
    assert refused.value.reason is Reason.MANUAL_ACTION_REQUIRED
    assert words in refused.value.message
    assert await database.execute("SELECT FROM pg_namespace WHERE nspname = 'tablewatcher'") == []
    await database.execute("ALTER EVENT TRIGGER e DISABLE")
    assert (await apply(database.dsn, SPEC, NAMES)).plan


async def test_what_looks_on_is_in_nobodys_way(database: Database) -> None:
    await database.execute(made("INSERT INTO public.log VALUES (tg_tag);"))
    await apply(database.dsn, SPEC, NAMES)
    watched = await opened(database.dsn, SPEC)
    async with watched.reader:
        await database.execute("INSERT INTO t VALUES (1)")
        assert [event.key for event in await watched.events()] == ["1"]
    await destroy(database.dsn, SPEC, NAMES)
    assert ("CREATE TRIGGER",) in await database.execute("SELECT what FROM log")


async def test_another_owner_that_may_use_the_schema_is_in_nobodys_way(database: Database) -> None:
    given = ON_TABLES.format("' OWNER TO pg_monitor; GRANT USAGE ON SCHEMA tablewatcher TO pg_monitor'")
    await database.execute(made(f"IF current_query() ~ 'tablewatcher' THEN {given} END IF;"))
    await apply(database.dsn, SPEC, NAMES)
    owner = "SELECT DISTINCT relowner::regrole::text FROM pg_class WHERE relname ~ '^ring_' AND relkind = 'r'"
    assert await database.execute(owner) == [("pg_monitor",)]
    assert not await plan(database.dsn, SPEC, NAMES)
    await database.execute("INSERT INTO t VALUES (1)")
    await destroy(database.dsn, SPEC, NAMES)


async def test_what_keeps_us_from_removing_is_told(database: Database) -> None:
    await apply(database.dsn, SPEC, NAMES)
    await database.execute(made("RAISE EXCEPTION 'nothing is dropped here';", "sql_drop"))
    with pytest.raises(DatabaseError, match=r"nothing is dropped here; that comes from its function public\.f\(\)"):
        await destroy(database.dsn, SPEC, NAMES)
