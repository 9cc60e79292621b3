"""How a gap is written down. Pure."""

from __future__ import annotations

from ...naming import SCHEMA, WatcherNames
from ..quoting import literal, ours

RING_REPAIRED = "ringRepaired"


def note_gap(names: WatcherNames, reason: str, *, certain: bool, since: str = "NULL") -> str:
    """INSERT of a gap that is to be told once all who ran without capture have ended. since: SQL, of a time."""
    return (
        f"INSERT INTO {SCHEMA}.gap AS g (hash, reason, certain, since)"
        f" VALUES ({literal(names.hash)}, {literal(reason)}, {certain}, {since})"
        " ON CONFLICT (hash, reason) DO UPDATE SET horizon = NULL, since = least(g.since, excluded.since),"
        " until = pg_catalog.clock_timestamp()"
    )


def insert_gap(names: WatcherNames, slot: int, reason: str, source: str = "") -> str:
    """INSERT of a gap event that ends now and began nobody knows when: changes may have been missed for `reason`."""
    members = literal(f'"reason":"{reason}","certain":false,"until":')
    return gap_events(names, slot, f"{members} || pg_catalog.to_json(pg_catalog.clock_timestamp())::text", source)


def insert_repaired(names: WatcherNames) -> str:
    """The same after tables of the ring were made again, into the slot that is written now: no older row outlives it.

    For as long as it is there, nothing is whole that was captured before.
    """
    written = f"(SELECT last_value FROM {ours(names.slot)})"
    return ";\n".join(
        insert_gap(names, slot, RING_REPAIRED, f"WHERE {written} = {slot}") for slot in range(len(names.rings))
    )


def repaired_at() -> str:
    """An aggregate over the rows of a ring: when `insert_repaired` was last run, NULL where nothing tells of it."""
    is_one = f"""CASE op WHEN 'g' THEN data LIKE '"gap":{{"reason":"{RING_REPAIRED}"%' END"""
    return f"max(at) FILTER (WHERE {is_one})"


def gap_events(names: WatcherNames, slot: int, members: str, source: str = "") -> str:
    """INSERT of a gap event for each row of `source`, SQL from FROM on. members: SQL text of its `gap` object."""
    event = f"""pg_catalog.nextval('{ours(names.ids)}'), 'g', ARRAY[NULL::text], '"gap":{{' || {members} || '}}'"""
    return f"INSERT INTO {ours(names.rings[slot])} (id, op, key, data) SELECT {event} {source}".rstrip()
