"""What a domain asks of its values is a function of whoever made it: neither `plan` nor capture runs it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from psycopg import AsyncConnection

from tablewatcher.errors import DatabaseError, Reason
from tablewatcher.postgres.install.apply import apply
from tablewatcher.spec.model import Condition, Operator

from ..conftest import Database
from .capturing import names_of, plan, spec_of, watch

CALLED = "SELECT pg_catalog.pg_sequence_last_value('public.called')"


@pytest.fixture
async def spied(any_database: Database) -> AsyncIterator[Database]:
    """A database whose domains count in sequence `called` the checks that are made as anybody but role `writer`."""
    role = f"writer_{any_database.name}"
    await any_database.execute(
        f"CREATE ROLE {role} LOGIN PASSWORD 'p'; CREATE SEQUENCE called;"
        "CREATE FUNCTION spy(value int) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN"
        f" IF current_user <> '{role}' THEN PERFORM nextval('public.called'); END IF; RETURN true; END $$;"
        "CREATE DOMAIN small AS int CHECK (public.spy(VALUE));"
        "CREATE TYPE pair AS (one small);"
        "CREATE TABLE t (id int PRIMARY KEY, other int, v small, several small[], pairs pair[]);"
        f"GRANT SELECT, INSERT, UPDATE, DELETE ON t TO {role}"
    )
    yield any_database
    await any_database.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")


async def test_a_condition_compares_with_what_is_below_the_domain(spied: Database) -> None:
    conditions = Condition("v", Operator.IN, ("3",)), Condition("v", Operator.LESS_THAN, ("4",))
    spec = spec_of(columns=("other",), where=conditions)
    assert await plan(spied.dsn, spec, names_of(spec))
    watched = await watch(spied.dsn, spec)
    for _ in range(2):
        async with await AsyncConnection.connect(spied.dsn_of(f"writer_{spied.name}", "p")) as writer:
            await writer.execute("INSERT INTO t (id, v) VALUES (1, 3), (2, 5); UPDATE t SET v = 8 - v; DELETE FROM t")
        # The second time columns are looked up by name.
        await spied.execute("ALTER TABLE t DROP COLUMN IF EXISTS other")
    found = [(data["action"], data.get("filter")) for data in await watched.data()]
    await watched.reader.close()
    assert found == 2 * [("insert", None), ("update", "left"), ("update", "entered"), ("delete", None)]
    assert await spied.execute(CALLED) == [(None,)]


@pytest.mark.parametrize("column", ["several", "pairs"])
async def test_arrays_of_such_are_not_compared(column: str, spied: Database) -> None:
    spec = spec_of(where=(Condition(column, Operator.IN, ("{}",)),))
    for action in (plan, apply):
        with pytest.raises(DatabaseError, match="neither a built-in type nor an enum") as refused:
            await action(spied.dsn, spec, names_of(spec))
        assert refused.value.reason is Reason.SPEC_INVALID
    assert await spied.execute(CALLED) == [(None,)]
