"""Whoever owns schema `tablewatcher`, or a table of it, does not get code run by those who look or apply."""

from __future__ import annotations

import pytest

from tablewatcher.errors import DatabaseError, Reason
from tablewatcher.postgres.install.apply import apply, destroy
from tablewatcher.postgres.install.survey import survey

from ..conftest import Database
from .capturing import names_of, spec_of

SPEC = spec_of(columns=("*",))
NAMES = names_of(SPEC)
CALLED = "CREATE SEQUENCE called; CREATE FUNCTION called() RETURNS {} LANGUAGE plpgsql AS $$ BEGIN"
COUNTS = CALLED + " PERFORM pg_catalog.nextval('public.called'); RETURN {}; END $$;"
FIRES = COUNTS.format("trigger", "NEW")
HOLDS = COUNTS.format("boolean", "true")
VIEW = "ALTER TABLE tablewatcher.{0} RENAME TO was; CREATE VIEW tablewatcher.{0} AS SELECT * FROM tablewatcher.was"
ON = "CREATE TRIGGER x BEFORE INSERT OR UPDATE OR DELETE ON tablewatcher.{} FOR EACH ROW EXECUTE FUNCTION called()"
TRAPS = {
    "view of the migrations": HOLDS + VIEW.format("migration") + " WHERE public.called()",
    "view of the watchers": HOLDS + VIEW.format("watcher") + " WHERE public.called()",
    "trigger on the watchers": FIRES + ON.format("watcher"),
    "trigger on the ring": FIRES + ON.format(NAMES.rings[0]),
    "trigger on the cursor": FIRES + ON.format(NAMES.cursors[0]),
    "rule": HOLDS + "CREATE RULE x AS ON DELETE TO tablewatcher.watcher DO ALSO SELECT public.called()",
    "policy": HOLDS + "CREATE POLICY x ON tablewatcher.watcher USING (public.called());"
    " ALTER TABLE tablewatcher.watcher ENABLE ROW LEVEL SECURITY",
    "check": HOLDS + "ALTER TABLE tablewatcher.progress ADD CHECK (public.called()) NOT VALID",
    "domain": HOLDS + "CREATE DOMAIN odd AS text; ALTER TABLE tablewatcher.watcher ALTER table_name TYPE odd;"
    " ALTER DOMAIN odd ADD CHECK (public.called()) NOT VALID",
    "type with a cast": HOLDS + "CREATE TYPE odd AS (a int); CREATE FUNCTION said(odd) RETURNS json LANGUAGE sql AS"
    " 'SELECT pg_catalog.to_json(public.called())'; CREATE CAST (odd AS json) WITH FUNCTION said(odd);"
    " ALTER TABLE tablewatcher.watcher ADD more odd DEFAULT row(1)::odd",
    "index": HOLDS + "CREATE FUNCTION held(text) RETURNS boolean IMMUTABLE LANGUAGE sql AS 'SELECT public.called()';"
    " CREATE INDEX x ON tablewatcher.gap (hash) WHERE public.held(hash)",
    "child": FIRES
    + "CREATE TABLE child () INHERITS (tablewatcher.gap);"
    + ON.format("gap").replace("tablewatcher.gap", "child"),
    "default": HOLDS + "ALTER TABLE tablewatcher.gap ALTER COLUMN told SET DEFAULT public.called()",
}


@pytest.mark.parametrize("name", TRAPS)
async def test_nothing_of_somebody_elses_is_run(name: str, any_database: Database) -> None:
    await any_database.execute("CREATE TABLE t (id int PRIMARY KEY)")
    await apply(any_database.dsn, SPEC, NAMES)
    await any_database.execute(TRAPS[name])
    changed = spec_of(columns=("id",))
    for action in (survey, apply, destroy):
        with pytest.raises(DatabaseError, match="is not as TableWatcher makes it") as refused:
            await action(any_database.dsn, changed, NAMES)
        assert refused.value.reason is Reason.OWNED_ELSEWHERE
    assert await any_database.execute("SELECT pg_catalog.pg_sequence_last_value('public.called')") == [(None,)]
