"""Pieces of SQL that a capture function is put together from: keys and comparisons. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence

from ..naming import SCHEMA
from .quoting import identifier, literal
from .shape import Column
from .sql import CAPTURE_ROUTES
from .statement_source import value_as_text


def sequence(name: str) -> str:
    """One of our sequences, as functions on sequences take it."""
    return f"'{SCHEMA}.{name}'::regclass"


def names_array(names: Sequence[str]) -> str:
    """Names as an array of text."""
    return f"ARRAY[{', '.join(literal(name) for name in names)}]::text[]"


def parts(record: str, columns: Iterable[Column]) -> str:
    """The texts of several columns of `record`, as the elements of an array."""
    return ", ".join(value_as_text(column, f"{record}.{identifier(column.name)}") for column in columns)


def routes_again(columns: Sequence[Column]) -> dict[str, str]:
    """What makes the routes where the fast form has failed, by its names in `sql/capture_row.sql`.

    As the fast form writes them, where that goes, or a row would change its subject with the form.
    """
    if not columns:
        return {"fast_routing": "", "slow_routing": ""}
    by_name = ", ".join(f"coalesce(n, o) ->> {literal(column.name)}" for column in columns)
    return {
        "fast_routing": CAPTURE_ROUTES.format(new=parts("NEW", columns), old=parts("OLD", columns)),
        "slow_routing": f"\n        routes := coalesce(routes, ARRAY[{by_name}]::text[]);",
    }


def same(names: Iterable[str]) -> str:
    """Whether several columns are as they were: by record image, exact also for json, xml and point."""
    return " AND ".join(f"row(OLD.{identifier(name)})::record *= row(NEW.{identifier(name)})::record" for name in names)


def changed(names: Iterable[str]) -> str:
    """The elements of a JSON array: those names whose columns are not as they were."""
    cases = ", ".join(
        f"CASE WHEN NOT ({same([name])}) THEN {literal(json.dumps(name, ensure_ascii=False))} END" for name in names
    )
    # Not concat_ws: a function takes a hundred arguments, a table has up to 1,600 columns.
    return f"array_to_string(ARRAY[{cases}]::text[], ',')"
