"""A table as capture sees it: its columns, its key, and what their text depends on. Pure."""

from __future__ import annotations

from dataclasses import dataclass

# Where a captured type's text depends on the session, these make it the same from every session. Setting one costs
# each call about a microsecond, so a function carries only what its types need.
SESSION_SETTINGS = {
    "TimeZone": "UTC",
    "DateStyle": "ISO, MDY",
    "IntervalStyle": "postgres",
    "bytea_output": "hex",
    "extra_float_digits": "1",
    "lc_monetary": "C",
}
_SETTLED_TYPES = frozenset(
    [
        *("int2", "int4", "int8", "oid", "numeric", "bool", "text", "varchar", "bpchar", "char", "name", "uuid"),
        *("json", "jsonb", "date", "timestamp", "time", "timetz", "inet", "cidr", "macaddr", "macaddr8"),
        *("bit", "varbit", "xml"),
    ]
)
_HARMLESS_TYPES = (_SETTLED_TYPES - {"jsonb", "bit", "varbit", "xml"}) | frozenset(
    ["timestamptz", "interval", "bytea", "float4", "float8", "money"]
)
_DATED_TYPES = frozenset(["date", "timestamp", "timestamptz"])
_TYPE_SETTING = {
    "timestamptz": "TimeZone",
    "interval": "IntervalStyle",
    "bytea": "bytea_output",
    "float4": "extra_float_digits",
    "float8": "extra_float_digits",
    "money": "lc_monetary",
}


@dataclass(frozen=True, slots=True)
class Column:
    """A column as the catalog has it: `type` is pg_type.typname, `builtin` that it is one of pg_catalog's own or an
    enum, `length` pg_attribute.attlen (-1: of varying length), `virtual` a generated column that is not stored.
    `type_name`: the type as SQL names it, qualified and quoted, without a length; `compared_as`: the same, of a domain
    the type below it, whose values nobody's checks are run for. `cast`: an enum that the application casts to other
    types in its own way."""

    name: str
    type: str
    length: int
    builtin: bool = True
    enum: bool = False
    virtual: bool = False
    type_name: str = "pg_catalog.text"
    compared_as: str = "pg_catalog.text"
    comparable: bool = True
    type_oid: int = 25
    cast: bool = False

    @property
    def long(self) -> bool:
        """Whether a value may be of any length."""
        return self.length < 0 and self.type != "numeric"

    @property
    def harmless(self) -> bool:
        """Whether putting a value into text can neither fail nor make very much of little; else it needs a guard.

        Not jsonb: `[1e131071]` takes ten bytes and reads as 131,072. Not what others define: their casts may do
        anything.
        """
        return (self.enum and not self.cast) or (self.builtin and self.type in _HARMLESS_TYPES)

    @property
    def is_jsonb(self) -> bool:
        """Whether it is jsonb: harmless where it is short and not compressed."""
        return self.builtin and self.type == "jsonb"

    @property
    def session_settings(self) -> frozenset[str]:
        """The settings that the text of this column's values depends on; arrays and composites: all of them."""
        if self.enum or (self.builtin and self.type in _SETTLED_TYPES):
            return frozenset()
        if self.builtin and self.type in _TYPE_SETTING:
            return frozenset((_TYPE_SETTING[self.type],))
        return frozenset(SESSION_SETTINGS)

    @property
    def key_settings(self) -> frozenset[str]:
        """The same for its text as part of a key, which is a cast: to_json writes dates one way, a cast does not."""
        dated = self.builtin and self.type in _DATED_TYPES
        return self.session_settings | (frozenset(("DateStyle",)) if dated else frozenset())


@dataclass(frozen=True, slots=True)
class TableShape:
    """A table's columns in order and its key; an empty key means: no immediate primary key.

    partitions: oid and name, qualified and quoted, of all below it. rows_only: what of the table itself makes
    statement triggers inexact. tells_compression: whether the server does (14 and later). remarks: what of it events do
    not tell, or in another order, as the catalog words it. spills_limited: somebody writes here with a
    `temp_file_limit`.
    """

    oid: int
    columns: tuple[Column, ...]
    primary_key: tuple[str, ...]
    partitions: tuple[tuple[int, str], ...] = ()
    rows_only: tuple[str, ...] = ()
    tells_compression: bool = True
    remarks: tuple[str, ...] = ()
    spills_limited: bool = False

    @property
    def key(self) -> tuple[str, ...]:
        """The columns that identify a row: the primary key, else the whole row."""
        return self.primary_key or tuple(column.name for column in self.columns if not column.virtual)

    def in_set(self, column: Column) -> bool:
        """Whether a value of `column` can be put into text without a guard, given a bound on what is stored."""
        return column.harmless or (column.is_jsonb and self.tells_compression)
