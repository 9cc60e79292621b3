"""Names and texts inside generated SQL. Pure."""

from __future__ import annotations

from psycopg import sql

from ..naming import SCHEMA


def literal(text: str) -> str:
    """`text` as an SQL literal that means the same whatever standard_conforming_strings says."""
    return sql.Literal(text).as_string(None).strip()


def identifier(name: str) -> str:
    """`name` quoted, case and spaces kept."""
    return sql.Identifier(name).as_string(None)


def skipped(sequence: str) -> str:
    """SQL for how many changes were skipped, by the name of the sequence, which old rings do not have."""
    return f"coalesce(pg_catalog.pg_sequence_last_value(pg_catalog.to_regclass('{ours(sequence)}')), 0)"


def ours(name: str) -> str:
    """One of our objects, qualified; the name is made from a hash and needs no quotes."""
    return f"{SCHEMA}.{name}"


def utf8(text: str, *, encoding: str | None) -> str:
    """SQL for a text as bytes of UTF-8, which never raises. encoding: of the database, as it tells each client."""
    return f"pg_catalog.convert_to({text}, 'UTF8')" if encoding == "UTF8" else f"{SCHEMA}.utf8({text})"
