"""What a role or a database has set for its application changes nothing for our own sessions."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from tablewatcher.errors import DatabaseError, Reason
from tablewatcher.postgres.asking import ask
from tablewatcher.postgres.database import open_session
from tablewatcher.postgres.install.apply import apply
from tablewatcher.postgres.requests import Kind

from ..conftest import Database
from .capturing import names_of, opened, spec_of

SPEC = spec_of()
NAMES = names_of(SPEC)
# Not so short that a busy machine takes as long for what a connection begins with.
LIMITS = ("statement_timeout", "lock_timeout", "transaction_timeout", "idle_session_timeout")
SPAN = "2s"
# Past the limit, and before the connection that wakes is asked again.
IDLE = (
    "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND state_change < clock_timestamp()"
    " - interval '2.1 s' AND application_name LIKE 'tablewatcher listener%' HAVING count(*) = 3"
)


async def limit(database: Database) -> None:
    """Sets every limit that this version has, for whoever connects from now on."""
    for (name,) in await database.execute("SELECT name FROM pg_settings WHERE name = ANY (%s)", list(LIMITS)):
        await database.execute(f"ALTER DATABASE {database.name} SET {name} = '{SPAN}'")


async def test_a_listener_may_take_its_time(any_database: Database) -> None:
    """As much as it takes to divide a ring into pages: here it sleeps. For a lock it waits as long as we say."""
    await limit(any_database)
    session = await open_session(any_database.dsn)
    try:
        for connection, waits in ((session.reader, "1s"), (session.writer, "2s")):
            await connection.execute("SELECT pg_sleep(2.5)")
            assert await (await connection.execute("SHOW lock_timeout")).fetchone() == {"lock_timeout": waits}
    finally:
        await session.close()


async def test_apply_may_take_its_time(any_database: Database) -> None:
    """As much as it takes to carry a full ring to another home: here a step sleeps instead."""
    await any_database.execute(
        "CREATE TABLE t (id int PRIMARY KEY); CREATE FUNCTION f() RETURNS event_trigger LANGUAGE plpgsql AS"
        " 'BEGIN PERFORM pg_sleep(2.5); END'; CREATE EVENT TRIGGER slow ON ddl_command_end"
        " WHEN TAG IN ('CREATE SCHEMA') EXECUTE FUNCTION f()"
    )
    await limit(any_database)
    assert (await apply(any_database.dsn, SPEC, NAMES)).plan


async def test_sessions_that_are_read_only_are_said_with_the_setting(any_database: Database) -> None:
    """Its role alone may be set otherwise: that is enough."""
    await any_database.execute(f"ALTER DATABASE {any_database.name} SET default_transaction_read_only = on")
    with pytest.raises(DatabaseError, match="default_transaction_read_only = off") as refused:
        await open_session(any_database.dsn)
    assert refused.value.reason is Reason.READ_ONLY_REPLICA
    name = f"ro_{any_database.name}"
    async with await any_database.connect() as connection:
        await connection.execute("SET default_transaction_read_only = off")
        await connection.execute(f"CREATE ROLE {name} LOGIN PASSWORD 'secret'".encode())
        await connection.execute(f"ALTER ROLE {name} SET default_transaction_read_only = off".encode())
        try:
            await (await open_session(any_database.dsn_of(name, "secret"))).close()
        finally:
            await connection.execute(f"DROP ROLE {name}".encode())


async def test_a_listener_may_have_nothing_to_do(
    any_database: Database, eventually: Callable[..., Awaitable[Any]]
) -> None:
    await limit(any_database)
    session = await open_session(any_database.dsn)
    try:
        await eventually(lambda: any_database.execute(IDLE), 30)
        assert session.alive
    finally:
        await session.close()


async def test_dates_are_read_in_any_style(any_database: Database) -> None:
    await any_database.execute("CREATE TABLE t (id int PRIMARY KEY)")
    await apply(any_database.dsn, SPEC, NAMES)
    await any_database.execute("INSERT INTO t VALUES (1)")
    since = datetime.now(UTC)
    for style in ("SQL, DMY", "German", "Postgres"):
        await any_database.execute(f"ALTER DATABASE {any_database.name} SET datestyle = '{style}'")
        asked = await ask(any_database.dsn, NAMES, Kind.REPLAY, since=since)
        assert asked.since == since, style


async def test_names_with_quotes_for_all_are_no_difference(any_database: Database) -> None:
    """Where the database quotes every name it tells, what was written is found again as it is wanted."""
    await any_database.execute(f"ALTER DATABASE {any_database.name} SET quote_all_identifiers = on")
    await any_database.execute("CREATE TABLE t (id int PRIMARY KEY)")
    await apply(any_database.dsn, SPEC, NAMES)
    assert not (await apply(any_database.dsn, SPEC, NAMES)).plan


async def test_ids_are_the_same_where_backslashes_begin_something(database: Database) -> None:
    await database.execute("CREATE TABLE t (id int PRIMARY KEY)")
    await apply(database.dsn, SPEC, NAMES)
    await database.execute("INSERT INTO t SELECT generate_series(1, 40)")
    found = []
    for setting in ("on", "off"):
        await database.execute(f"ALTER DATABASE {database.name} SET standard_conforming_strings = {setting}")
        watched = await opened(database.dsn, SPEC)
        async with watched.reader:
            found.append([event.event_id for event in await watched.events()])
    assert len(set(found[0])) == 40
    assert found[0] == found[1]
