"""The set-based form of an insert trigger for statements: one INSERT ... SELECT from the transition table. Pure.

It stands in no exception block, which would write inside a subtransaction (decision 0007), so nothing in it may raise:

*Parsing.* A column that the application dropped or renamed must not be missed. The columns are read by bare name in a
subquery whose outer query offers a NULL of an odd type under each of those names: what the table has no more is
found there. Only what is written for any type is asked of a column: to_json, a cast to text, pg_typeof.

*Values.* A row is formatted only where every column has the type it had when the function was written, and that
type's text can neither fail nor outgrow memory. All other rows are left out, noted in a setting, and formatted one by
one afterwards as a row trigger does it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .conditions import Filter, as_they_were
from .quoting import identifier
from .shape import Column

TRANSITION_TABLE = "tablewatcher_new"
# What may be long, taken together, as stored: a byte stored is at most 255 once decompressed, and six of those in JSON.
_MAX_STORED = 200_000
# A number of a jsonb takes 12 bytes at the least and reads as 147,456 digits at the most: of these, a hundred million.
_MAX_STORED_JSONB = 8_000
ROW = "tablewatcher_row"
# With its star it is the row, also when the application calls a column so later.
_WHOLE = f'("{ROW}".*)::pg_catalog.record'
ALL_ROWS = f'SELECT {_WHOLE} AS whole FROM {TRANSITION_TABLE} AS "{ROW}"'
_INTEGERS = frozenset(["int2", "int4", "int8"])
_NOTE = "set_config('tablewatcher.one_by_one', 'on', true) IS NULL"


@dataclass(frozen=True, slots=True)
class Selection:
    """The pieces of the SELECT. `columns`: all that is sent; `body`: an expression over alias `c`; `compared`: the
    columns that `where` names.

    key, routes: names of columns whose texts become arrays. key_bound: bytes a key may have, None: it is short anyhow.
    """

    columns: tuple[Column, ...]
    key: tuple[str, ...]
    routes: tuple[str, ...]
    body: str
    key_bound: int | None
    max_event: int
    where: Filter
    compared: tuple[Column, ...]

    def fast(self, ids: str, stop: str, size: str, max_ring: int, traceparent: str) -> str:
        """The rows of the ring, but for those that are left to `rest`, until the ring is full."""
        values = ["r.id", "pg_current_xact_id()", "clock_timestamp()", "'i'", self._texts("k", self.key), "NULL"]
        values += ["r.body", "tw.context", traceparent, *([self._texts("p", self.routes)] if self.routes else [])]
        full = f"setval({stop}, extract(epoch FROM clock_timestamp())::bigint)"
        return (
            f"SELECT {', '.join(values)}\n        FROM {self._rows(f'nextval({ids}) AS id')}\n"
            f"        WHERE CASE WHEN pg_sequence_last_value({stop}) > 0 THEN false"
            f" WHEN ({self._fits()}) IS NOT TRUE THEN {_NOTE}"
            f" WHEN r.id % 1024 = 0 AND {size} > {max_ring} THEN {full} IS NOT NULL ELSE true END"
        )

    def rest(self) -> str:
        """The rows that `fast` left out, whole."""
        whole = f'c."{ROW}" AS whole'
        return f"SELECT r.whole FROM {self._rows(whole)} WHERE ({self._fits()}) IS NOT TRUE"

    def _fits(self) -> str:
        fits = f"octet_length(r.body) <= {self.max_event}"
        if self.key_bound is None:
            return fits
        # Where the body was not made, the key is not looked at either.
        length = f"octet_length(array_to_string({self._texts('k', self.key)}, ''))"
        return f"CASE WHEN {fits} THEN {length} <= {self.key_bound} END"

    def _texts(self, prefix: str, names: Sequence[str]) -> str:
        columns = {column.name: column for column in self.columns}
        texts = [value_as_text(columns[name], f"r.{prefix}{nth}") for nth, name in enumerate(names)]
        return f"ARRAY[{', '.join(texts)}]"

    def _rows(self, first: str) -> str:
        known = {identifier(column.name): column for column in (*self.columns, *self.compared)}
        gone = ", ".join(f"NULL::pg_catalog.{_odd(column)} AS {name}" for name, column in known.items())
        # Before an id is drawn: ids of rows that are not sent would count as waiting.
        holds = f" WHERE {self.where.of_set('c')}" if self.where else ""
        through = [
            f"c.{identifier(name)} AS {prefix}{nth}"
            for prefix, listed in (("k", self.key), ("p", self.routes))
            for nth, name in enumerate(listed)
        ]
        # OFFSET 0: the body is made once, not wherever it is looked at.
        return (
            f"(SELECT {first}, {', '.join(through)}, CASE WHEN {self._safe()} THEN {self.body} END AS body\n"
            f"          FROM (SELECT {gone}) AS gone,\n"
            f'            LATERAL (SELECT {", ".join(known)}, {_WHOLE} AS "{ROW}"'
            f' FROM {TRANSITION_TABLE} AS "{ROW}") AS c{holds} OFFSET 0) AS r'
        )

    def _safe(self) -> str:
        tests = [as_they_were("c", dict.fromkeys((*self.columns, *self.compared)))]
        jsonb = [f"c.{identifier(column.name)}" for column in self.columns if column.is_jsonb]
        tests += [f"pg_column_compression({value}) IS NULL" for value in jsonb]
        long = [f"c.{identifier(column.name)}" for column in self.columns if column.long and not column.is_jsonb]
        bounds = [(long, _MAX_STORED), (jsonb, _MAX_STORED_JSONB)]
        tests += [f"{_stored(values)} <= {bound}" for values, bound in bounds if values]
        return " AND ".join(tests)


def value_as_text(column: Column, value: str) -> str:
    """An expression's value as part of a key. An enum's by its output function: a cast may be the application's."""
    return f"CASE WHEN num_nulls({value}) = 0 THEN concat({value}) END" if column.enum else f"{value}::text"


def value_as_json(column: Column) -> str:
    """One value of alias `c` as JSON."""
    value = f"c.{identifier(column.name)}"
    if column.enum:
        return f"CASE WHEN num_nulls({value}) = 0 THEN to_json(concat({value}))::text ELSE 'null' END"
    if column.builtin and column.type in _INTEGERS:
        # Half the cost of to_json, and the same text; of another type than it was, no body is made.
        return f"coalesce({value}::text, 'null')"
    return f"coalesce(to_json({value})::text, 'null')"


def _stored(values: Sequence[str]) -> str:
    return " + ".join(f"coalesce(pg_column_size({value}), 0)" for value in values)


def _odd(column: Column) -> str:
    return "pg_lsn" if column.type == "tid" else "tid"
