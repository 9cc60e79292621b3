"""Whoever may create in `public` can make operators that fit our operands better than PostgreSQL's own: none is called.

Each of them would run with the rights of the role that applies or delivers.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tablewatcher.event import Event
from tablewatcher.postgres.database import open_session
from tablewatcher.postgres.install.apply import apply, destroy
from tablewatcher.postgres.install.script import Section, script
from tablewatcher.postgres.install.survey import survey
from tablewatcher.postgres.ring.cursor_log import CursorLog, Lease
from tablewatcher.postgres.ring.outbox import Outbox
from tablewatcher.spec.model import Management

from ..conftest import Database
from ..pgbouncer import PgBouncer
from .capturing import names_of, spec_of

SPEC = spec_of(columns=("*",))
NAMES = names_of(SPEC)
# Of the operators of PostgreSQL none takes these two types.
PAIRS = (
    *(("=", "oid", kind, "boolean", "true") for kind in ("int2", "int4", "int8", "regnamespace")),
    *(("||", kind, "text", "text", "'x'::text") for kind in ("int2", "int4", "int8", "xid8")),
    *(("||", "text", kind, "text", "'x'::text") for kind in ("int2", "int4", "int8", "xid8")),
)
TRAP = """
CREATE FUNCTION public.trap_{nth}(a {left}, b {right}) RETURNS {result} LANGUAGE plpgsql
  AS $$ BEGIN PERFORM pg_catalog.nextval('public.called'); RETURN {value}; END $$;
CREATE OPERATOR public.{name} (LEFTARG = {left}, RIGHTARG = {right}, FUNCTION = public.trap_{nth});
"""
CALLED = "SELECT pg_catalog.pg_sequence_last_value('public.called')"


@pytest.fixture
async def trapped(database: Database) -> Database:
    """A database with table `t` and a trap for each of PAIRS."""
    traps = [
        TRAP.format(nth=nth, name=name, left=left, right=right, result=result, value=value)
        for nth, (name, left, right, result, value) in enumerate(PAIRS)
    ]
    await database.execute(
        "CREATE TABLE t (id int PRIMARY KEY, v text); CREATE SEQUENCE public.called;" + "".join(traps)
    )
    return database


async def live(dsn: str) -> list[Event]:
    """Applies, delivers the rows there are, and removes."""
    await apply(dsn, SPEC, NAMES)
    assert not (await apply(dsn, SPEC, NAMES)).plan
    session = await open_session(dsn)
    try:
        await session.writer.execute("INSERT INTO public.t SELECT g, 'x' FROM generate_series(1, 100) AS g")
        cursor = CursorLog(session.writer, session.writer_lock, NAMES, holder="somebody", sink_timeout=1)
        lease = await cursor.acquire(lambda _: False)
        assert isinstance(lease, Lease)
        outbox = Outbox(session.reader, session.reader_lock, SPEC, NAMES, database=session.database)
        page = await outbox.next_page(lease.position, 1000)
        assert page is not None
        assert await cursor.commit(lease.epoch, page.position(None), release=True)
    finally:
        await session.close()
    await destroy(dsn, SPEC, NAMES)
    return list(page.events)


@pytest.mark.parametrize("pooled", [False, True])
async def test_none_is_called(pooled: bool, trapped: Database, server_directory: Path) -> None:
    if pooled:
        with PgBouncer(server_directory / "pooler", trapped.server, "transaction") as pooler:
            events = await live(pooler.dsn(trapped.name, trapped.server.password))
    else:
        events = await live(trapped.dsn)
    assert len(events) == 100
    assert await trapped.execute(CALLED) == [(None,)]


async def test_none_is_called_by_the_script_for_a_dba(trapped: Database) -> None:
    observed = spec_of(columns=("*",), management=Management.OBSERVE)
    found = await survey(trapped.dsn, observed, NAMES)
    assert found.plan
    await trapped.execute(script([Section("shop/w", trapped.name, found.plan)]))
    assert not (await survey(trapped.dsn, observed, NAMES)).plan
    assert await trapped.execute(CALLED) == [(None,)]
