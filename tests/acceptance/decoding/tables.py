"""Tables of every kind that is watched in its own way, with columns of odd types, and rows for them."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from tablewatcher.postgres.quoting import identifier, literal

from .pgoutput import Row

TYPES = "CREATE TYPE mood AS ENUM ('', 'so'); CREATE TYPE pair AS (a int, b text); CREATE DOMAIN brief AS text;"
# Texts of values, by type. Few, and some that are equal without being the same, so that updates often change nothing.
_VALUES: Mapping[str, tuple[str, ...]] = {
    "int4": ("0", "-5"),
    "int8": ("9223372036854775807", "1"),
    "numeric": ("1.0", "1.00", "NaN", "1e30", "-0.5"),
    "float8": ("0", "-0", "Infinity", "1e-300", "0.1"),
    "text": ("", "a", "'\"\\\n\t", "☃\u2028😀", "x" * 900),
    "varchar(20)": ("v", "v "),
    "char(5)": ("a", "abcde"),
    "bool": ("t", "f"),
    "uuid": ("a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a12"),
    "bytea": ("\\x", "\\x00ff"),
    "json": ('{"a": 1,  "a":2}', "null", "[1.50]"),
    "jsonb": ('{"a": [null]}', "null", "1.0", "1.00"),
    "timestamptz": ("2026-06-01 12:34:56.789+02", "infinity", "0044-03-15 12:00:00+00 BC"),
    "timestamp": ("2026-01-01 00:00:00", "-infinity"),
    "date": ("2026-01-01", "infinity"),
    "interval": ("1 day", "24:00:00", "-00:00:01.5"),
    "int4[]": ("{}", "{1,NULL}", "[0:1]={5,6}"),
    "text[]": ('{"a b",NULL,"NULL"}', "{}"),
    "mood": ("", "so"),
    "pair": ("(1,a)", "(,)"),
    "brief": ("b", ""),
    "int4range": ("empty", "[1,5)"),
    "inet": ("10.0.0.1/8", "::1"),
    "money": ("$1.10", "-$3.00"),
    "point": ("(1,2)", "(0,-0)"),
}
_NAMES = ("c{}", "C {}", 'q"{}', "ü{}")


@dataclass(frozen=True, slots=True)
class Sample:
    """One table. key: names and types of its primary key, none for a table without one; few: how a value of each is
    drawn, from few. parts: its partitions that hold rows. truncated: whether somebody truncates it."""

    name: str
    key: Mapping[str, str]
    few: Mapping[str, Callable[[random.Random], str]]
    columns: Mapping[str, str]
    ddl: str
    parts: tuple[str, ...] = ()
    truncated: bool = False

    @property
    def types(self) -> dict[str, str]:
        return {**dict.fromkeys(self.few, "int8"), **self.columns, **self.key}

    def names_of_key(self, chance: random.Random) -> dict[str, str]:
        """Which row: texts by column."""
        return {name: draw(chance) for name, draw in self.few.items() if name != "parent"}

    def value(self, column: str, chance: random.Random) -> str | None:
        return None if chance.random() < 0.15 else chance.choice(_VALUES[self.columns[column]])

    def row(self, chance: random.Random) -> Row:
        row: Row = {name: draw(chance) for name, draw in self.few.items()}
        return row | {column: self.value(column, chance) for column in self.columns}

    def sql(self, column: str, text: str | None) -> str:
        """A value as SQL has it."""
        return f"{'NULL' if text is None else literal(text)}::{self.types[column]}"


def tables(chance: random.Random) -> list[Sample]:
    """Another set of columns for each, by chance."""
    number = {"id": lambda chance: str(chance.randint(1, 30))}
    made = []
    for name, key, few, form, more in (
        ("plain", {"id": "int8"}, number, "CREATE TABLE plain ({}, id int8 PRIMARY KEY)", {}),
        (
            "Odd Name",
            {"K 1": "text", "k2": "int4"},
            {
                "K 1": lambda chance: chance.choice(["", " ", "a,b", "*", "☃"]),
                "k2": lambda chance: chance.choice("123"),
            },
            'CREATE TABLE "Odd Name" (k2 int4, {}, "K 1" text, PRIMARY KEY ("K 1", k2))',
            {"truncated": True},
        ),
        (
            "divided",
            {"id": "int8", "region": "int4"},
            {**number, "region": lambda chance: chance.choice("0123")},
            (
                "CREATE TABLE divided (id int8, region int4, {}, PRIMARY KEY (id, region)) PARTITION BY LIST (region);"
                " CREATE TABLE divided_a PARTITION OF divided FOR VALUES IN (0, 1);"
                # Its columns stand in another order.
                " CREATE TABLE divided_b ({}, region int4 NOT NULL, id int8 NOT NULL);"
                " ALTER TABLE divided ATTACH PARTITION divided_b DEFAULT"
            ),
            {"parts": ("divided_a", "divided_b")},
        ),
        (
            "child",
            {"id": "int8"},
            {**number, "parent": lambda chance: str(chance.randint(1, 30))},
            (
                "CREATE TABLE child (id int8 PRIMARY KEY, {},"
                " parent int8 REFERENCES plain (id) ON UPDATE CASCADE ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED)"
            ),
            {},
        ),
        ("keyless", {}, number, "CREATE TABLE keyless (id int8, {})", {"truncated": True}),
    ):
        drawn = chance.sample(sorted(_VALUES), 6)
        columns = {chance.choice(_NAMES).format(nth): each for nth, each in enumerate(drawn)}
        declared = ", ".join(f"{identifier(column)} {each}" for column, each in columns.items())
        made.append(Sample(name, key, few, columns, form.replace("{}", declared), **more))
    return made
