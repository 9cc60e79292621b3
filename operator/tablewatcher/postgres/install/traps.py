"""Whether what has our names in the database is what we make, and runs nobody else's code when it is read or written.

Whoever owns schema `tablewatcher`, or a table of it, can put a view in its place, or a trigger on it, before the first
apply too: that would run with the rights of whoever looks.
"""

from __future__ import annotations

from ...errors import DatabaseError, Reason
from ...naming import SCHEMA, WatcherNames
from ..connection.session import Connection
from ..shared import SHARED_TABLES
from ..sql import QUERIES


async def refuse_traps(connection: Connection, names: WatcherNames) -> None:
    """To be called before anything there is read. Raises DatabaseError(OwnedElsewhere)."""
    ours = {"tables": [*SHARED_TABLES, *names.rings, *names.cursors], "sequences": list(names.sequences)}
    found = [row["name"] for row in await (await connection.execute(QUERIES["traps"], ours)).fetchall()]
    if found:
        raise DatabaseError(
            Reason.OWNED_ELSEWHERE,
            f"{', '.join(found)} of schema {SCHEMA} is not as TableWatcher makes it (no plain table, or with triggers,"
            " rules, row security, checks, defaults, types, indexes or child tables of somebody's), and could run their"
            f" code with our rights: take that away, or drop schema {SCHEMA}, if nobody of yours has made it",
        )
