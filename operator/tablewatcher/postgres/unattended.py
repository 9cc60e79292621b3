"""Watchers that capture although nobody means them any more, and those that may be meant in place of ours. Reads only.

Of the former nothing is forwarded, and their rings fill.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from ..naming import SCHEMA, WatcherNames, watcher_names
from ..spec.model import Table
from .connection.session import Connection, connected
from .quoting import ours
from .ring.cursor_sql import SECONDS_LEFT, newest


@dataclass(frozen=True, slots=True)
class Others:
    """unattended: watchers of the same instance that capture from the table, and that no listener holds the lease of.
    namesakes: instances, but ours, that have a watcher of the same namespace and name here."""

    unattended: tuple[WatcherNames, ...] = ()
    namesakes: tuple[str, ...] = ()


async def others(conninfo: str, table: Table, names: WatcherNames, known: Collection[str]) -> Others:
    """known: identities of those that are not meant. Raises DatabaseError."""
    async with connected(conninfo) as connection:
        if not (await connection.one(_READABLE))["readable"]:
            return Others()
        rows = await (await connection.execute(_WATCHERS, [table.schema, table.name])).fetchall()
        found = [row["identity"].rsplit("/", 2) for row in rows if row["of_table"]]
        instance = names.identity.rsplit("/", 2)[0]
        # Its names from its identity, never from its row: what stands there would be SQL.
        of_table = [watcher_names(*parts) for parts in found if len(parts) == 3 and parts[0] == instance]
        meant = [other for other in of_table if other.identity not in (names.identity, *known)]
        alone = [other for other in meant if await _captures_for_nobody(connection, other)]
        return Others(tuple(alone), names.namesakes(row["identity"] for row in rows))


async def _captures_for_nobody(connection: Connection, names: WatcherNames) -> bool:
    """As far as our role may see it."""
    readable = " AND ".join(
        f"coalesce(pg_catalog.has_table_privilege(pg_catalog.to_regclass('{ours(name)}'), 'SELECT'), false)"
        for name in names.cursors
    )
    captures = f"pg_catalog.to_regprocedure('{ours(names.function)}()') IS NOT NULL"
    if not (await connection.one(f"SELECT {captures} AND {readable} AS told"))["told"]:
        return False
    lease = await connection.one(newest(names, f"{SECONDS_LEFT} AS seconds"))
    return lease["seconds"] is None or lease["seconds"] <= 0


_READABLE = (
    f"SELECT coalesce(pg_catalog.has_table_privilege(pg_catalog.to_regclass('{SCHEMA}.watcher'), 'SELECT'), false)"
    " AS readable"
)
_WATCHERS = (
    "SELECT w.identity, coalesce(n.nspname = %s AND c.relname = %s, false) AS of_table"
    f" FROM {SCHEMA}.watcher AS w LEFT JOIN pg_catalog.pg_class AS c ON c.oid = w.table_oid"
    " LEFT JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace ORDER BY 1"
)
