"""How events lie in a ring: one a row, or those of a statement many a row. Pure.

A row of many, a chunk, costs its writer one tuple, one index entry and one id where it would be forty. Its ids are its
own and those after it: the sequence leaves so much room after each id drawn. Events lie in it in one of two ways:

*One by one*: `bodies` are the data of its events in order, `key` and `routing` hold theirs one after the other.
`taken_at` is when it was captured, `at` infinite.

*By column*: `bodies` are how many events there are, the length of their values in bytes, and for each column, those of
the key first, a JSON array of its values. `key` are the names of the key's columns, and `data` is what makes a body of
values. `at` is when it was captured, `taken_at` infinite.

A listener of the version before that takes the infinite one, fails on it and sends nothing (infinity has no
microseconds to name an event by). So the next form has a mark of its own, which is refused by name: it is as the
second, as far as what counts events looks at it (`at`, `taken_at`, the first two of `bodies`), but its `data` does not
begin with a quotation mark, as every template does.
"""

from __future__ import annotations

from collections.abc import Mapping

# How far apart the ids are that a ring's sequence gives: the most events a chunk may have.
IDS_A_ROW = 64
# Of the events of one chunk, at the most: a row of more than 2 kB would be compressed, on every look at it anew.
CHUNK_BYTES = 1900
# Of events that lie by column: every look takes the time of so many. They may become more, never fewer.
MOST_COLUMNS = 8
MOST_KEY_COLUMNS = 3

STORED_COLUMNS = "id, xid, at, op, key, old_key, data, context, traceparent, routing, taken_at, bodies"
RAW_COLUMNS = "id, xid, micros, time, op, key, old_key, data, context, traceparent, routing"
# NULL is left out.
TAKEN_AT = "least(taken_at, at)"
IS_BY_COLUMN = "taken_at = 'infinity'"
# Written by a later version, in a form that this one does not know.
IS_OF_LATER_FORM = f"({IS_BY_COLUMN} AND pg_catalog.left(data, 1) <> '\"')"
EVENTS = f"CASE WHEN {IS_BY_COLUMN} THEN bodies[1]::integer ELSE coalesce(pg_catalog.cardinality(bodies), 1) END"
LAST_ID = f"(id + {EVENTS} - 1)"
# Of large rows that are stored compressed, what they are in memory.
SIZE = (
    f"CASE WHEN bodies IS NULL THEN pg_catalog.octet_length(data) WHEN {IS_BY_COLUMN} THEN bodies[2]::integer"
    f" ELSE {CHUNK_BYTES} END"
)
# In `bodies`, of the first column.
FIRST_COLUMN = 3

_MOMENT = (
    f"(pg_catalog.date_part('epoch', {TAKEN_AT}) * 1000000)::bigint AS micros,"
    f" pg_catalog.replace(({TAKEN_AT} AT TIME ZONE 'UTC')::text, ' ', 'T') || 'Z' AS time"
)
_SINGLE = """
SELECT id, xid, {moment}, op, key, old_key, data, context, traceparent, routing FROM {stored} AS s
"""
# OFFSET 0: the moment is made into text once a chunk.
_CHUNKED = """
SELECT c.id + b.nth - 1, xid, micros, time, op, {key}, old_key, b.body, context, traceparent, {routing}
FROM (SELECT *, pg_catalog.cardinality(bodies) AS together, {moment}
      FROM {stored} AS s WHERE bodies IS NOT NULL AND NOT {by_column} OFFSET 0) AS c
CROSS JOIN LATERAL pg_catalog.unnest(c.bodies) WITH ORDINALITY AS b (body, nth)
"""
_BY_COLUMN = """
SELECT c.id + b.nth - 1, xid, micros, time, op, {key}, old_key, pg_catalog.format(c.data, {values}), context,
       traceparent, {routing}
FROM (SELECT *, bodies[1]::integer AS together, {moment} FROM {stored} AS s
      WHERE {by_column} AND NOT {later} OFFSET 0) AS c
CROSS JOIN LATERAL ROWS FROM ({arrays}) WITH ORDINALITY AS b ({values}, nth)
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


def rows_in(stored: str) -> str:
    """A query of RAW_COLUMNS, a row a row, over a relation of STORED_COLUMNS without chunks."""
    return _SINGLE.format(moment=_MOMENT, stored=stored)


def events_in(stored: str) -> str:
    """A query of RAW_COLUMNS, a row an event, over a relation of STORED_COLUMNS, which it reads three times."""
    places = range(1, MOST_COLUMNS + 1)
    common = {"moment": _MOMENT, "stored": stored, "routing": _part("routing"), "by_column": IS_BY_COLUMN}
    common["later"] = IS_OF_LATER_FORM
    by_column = _BY_COLUMN.format(
        **common,
        key=_key(),
        values=", ".join(f"v{nth}" for nth in places),
        arrays=", ".join(f"pg_catalog.json_array_elements(c.bodies[{FIRST_COLUMN - 1 + nth}]::json)" for nth in places),
    )
    # Something of a later form, too: who reads is told of it beside an event.
    single = f"{rows_in(stored)} WHERE bodies IS NULL OR {IS_OF_LATER_FORM}"
    return " UNION ALL ".join([single, _CHUNKED.format(**common, key=_part("key")), by_column])


def _part(column: str) -> str:
    """What of the array `column` of chunk `c` is the event's: as much as each has."""
    each = f"pg_catalog.cardinality(c.{column}) / c.together"
    return f"c.{column}[((b.nth - 1) * ({each}))::integer + 1:(b.nth * ({each}))::integer]"


def _key() -> str:
    """The texts of an event's key, as a cast gives them: of a string what is between its quotation marks."""
    texts = [
        f"CASE WHEN pg_catalog.left(v{nth}::text, 1) = '\"' THEN v{nth} #>> ARRAY[]::text[] ELSE v{nth}::text END"
        for nth in range(1, MOST_KEY_COLUMNS + 1)
    ]
    several = f"(ARRAY[{', '.join(texts)}])[1:pg_catalog.cardinality(c.key)]"
    return f"CASE WHEN pg_catalog.cardinality(c.key) = 1 THEN ARRAY[{texts[0]}] ELSE {several} END"
