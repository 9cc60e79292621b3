"""How events lie in a ring: one a row, or those of a statement many a row. Pure.

A row of many, a chunk, costs its writer one tuple, one index entry and one id where it would be forty. Its `bodies` are
the data of its events in order, `key` and `routing` hold theirs one after the other, and its ids are its own and those
after it: the sequence leaves so much room after each id drawn. `taken_at` is when it was captured; `at` is infinite
instead, so that a listener of an earlier version, for which a chunk is one event without data, fails on it and sends
nothing (infinity has no microseconds to name an event by).
"""

from __future__ import annotations

from collections.abc import Mapping

# How far apart the ids are that a ring's sequence gives: the most events a chunk may have.
IDS_A_ROW = 64
# Of the events of one chunk, at the most: a row of more than 2 kB would be compressed, on every look at it anew.
CHUNK_BYTES = 1900

STORED_COLUMNS = "id, xid, at, op, key, old_key, data, context, traceparent, routing, taken_at, bodies"
RAW_COLUMNS = "id, xid, micros, time, op, key, old_key, data, context, traceparent, routing"
TAKEN_AT = "coalesce(taken_at, at)"
EVENTS = "coalesce(pg_catalog.cardinality(bodies), 1)"
LAST_ID = f"(id + {EVENTS} - 1)"
# Of large rows that are stored compressed, what they are in memory.
SIZE = f"CASE WHEN bodies IS NULL THEN pg_catalog.octet_length(data) ELSE {CHUNK_BYTES} END"

_MOMENT = (
    f"(pg_catalog.date_part('epoch', {TAKEN_AT}) * 1000000)::bigint AS micros,"
    f" pg_catalog.replace(({TAKEN_AT} AT TIME ZONE 'UTC')::text, ' ', 'T') || 'Z' AS time"
)
_SINGLE = """
SELECT id, xid, {moment}, op, key, old_key, data, context, traceparent, routing FROM {stored} AS s WHERE bodies IS NULL
"""
# OFFSET 0: the moment is made into text once a chunk.
_CHUNKED = """
SELECT c.id + b.nth - 1, xid, micros, time, op, {key}, old_key, b.body, context, traceparent, {routing}
FROM (SELECT *, pg_catalog.cardinality(bodies) AS together, {moment}
      FROM {stored} AS s WHERE bodies IS NOT NULL OFFSET 0) AS c
CROSS JOIN LATERAL pg_catalog.unnest(c.bodies) WITH ORDINALITY AS b (body, nth)
"""


def ring_row(values: Mapping[str, str], traceparent: str) -> str:
    """A SELECT list that gives a whole row of a ring for an insert: what `values` do not say is as it mostly is.

    All columns, in order and of their types: the planner then puts nothing between the query and the table.
    """
    mostly = {
        "xid": "pg_current_xact_id()",
        "op": "'i'::\"char\"",
        "old_key": "NULL::text[]",
        "context": "tw.context",
        "traceparent": traceparent,
        "routing": "NULL::text[]",
        "taken_at": "NULL::timestamptz",
        "bodies": "NULL::text[]",
    }
    row = {**mostly, **values}
    return ", ".join(row[column] for column in STORED_COLUMNS.split(", "))


def events_in(stored: str) -> str:
    """A query of RAW_COLUMNS, a row an event, over a relation of STORED_COLUMNS, which it reads twice."""
    chunked = _CHUNKED.format(moment=_MOMENT, stored=stored, key=_part("key"), routing=_part("routing"))
    return f"{_SINGLE.format(moment=_MOMENT, stored=stored)} UNION ALL {chunked}"


def _part(column: str) -> str:
    """What of the array `column` of chunk `c` is the event's: as much as each has."""
    each = f"pg_catalog.cardinality(c.{column}) / c.together"
    return f"c.{column}[((b.nth - 1) * ({each}))::integer + 1:(b.nth * ({each}))::integer]"
