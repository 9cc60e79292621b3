"""Rows of a statement past the first few, made into chunks by column. Pure.

As in `block_source`, a block is gathered by one query and cut by another. But its rows are not put together one by one:
each column becomes an array, and a chunk's part of it one JSON array, which its elements' output functions are called
for in a row. The reader takes these apart and makes the bodies (decision 0032).

Only where each value's text is short, so that an event made of them is never above its bound, and of types whose arrays
can be made and written without a guard. A block with a row that does not fit is given up before any of it is written,
and the rest of the statement goes the other way.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from ..quoting import identifier, literal
from ..ring.chunks import CHUNK_BYTES, IDS_A_ROW, MOST_COLUMNS, MOST_KEY_COLUMNS, ring_row
from ..shape import Column
from .block_source import cut, element, pieces_of
from .conditions import as_they_were

# Rows: blocks grow, as each is looked for from the beginning of the transition table.
_FIRST = 64
_GROWTH = 8
_LARGEST = 4096
_ROWS_IN_BLOCKS = 80_000
# Of all blocks, about: of wide rows a block has few, and passing those before it would come to take the most of it.
_BYTES_IN_BLOCKS = 16 << 20
# Of the arrays of a block, about.
_BLOCK_BYTES = 1 << 20
# An element of an array is found by passing those before it, so chunks are cut from pieces of so many.
_CHUNKS_A_PIECE = 8
# Bytes of all texts of a row, and of its key: with two labels of enums, 63 each, below what has it replaced by its
# digest.
_LONG = 1800
_LONG_KEY = 896
_LONG_TYPES = frozenset(["text", "varchar"])
_FIXED_TYPES = frozenset(
    ["int2", "int4", "int8", "oid", "bool", "uuid", "float4", "float8", "date", "time", "timestamp", "timestamptz"]
)
# Their text stands between quotation marks in JSON: gathered as text, whatever arrays of them would need.
_AS_TEXT = frozenset(["char", "name", "macaddr", "macaddr8", "timetz", "interval", "money"])
_AS_LONG_TEXT = frozenset(["bpchar", "bytea", "inet", "cidr"])
# Of these a cast to text gives what JSON has between quotation marks, if any.
_KEY_TYPES = _LONG_TYPES | frozenset(["int2", "int4", "int8", "oid", "bool", "uuid"])
# Characters in JSON, at the most: of a number below _HIGHEST and its fraction, of any fixed type, of a byte.
_HIGHEST = "1e30"
_DIGITS = 16_383 + 32
_FIXED = 400
_ESCAPED = 6


def fits_by_column(columns: Sequence[Column], key: Sequence[Column], max_event: int) -> bool:
    """Whether rows of these columns, those of the key among them, may be gathered so. max_event: of its data, bytes."""
    # A column of the key stands there twice.
    longest = 2 * (sum(map(_longest, columns)) + _ESCAPED * _LONG) + len(_form(key, columns).encode())
    types = _LONG_TYPES | _FIXED_TYPES | _AS_TEXT | _AS_LONG_TEXT | {"numeric"}
    return (
        len(columns) <= MOST_COLUMNS
        and 0 < len(key) <= MOST_KEY_COLUMNS
        and all(column.enum or (column.builtin and column.type in types) for column in columns)
        and all(column.enum or column.type in _KEY_TYPES for column in key)
        and longest <= max_event
    )


def guards(columns: Sequence[Column], key: Sequence[Column]) -> list[str]:
    """What must hold of a row of alias `c`, of the types that it had; valid SQL whatever they are."""
    tests = [f"c.{identifier(column.name)} IS NOT NULL" for column in key]
    bounds = [(_lengths(key), _LONG_KEY), (_lengths(columns), _LONG)]
    return tests + [f"{' + '.join(lengths)} <= {bound}" for lengths, bound in bounds if lengths]


def element_of(column: Column, name: str) -> str:
    """What is gathered of value `name` of a row of alias `r` that fits, of a type that does not change with it."""
    value = f"r.{name}"
    as_text = column.enum or column.type in _AS_TEXT | _AS_LONG_TEXT
    made = f"CASE WHEN num_nulls({value}) = 0 THEN concat({value}) END" if as_text else value
    # By this, too, a domain over the type is the type itself.
    return f"CASE WHEN {as_they_were('r', [replace(column, name=name)])} THEN {made} END"


@dataclass(frozen=True, slots=True)
class Columnar:
    """The two queries. columns: of an event, in order, those of `key` among them; routes: texts of alias `r`; as_were:
    whether their types are what they were.

    rows: relation `r` for the rows from tw.done on, tw.size at the most: whether it `fits`, each column by its name in
    `value_names`, and what the routes are made of.
    """

    rows: str
    as_were: str
    columns: Sequence[Column]
    key: Sequence[Column]
    routes: Sequence[str]

    def pieces(self) -> dict[str, object]:
        """Bounds and the first query, by their names in `sql/capture_set.sql`."""
        # Made of the rows that fit only: of the others, one may be too large to have a text.
        arrays = [f"array_agg({value}) FILTER (WHERE r.fits) AS {name}" for name, value in self._arrays.items()]
        fitting = "count(*) AS number, count(*) FILTER (WHERE r.fits) AS fitting"
        sizes = " + ".join(f"pg_column_size(picked.{name})" for name in self._arrays)
        return {
            "gathered": f"SELECT {', '.join([fitting, *arrays])}\n"
            f"            INTO picked\n            FROM {self.rows};\n          written := picked.number",
            # Apart from what follows, which is valid for arrays of the types as they were only.
            "unfit": "picked.fitting < picked.number",
            "unfit_blocks": self._numbers(),
            "average": f"({sizes}) / cardinality(picked.v0) + 1",
            "together": f"greatest(least({CHUNK_BYTES} / average, {IDS_A_ROW - 1}), 1)",
            # Not all that a column may become has arrays, and without them the first query is not even understood.
            "block_first": f"CASE WHEN {self.as_were} THEN {_FIRST} END",
            # Before the first block there is no average, and least leaves it out.
            "block_most": f"least({_ROWS_IN_BLOCKS}, {_BYTES_IN_BLOCKS} / average)",
            "next_size": f"least(size * {_GROWTH}, {_LARGEST}, greatest({_BLOCK_BYTES} / average, {_FIRST}))",
        }

    @property
    def _arrays(self) -> dict[str, str]:
        """What a block is gathered in, by name, and what of a row is an element."""
        arrays = {name: element_of(column, name) for column, name in value_names(self.key, self.columns).items()}
        return {**arrays, "p": element(self.routes)} if self.routes else arrays

    def _numbers(self) -> str:
        """What gives up a block with a number of which a few bytes are a long text (1e131071), or NaN."""
        names = value_names(self.key, self.columns).items()
        arrays = [f"picked.{name}" for column, name in names if column.type == "numeric" and not column.enum]
        within = " AND ".join(f"{_HIGHEST} > ALL ({array}) AND -{_HIGHEST} < ALL ({array})" for array in arrays)
        return f"\n          EXIT WHEN ({within}) IS FALSE;" if arrays else ""

    def chunks(self, ids: object, traceparent: str) -> str:
        """The second: a row of the ring a chunk, of `together` events each."""
        names = value_names(self.key, self.columns).values()
        octets = " + ".join(f"octet_length(x.{name})" for name in names)
        values = {
            "id": f"nextval({ids})",
            "at": "clock_timestamp()",
            "key": f"ARRAY[{', '.join(literal(column.name) for column in self.key)}]::text[]",
            "data": f"{literal(_form(self.key, self.columns))}::text",
            **({"routing": "x.p"} if self.routes else {}),
            "taken_at": "'infinity'::timestamptz",
            "bodies": f"ARRAY[x.events::text, ({octets})::text, {', '.join(f'x.{name}' for name in names)}]",
        }
        joined = {name: f"tw.picked.{name} || '{{}}'" for name in self._arrays}
        made = ["least(tw.together, cardinality(w.v0) - i * tw.together) AS events"]
        made += [f"array_to_json({cut(f'w.{name}')})::text AS {name}" for name in names]
        made += [f"{cut('w.p', self.routes)} AS p"] if self.routes else []
        return (
            f"SELECT {ring_row(values, traceparent)}\n"
            # By one subquery: of another LATERAL the planner would remember what it gave for which arrays.
            f"        FROM (SELECT {', '.join(made)}\n"
            f"          FROM {pieces_of(joined, _CHUNKS_A_PIECE)}\n"
            "          OFFSET 0) AS x"
        )


def value_names(key: Iterable[Column], columns: Iterable[Column]) -> dict[Column, str]:
    """What the columns are called in the queries, in the order in which a chunk has them: those of the key first."""
    return {column: f"v{nth}" for nth, column in enumerate(dict.fromkeys([*key, *columns]))}


def _form(key: Sequence[Column], columns: Sequence[Column]) -> str:
    """A body, as SQL's `format` makes it of the values of a chunk."""
    places = {column: f"%{nth}$s" for nth, column in enumerate(value_names(key, columns), 1)}

    def members(some: Iterable[Column]) -> str:
        named = ((json.dumps(column.name, ensure_ascii=False).replace("%", "%%"), places[column]) for column in some)
        return ",".join(f"{name}:{place}" for name, place in named)

    return f'"key":{{{members(key)}}},"after":{{{members(columns)}}}'


def _lengths(columns: Iterable[Column]) -> list[str]:
    long = [(column.type, f"c.{identifier(column.name)}") for column in columns if not column.enum]
    texts = [f"coalesce(octet_length({value}::text), 0)" for type_, value in long if type_ in _LONG_TYPES]
    return texts + [f"octet_length(concat({value}))" for type_, value in long if type_ in _AS_LONG_TEXT]


def _longest(column: Column) -> int:
    """Characters of a value, but of those whose length is looked at."""
    return _DIGITS if column.type == "numeric" and not column.enum else _FIXED
