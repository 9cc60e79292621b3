"""Pieces of SQL that a capture function is put together from: keys and comparisons. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence

from ...naming import SCHEMA
from ..quoting import identifier, literal
from ..routing import sign
from ..shape import Column
from ..sql import CAPTURE_ROUTES
from .statement_source import cut_route, value_as_text

# Not numeric, floats and intervals: 1.0 is 1.00, and 24:00 is a day.
_EXACT = frozenset(["int2", "int4", "int8", "oid", "bool", "uuid", "bytea", "date", "time", "timestamp", "timestamptz"])
_EXACT_AS_C = frozenset(["text", "varchar"])


def sequence(name: str) -> str:
    """One of our sequences, as functions on sequences take it."""
    return f"'{SCHEMA}.{name}'::regclass"


def names_array(names: Sequence[str]) -> str:
    """Names as an array of text."""
    return f"ARRAY[{', '.join(literal(name) for name in names)}]::text[]"


def parts(record: str, columns: Iterable[Column]) -> str:
    """The texts of several columns of `record`, as the elements of an array."""
    return ", ".join(_texts(record, columns))


def routes(record: str, columns: Sequence[Column]) -> str:
    """The same as words of the subject, and the sign of which columns they are of."""
    return ", ".join([*map(cut_route, _texts(record, columns)), _sign(columns)])


def _sign(columns: Iterable[Column]) -> str:
    return literal(sign([column.name for column in columns]))


def _texts(record: str, columns: Iterable[Column]) -> Iterable[str]:
    return (value_as_text(column, f"{record}.{identifier(column.name)}") for column in columns)


def routes_again(columns: Sequence[Column]) -> dict[str, str]:
    """What makes the routes where the fast form has failed, by its names in `sql/capture_row.sql`.

    As the fast form writes them, where that goes, or a row would change its subject with the form.
    """
    if not columns:
        return {"fast_routing": "", "slow_routing": ""}
    by_name = [*(cut_route(f"coalesce(n, o) ->> {literal(column.name)}") for column in columns), _sign(columns)]
    return {
        "fast_routing": CAPTURE_ROUTES.format(new=routes("NEW", columns), old=routes("OLD", columns)),
        "slow_routing": f"\n        routes := coalesce(routes, ARRAY[{', '.join(by_name)}]::text[]);",
    }


def compared_by_value(column: Column) -> bool:
    """Whether the type's `=`, of text under the collation "C", tells values apart as exactly as their images do."""
    return column.builtin and column.type in _EXACT | _EXACT_AS_C


def same(columns: Iterable[Column]) -> str:
    """Whether several columns are as they were, exact also for json, xml and point; of the types that they had.

    By value where it can be, which takes 4,400 instructions less a column (decision 0023).
    """
    return " AND ".join(map(_same, columns))


def same_images(names: Iterable[str]) -> str:
    """The same whatever their types are by then."""
    return " AND ".join(f"row(OLD.{identifier(name)})::record *= row(NEW.{identifier(name)})::record" for name in names)


def _same(column: Column) -> str:
    if not compared_by_value(column):
        return same_images([column.name])
    name = identifier(column.name)
    collation = ' COLLATE "C"' if column.type in _EXACT_AS_C else ""
    return f"OLD.{name}{collation} IS NOT DISTINCT FROM NEW.{name}{collation}"


def changed(columns: Iterable[Column]) -> str:
    """The elements of a JSON array: the names of those columns that are not as they were."""
    cases = ", ".join(
        f"CASE WHEN NOT ({same([column])}) THEN {literal(json.dumps(column.name, ensure_ascii=False))} END"
        for column in columns
    )
    # Not concat_ws: a function takes a hundred arguments, a table has up to 1,600 columns.
    return f"array_to_string(ARRAY[{cases}]::text[], ',')"
