"""JSON put together in SQL, of text that is known and values that are not. Pure.

By `concat`: one function, where `||` takes one for each piece, which a backend looks up and sets up anew in every
transaction. It puts a value into text by the output function of its type, so JSON comes out as it is.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass
from itertools import groupby

from ..quoting import identifier, literal
from ..shape import Column

# A function takes a hundred arguments, and a table may have 1,600 columns.
_MOST_ARGUMENTS = 100
_INTEGERS = frozenset(["int2", "int4", "int8"])


@dataclass(frozen=True, slots=True)
class Value:
    """An SQL expression of any type. Never NULL: `concat` would leave it out."""

    sql: str


# A string is text that stands in the result as it is.
Piece = str | Value


def text_of(pieces: Iterable[Piece]) -> str:
    """An SQL expression of type text for what the pieces come to."""
    arguments: list[str] = []
    for known, run in groupby(pieces, lambda piece: isinstance(piece, str)):
        if known:
            arguments.append(literal("".join(str(piece) for piece in run)))
        else:
            arguments += [piece.sql for piece in run if isinstance(piece, Value)]
    groups = [arguments[at : at + _MOST_ARGUMENTS] for at in range(0, len(arguments), _MOST_ARGUMENTS)]
    return " || ".join(f"concat({', '.join(group)})" for group in groups)


def object_of_record(record: str, names: Sequence[str], plain: Set[str] = frozenset()) -> list[Piece]:
    """A JSON object of several columns of a row variable. plain: names of those that are not NULL, and `is_plain`."""

    def value(name: str) -> Value:
        value = f"{record}.{identifier(name)}"
        return Value(value if name in plain else f"coalesce(to_json({value}), 'null')")

    return _object((name, value(name)) for name in names)


def object_of_set(columns: Iterable[Column], present: Set[str]) -> list[Piece]:
    """The same of columns of alias `c` of the transition table. present: names of those that cannot be NULL there."""
    return _object((column.name, _value_in_set(column, column.name in present)) for column in columns)


def is_plain(column: Column) -> bool:
    """Whether a value is written in JSON as its type writes it."""
    return column.builtin and column.type in _INTEGERS


def _value_in_set(column: Column, present: bool) -> Value:
    value = f"c.{identifier(column.name)}"
    if is_plain(column):
        # Half the cost of to_json, and the same text; of another type than it was, no body is made.
        return Value(value if present else f"coalesce({value}::text, 'null')")
    if column.enum:
        return Value(f"CASE WHEN num_nulls({value}) = 0 THEN to_json(concat({value})) ELSE 'null' END")
    return Value(f"coalesce(to_json({value}), 'null')")


def _object(members: Iterable[tuple[str, Value]]) -> list[Piece]:
    pieces: list[Piece] = []
    for nth, (name, value) in enumerate(members):
        pieces += [("," if nth else "{") + json.dumps(name, ensure_ascii=False) + ":", value]
    return [*pieces, "}"]
