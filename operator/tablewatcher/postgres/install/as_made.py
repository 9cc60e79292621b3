"""Whether what a transaction of ours has made is still as it was made: event triggers of the application come between.

Some databases have one that gives every new table to a role, or row security. Found out after the commit, the first
would have writers fail for want of rights on the ring, and the second keep its rows from whoever delivers them.
"""

from __future__ import annotations

from ...errors import DatabaseError, Reason
from ...naming import SCHEMA, WatcherNames
from ..connection.session import Connection
from ..sql import QUERIES
from .catalog import Observed
from .traps import SHARED, refuse_traps

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
    relations = {*SHARED, *names.rings, *names.cursors, *names.sequences}
    made = sorted(relations - before.objects.keys() - set(before.shared_tables))
    found = await (await connection.execute(QUERIES["given_away"], {"names": made})).fetchall()
    if found:
        given = ", ".join(row["name"] for row in found)
        raise DatabaseError(
            Reason.MANUAL_ACTION_REQUIRED,
            f"{whose} has given what TableWatcher had just made to another role ({given} of schema {SCHEMA});"
            f" writers, or what that role does for us, would lack rights: {_ADVICE}",
        )
