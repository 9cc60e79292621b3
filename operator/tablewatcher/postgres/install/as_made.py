"""Event triggers of the application come between what we run and what is there afterwards.

Some databases have one that gives every new table to a role, or row security. Found out after the commit, the first
would have writers fail for want of rights on the ring, and the second keep its rows from whoever delivers them. Others
raise an error.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import AsyncIterator, Iterable

import psycopg

from ...errors import DatabaseError, Reason, in_short
from ...naming import SCHEMA, WatcherNames
from ..connection.session import Connection
from ..connection.sql_fault import MISSING
from ..shared import SHARED_TABLES
from ..sql import QUERIES
from .catalog import Observed
from .traps import refuse_traps

_ADVICE = f"nothing was installed; have it pass over schema {SCHEMA}, or disable it, and apply again"


async def refuse_changed(connection: Connection, names: WatcherNames, before: Observed) -> None:
    """To be called before the transaction takes a lock on the table. before: what was there when it began.

    Raises DatabaseError. Where the database has no event trigger, it asks for nothing else.
    """
    triggers = [row["name"] for row in await (await connection.execute(QUERIES["event_triggers"])).fetchall()]
    if not triggers:
        return
    whose = f"an event trigger of the database ({', '.join(triggers)})"
    try:
        await refuse_traps(connection, names)
    except DatabaseError as error:
        told = f"{whose} has changed what TableWatcher had just made: {error.message}; {_ADVICE}"
        raise DatabaseError(Reason.MANUAL_ACTION_REQUIRED, told) from error
    relations = {*SHARED_TABLES, *names.rings, *names.cursors, *names.sequences}
    made = sorted(relations - before.objects.keys() - set(before.shared_tables))
    found = await (await connection.execute(QUERIES["given_away"], {"names": made})).fetchall()
    if found:
        given = ", ".join(row["name"] for row in found)
        raise DatabaseError(
            Reason.MANUAL_ACTION_REQUIRED,
            f"{whose} has given what TableWatcher had just made to another role ({given} of schema {SCHEMA});"
            f" writers, or what that role does for us, would lack rights: {_ADVICE}",
        )


@contextlib.asynccontextmanager
async def blaming(connection: Connection) -> AsyncIterator[None]:
    """What psycopg raises inside becomes a DatabaseError with what to do, where an event trigger has raised it."""
    try:
        yield
    except psycopg.Error as error:
        if (told := await _of_an_event_trigger(connection, error)) is not None:
            raise told from error
        raise


async def _of_an_event_trigger(connection: Connection, error: psycopg.Error) -> DatabaseError | None:
    said = error.diag.context
    if not said:
        return None
    try:
        found = await (await connection.execute(QUERIES["event_trigger_functions"])).fetchall()
    except psycopg.Error:
        return None  # the connection is gone, or somebody is in a transaction that is to be undone yet
    called = called_in(said, {row["called"] for row in found})
    row = next((row for row in found if row["called"] == called), None)
    if row is None:
        return None
    names = ""
    if isinstance(error, MISSING):
        names = " (what it names must be there by its schema too: ours is a search_path of pg_catalog alone)"
    return DatabaseError(
        Reason.MANUAL_ACTION_REQUIRED,
        f"the database answered {error.sqlstate}: {in_short(error.diag.message_primary)}; that comes from its function"
        f" {in_short(row['function'])}, which event trigger {in_short(row['name'])} runs: have it pass over schema"
        f" {SCHEMA}{names}, or disable it meanwhile (ALTER EVENT TRIGGER {in_short(row['name'])} DISABLE)",
    )


def called_in(context: str, functions: Iterable[str]) -> str | None:
    """Which of `functions` an error's context names, if any; each as it is called, without its schema: `f()`.

    The words around it are in whatever language the server speaks, and in some there is no space between.
    """
    return next((each for each in functions if re.search(rf"(?<![A-Za-z0-9_$]){re.escape(each)}", context)), None)
