"""Watchers that capture although nobody means them any more, and those that may be meant in place of ours. Reads only.

Of the former nothing is forwarded, and their rings fill.
"""

from __future__ import annotations

from collections.abc import Collection

from ..naming import SCHEMA, WatcherNames, watcher_names
from ..spec.model import Table
from .connection.session import Connection, connected
from .quoting import ours
from .ring.cursor_sql import SECONDS_LEFT, newest


async def unattended(conninfo: str, table: Table, names: WatcherNames, known: Collection[str]) -> list[WatcherNames]:
    """Other watchers of the same instance that capture from `table`, and that no listener holds the lease of.

    known: identities of those that are not meant. Raises DatabaseError.
    """
    async with connected(conninfo) as connection:
        if not (await connection.one(_READABLE))["readable"]:
            return []
        cursor = await connection.execute(_OF_TABLE, [table.schema, table.name])
        found = [row["identity"].rsplit("/", 2) for row in await cursor.fetchall()]
        instance = names.identity.rsplit("/", 2)[0]
        # Its names from its identity, never from its row: what stands there would be SQL.
        others = [watcher_names(*parts) for parts in found if len(parts) == 3 and parts[0] == instance]
        meant = [other for other in others if other.identity not in (names.identity, *known)]
        return [other for other in meant if await _captures_for_nobody(connection, other)]


async def namesakes(conninfo: str, names: WatcherNames) -> list[str]:
    """Instances, but ours, that have a watcher of the same namespace and name here. Raises DatabaseError."""
    async with connected(conninfo) as connection:
        if not (await connection.one(_READABLE))["readable"]:
            return []
        cursor = await connection.execute(_ALL)
        found = [row["identity"].rsplit("/", 2) for row in await cursor.fetchall()]
        ours, *name = names.identity.rsplit("/", 2)
        return [instance for instance, *of in found if of == name and instance != ours]


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
_ALL = f"SELECT identity FROM {SCHEMA}.watcher ORDER BY 1".encode()
_OF_TABLE = (
    f"SELECT w.identity FROM {SCHEMA}.watcher AS w JOIN pg_catalog.pg_class AS c ON c.oid = w.table_oid"
    " JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace WHERE n.nspname = %s AND c.relname = %s ORDER BY 1"
)
