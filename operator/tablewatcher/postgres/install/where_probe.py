"""Asks the database whether what `where` gives are values of its columns' types, before a trigger compares them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import psycopg

from ...spec.model import Condition, Operator, WatcherSpec
from ..capture.conditions import Filter
from ..connection.session import Connection
from ..quoting import identifier
from ..shape import SESSION_SETTINGS, Column, TableShape


async def refused_conditions(connection: Connection, spec: WatcherSpec, shape: TableShape) -> tuple[str, ...]:
    """What cannot be compared, each with its field; changes nothing, also inside a transaction."""
    columns = {column.name: column for column in shape.columns}
    found = []
    for field, condition in _comparisons(spec):
        column = columns.get(condition.column)
        if column is None:
            continue  # a column that is not there is said elsewhere
        fault = await _fault(connection, condition, column)
        if fault:
            found.append(f"{field}: {fault}")
    return tuple(found)


def _comparisons(spec: WatcherSpec) -> Iterator[tuple[str, Condition]]:
    """One condition for each value given, and the field it stands in."""
    for nth, condition in enumerate(spec.where):
        if condition.operator in (Operator.IS_NULL, Operator.IS_NOT_NULL):
            continue
        for at, value in enumerate(condition.values):
            yield f"spec.where[{nth}].values[{at}]", replace(condition, values=(value,))


async def _fault(connection: Connection, condition: Condition, column: Column) -> str | None:
    if not column.comparable:
        return f"type {column.type_name} of column {column.name!r} is neither a built-in type nor an enum"
    comparison = Filter((condition,), {column.name: column}).of_record("probed")
    given = f"(SELECT NULL::{column.compared_as} AS {identifier(column.name)}) AS probed"
    try:
        async with connection.transaction(force_rollback=True):
            # As in the capture function: no operator of somebody else's schema, and dates read in one way.
            await connection.execute("SET LOCAL search_path = pg_catalog, pg_temp")
            for name, value in SESSION_SETTINGS.items():
                await connection.execute("SELECT set_config(%s, %s, true)", [name, value])
            await connection.execute(f"SELECT {comparison} FROM {given}".encode())
    except psycopg.errors.UndefinedFunction:
        return f"type {column.type_name} of column {column.name!r} has no such comparison"
    except (psycopg.DataError, psycopg.IntegrityError):
        return f"not a value of type {_plain(column.compared_as)}, which column {column.name!r} has"
    return None


def _plain(type_name: str) -> str:
    """A type as people write it: `numeric`, where SQL must have `pg_catalog."numeric"`."""
    built_in = type_name.removeprefix("pg_catalog.")
    return type_name if built_in == type_name else built_in.replace('"', "")
