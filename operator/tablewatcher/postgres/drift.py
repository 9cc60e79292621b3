"""Whether capture still stands, as its own listener sees it: one look at the catalog.

`apply` and the operator repair; a listener without an operator can only say that changes pass unseen.
"""

from __future__ import annotations

import asyncio
from typing import Any

from ..naming import SCHEMA, WatcherNames
from ..spec.model import Management, WatcherSpec
from .connection.session import Connection, translating
from .quoting import literal
from .sql import QUERIES
from .trigger_type import BITS, STATEMENT_INSERT


def remedy(spec: WatcherSpec) -> str:
    """What a person does to have this watcher installed, or repaired."""
    is_observed = spec.management is Management.OBSERVE
    return "have a DBA run what `tablewatcher sql` prints" if is_observed else "run `tablewatcher apply`"


class Drift:
    """Looks after trigger and function of one watcher, on a connection shared with others."""

    def __init__(self, connection: Connection, lock: asyncio.Lock, names: WatcherNames, spec: WatcherSpec) -> None:
        self._connection = connection
        self._lock = lock
        self._trigger = names.trigger
        self._wanted = sum(BITS[action] for action in spec.actions)
        self._table = f"{spec.table.schema}.{spec.table.name}"
        self._remedy = f"{remedy(spec)}, which puts it right and sends a gap event"
        self._query = _LOOK.format(
            insert=STATEMENT_INSERT,
            is_off=QUERIES["trigger_is_off"],
            was_touched=QUERIES["trigger_was_touched"],
            schema=SCHEMA,
            hash=literal(names.hash),
            function=literal(names.function),
            trigger=literal(names.trigger),
            table_schema=literal(spec.table.schema),
            table=literal(spec.table.name),
            rings=", ".join(map(literal, names.rings)),
            used=", ".join(map(literal, (names.ids, names.skips))),
            read=", ".join(map(literal, (names.slot, names.wake))),
            stop=literal(names.stop),
        ).encode()

    @translating
    async def look(self) -> str:
        """What is wrong, with the remedy; "" where changes are captured."""
        async with self._lock:
            row = await (await self._connection.execute(self._query)).fetchone()
        if row is not None and row["denied"] is not None:
            denied = f"role {row['denied']}, as which the capture function runs, has lost rights in schema {SCHEMA}"
            harm = f"writes to {self._table} fail, or may: {denied}"
            return f"{harm}; `tablewatcher apply` gives them back, or says the GRANT"
        fault = self._fault(row)
        return f"{fault}; {self._remedy}" if fault else ""

    def _fault(self, row: dict[str, Any] | None) -> str:
        if row is not None and row["exchanged"]:
            return f"{self._table} is another table than the one that was applied, and changes pass unseen"
        if row is None or row["fires"] & self._wanted != self._wanted:
            return f"trigger {self._trigger} is missing or turned off, so changes are not captured"
        if row["touched"]:
            return f"trigger {self._trigger} was turned off for a while, and changes may have passed unseen"
        if row["passed_by"]:
            return "the table is a partition by now, and inserts through its parent are not captured"
        if row["partly_off"]:
            return f"trigger {self._trigger} is turned off on a partition: changes there are not captured"
        if not row["sound"]:
            return f"the function of trigger {self._trigger} was replaced by another"
        return ""


# By name, not by function: a watcher may have several of both.
_LOOK = """
SELECT coalesce(pg_catalog.bit_or(t.tgtype) FILTER (WHERE NOT ({is_off})), 0)::integer AS fires,
       EXISTS (SELECT FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
               WHERE n.nspname = {table_schema} AND c.relname = {table} AND c.oid <> w.table_oid) AS exchanged,
       EXISTS (SELECT FROM pg_catalog.pg_trigger t WHERE t.tgfoid = min(p.oid) AND {is_off}) AS partly_off,
       EXISTS (SELECT FROM pg_catalog.pg_trigger t WHERE t.tgfoid = min(p.oid) AND {was_touched}) AS touched,
       EXISTS (SELECT FROM pg_catalog.pg_trigger i JOIN pg_catalog.pg_class c ON c.oid = i.tgrelid
               WHERE i.tgfoid = min(p.oid) AND i.tgtype = {insert} AND c.relispartition) AS passed_by,
       (SELECT pg_catalog.pg_get_userbyid(f.proowner)::text FROM pg_catalog.pg_proc f WHERE f.oid = min(p.oid) AND (
          NOT pg_catalog.has_schema_privilege(f.proowner, f.pronamespace, 'USAGE')
          OR EXISTS (SELECT FROM pg_catalog.pg_class c WHERE c.relnamespace = f.pronamespace AND c.relname IN ({rings})
                       AND NOT pg_catalog.has_table_privilege(f.proowner, c.oid, 'INSERT'))
          OR EXISTS (SELECT FROM pg_catalog.pg_class c WHERE c.relnamespace = f.pronamespace AND CASE
               WHEN c.relkind <> 'S' THEN false
               WHEN c.relname IN ({used}) THEN NOT pg_catalog.has_sequence_privilege(f.proowner, c.oid, 'USAGE, UPDATE')
               WHEN c.relname IN ({read}) THEN NOT pg_catalog.has_sequence_privilege(f.proowner, c.oid, 'SELECT, USAGE')
               WHEN c.relname = {stop} THEN NOT (pg_catalog.has_sequence_privilege(f.proowner, c.oid, 'SELECT, USAGE')
                 AND pg_catalog.has_sequence_privilege(f.proowner, c.oid, 'UPDATE'))
               ELSE false END))) AS denied,
       w.source_digest IS NULL OR w.source_digest = coalesce(pg_catalog.encode(
         pg_catalog.sha256(pg_catalog.convert_to(min(p.prosrc), 'UTF8')), 'hex'), '') AS sound
FROM {schema}.watcher AS w
LEFT JOIN pg_catalog.pg_proc AS p ON p.proname = {function} AND p.pronamespace = '{schema}'::regnamespace
LEFT JOIN pg_catalog.pg_trigger AS t ON t.tgrelid = w.table_oid AND pg_catalog.starts_with(t.tgname::text, {trigger})
WHERE w.hash = {hash} GROUP BY w.hash, w.table_oid, w.source_digest
"""
