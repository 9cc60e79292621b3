"""How a gap is written down. Pure."""

from __future__ import annotations

from ..naming import SCHEMA, WatcherNames
from .quoting import literal, ours


def note_gap(names: WatcherNames, reason: str, *, certain: bool, since: str = "NULL") -> str:
    """INSERT of a gap that is to be told once all who ran without capture have ended. since: SQL, of a time."""
    return (
        f"INSERT INTO {SCHEMA}.gap AS g (hash, reason, certain, since)"
        f" VALUES ({literal(names.hash)}, {literal(reason)}, {certain}, {since})"
        " ON CONFLICT (hash, reason) DO UPDATE SET horizon = NULL, since = least(g.since, excluded.since),"
        " until = pg_catalog.clock_timestamp()"
    )


def insert_gap(names: WatcherNames, slot: int, members: str) -> str:
    """INSERT of a gap event that ends now. members: SQL text of the first members of its `gap` object."""
    until = "pg_catalog.to_json(pg_catalog.clock_timestamp())::text"
    return (
        f"INSERT INTO {ours(names.rings[slot])} (id, op, key, data)"
        f" VALUES (pg_catalog.nextval('{ours(names.ids)}'), 'g', ARRAY[NULL::text],"
        f""" '"gap":{{' || {members} || ',"until":' || {until} || '}}')"""
    )
