"""The statement form against the row form: two watchers of one table, told apart by nothing but their names."""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import psycopg
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tablewatcher.event import Event
from tablewatcher.postgres.quoting import literal
from tablewatcher.spec.model import Action, Capture, Condition, Granularity, Operator

from ..conftest import Database
from ..versions import OLDEST
from .capturing import spec_of, watch

ODD_TEXTS = ["", " ", "NULL", "null", '"', "\\", "\\u0000", "\t\r\n\x01\x7f", "é☃😀", "a" * 3000, "\u2028", "{}", "'"]
# Per type, texts that are values of it. Each may also be NULL.
VALUES: dict[str, list[str]] = {
    "int2": ["0", "-32768", "32767"],
    "int4": ["0", "-1", "2147483647", "-2147483648"],
    "int8": ["7", "9223372036854775807", "-9223372036854775808"],
    "numeric": ["NaN", "0.000", "-1.10", "1e2000", "12345678901234567890.1234567890", "1e-500"],
    "numeric(9,2)": ["1.005", "-0.001", "NaN"],
    "float4": ["NaN", "-0", "Infinity", "0.1", "1e-45"],
    "float8": ["NaN", "-Infinity", "-0", "0.30000000000000004", "1e308", "5e-324"],
    "bool": ["true", "false"],
    "text": ODD_TEXTS,
    "varchar(9)": ["", "é☃", "123456789"],
    "char(5)": ["", "ab", "ab   ", "☃"],
    "name": ["x", "Ord er"],
    "uuid": ["a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"],
    "date": ["infinity", "-infinity", "0044-03-15 BC", "2024-02-29"],
    "timestamp": ["infinity", "294276-12-31 23:59:59.999999", "4713-01-01 00:00:00 BC"],
    "timestamptz": ["-infinity", "2024-03-31 01:30:00.000001+00", "0001-01-01 00:00:00+00 BC"],
    "time": ["24:00:00", "00:00:00.1"],
    "timetz": ["24:00:00-15:59"],
    "interval": ["1 year -2 days 03:04:05.6", "-00:00:00.000001"],
    "bytea": ["\\x", "\\x00ff5c"],
    "inet": ["10.0.0.1/8", "::1"],
    "money": ["-1.50"],
    "json": ['{"a": "\\u0000", "a": 1}', '"\\ud800"', "[1e1000000]", " null "],
    "jsonb": ['{"b": [1.10, null], "a": {}}', '"\\\\"', "[1e131071]", "null", json.dumps(["x" * 50] * 300)],
    "mood": ["", "so", "so ☃"],
}
COMPARED = [
    "int4",
    "numeric",
    "numeric(9,2)",
    "text",
    "varchar(9)",
    "char(5)",
    "bool",
    "date",
    "timestamptz",
    "float8",
    "mood",
]
ODD_SESSION = (
    "SET TimeZone = 'Asia/Kathmandu'; SET DateStyle = 'SQL, DMY'; SET extra_float_digits = -15;"
    " SET bytea_output = 'escape'; SET IntervalStyle = 'iso_8601'; SET search_path = pg_temp"
)


@dataclass(frozen=True)
class Sample:
    """A table `t (id, c0, c1, ...)`, what is watched of it, and statements."""

    key: str
    columns: tuple[str, ...]
    sent: tuple[str, ...]
    where: tuple[Condition, ...]
    odd_session: bool
    statements: tuple[str, ...]


def value(draw: st.DrawFn, declared: str) -> str:
    """A value of a type as an SQL expression."""
    given = draw(st.none() | st.sampled_from(VALUES[declared]))
    return cast(given, declared)


def cast(given: str | None, declared: str) -> str:
    named = f"public.{declared}" if declared == "mood" else declared
    return f"CAST({'NULL' if given is None else literal(given)} AS {named})"


def rows(draw: st.DrawFn, key: str, columns: tuple[str, ...], *, unique: bool) -> str:
    keys = draw(st.lists(st.integers(1, 6), min_size=1, max_size=6, unique=unique))
    return ", ".join(f"({', '.join([f'{nth}::{key}', *(value(draw, each) for each in columns)])})" for nth in keys)


def many(key: str, values: Sequence[Sequence[str]], first: int = 100) -> str:
    """An insert of so many rows that they are gathered, of each column's `values` in turn."""
    cycled = [
        "CASE g % {} {} END".format(len(each), " ".join(f"WHEN {nth} THEN {value}" for nth, value in enumerate(each)))
        for each in values
    ]
    selected = ", ".join([f"g::{key}", *cycled])
    return f"INSERT INTO public.t SELECT {selected} FROM generate_series({first}, {first + 130}) AS g"


def statement(draw: st.DrawFn, key: str, columns: tuple[str, ...]) -> str:
    """One statement; most of them insert, several on more than one row, some on rows that it also deletes."""
    setting = "c0 = excluded.c0"
    names = ", ".join(f"c{nth}" for nth in range(len(columns)))
    least = draw(st.integers(0, 6))
    forms = {
        "insert": lambda: f"INSERT INTO public.t VALUES {rows(draw, key, columns, unique=False)}",
        "many": lambda: (
            many(key, [[value(draw, each) for _ in range(draw(st.integers(1, 4)))] for each in columns])
            + " ON CONFLICT DO NOTHING"
        ),
        "ignore": lambda: (
            f"INSERT INTO public.t VALUES {rows(draw, key, columns, unique=False)} ON CONFLICT DO NOTHING"
        ),
        "upsert": lambda: (
            f"INSERT INTO public.t VALUES {rows(draw, key, columns, unique=True)}"
            f" ON CONFLICT (id) DO UPDATE SET {setting}"
        ),
        "update": lambda: f"UPDATE public.t SET c0 = {value(draw, columns[0])} WHERE id::text::int > {least}",
        "delete": lambda: f"DELETE FROM public.t WHERE id::text::int > {least}",
        "move": lambda: f"UPDATE public.t SET id = (id::text::int + 10)::{key} WHERE id::text::int > {least}",
        "replace": lambda: (
            f"WITH gone AS (DELETE FROM public.t WHERE id::text::int > {least} RETURNING *)"
            f" INSERT INTO public.t SELECT (id::text::int + 7)::{key}, {names}"
            " FROM gone"
        ),
        "merge": lambda: (
            f"MERGE INTO public.t USING (VALUES {rows(draw, key, columns, unique=True)})"
            f" AS s (id, {names}) ON t.id::text::int = s.id::text::int + 1"
            " WHEN MATCHED THEN DELETE WHEN NOT MATCHED THEN INSERT VALUES (s.*)"
        ),
        "merge in three ways": lambda: (
            f"MERGE INTO public.t USING (VALUES {rows(draw, key, columns, unique=True)})"
            f" AS s (id, {names}) ON t.id::text::int = s.id::text::int + 1"
            f" WHEN MATCHED AND s.id::text::int > {least} THEN DELETE WHEN MATCHED THEN UPDATE SET c0 = s.c0"
            " WHEN NOT MATCHED THEN INSERT VALUES (s.*)"
        ),
        "both": lambda: (
            f"WITH a AS (INSERT INTO public.t VALUES {rows(draw, key, columns, unique=True)} RETURNING id)"
            f" UPDATE public.t SET c0 = {value(draw, columns[0])} WHERE id::text::int > {least}"
        ),
    }
    if OLDEST < 15:
        del forms["merge"], forms["merge in three ways"]
    return forms[draw(st.sampled_from([*forms, "insert", "ignore", "many"]))]()


@st.composite
def samples(draw: st.DrawFn) -> Sample:
    key = draw(st.sampled_from(["int4", "text", "numeric", "varchar"]))
    columns = tuple(draw(st.lists(st.sampled_from(list(VALUES)), min_size=1, max_size=5)))
    names = [f"c{nth}" for nth in range(len(columns))]
    sent = ("*",) if draw(st.integers(0, 9)) == 0 else tuple(draw(st.lists(st.sampled_from(names), unique=True)))
    comparable = [nth for nth, declared in enumerate(columns) if declared in COMPARED]
    where: tuple[Condition, ...] = ()
    if comparable and draw(st.booleans()):
        nth = draw(st.sampled_from(comparable))
        operator = draw(st.sampled_from(list(Operator)))
        values = (
            ()
            if operator in (Operator.IS_NULL, Operator.IS_NOT_NULL)
            else (draw(st.sampled_from(VALUES[columns[nth]])),)
        )
        where = (Condition(f"c{nth}", operator, values),)
    statements = tuple(statement(draw, key, columns) for _ in range(draw(st.integers(1, 5))))
    return Sample(key, columns, sent, where, draw(st.booleans()), statements)


async def told(database: Database, sample: Sample, granularity: Granularity) -> Any:
    return await watch(
        database.dsn,
        spec_of(
            name=str(granularity),
            actions=frozenset([Action.INSERT, Action.UPDATE, Action.DELETE]),
            columns=sample.sent,
            where=sample.where,
            include_before=True,
            capture=Capture(granularity=granularity),
        ),
    )


def by_key(events: list[Event]) -> dict[str, list[tuple[str, str | None, dict[str, Any]]]]:
    """What is told of each row, in order, numbers as they are written."""
    found = defaultdict(list)
    for event in events:
        data = json.loads(event.body, parse_int=str, parse_float=str)["data"]
        found[event.key].append((event.op, event.old_key, data))
    return found


async def compare(database: Database, sample: Sample) -> None:
    columns = ", ".join(f"c{nth} {declared}" for nth, declared in enumerate(sample.columns))
    await database.execute(
        "DROP TABLE IF EXISTS t; DROP TYPE IF EXISTS mood; DROP SCHEMA IF EXISTS tablewatcher CASCADE;"
        f" CREATE TYPE mood AS ENUM ('', 'so ☃', 'so'); CREATE TABLE t (id {sample.key} PRIMARY KEY, {columns})"
    )
    row, whole = await told(database, sample, Granularity.ROW), await told(database, sample, Granularity.STATEMENT)
    async with row.reader, whole.reader, await database.connect() as writer:
        if sample.odd_session:
            await writer.execute(ODD_SESSION)
        for each in sample.statements:
            try:
                await writer.execute(each.encode())
            except (psycopg.errors.UniqueViolation, psycopg.errors.CardinalityViolation):
                continue
        assert by_key(await whole.events()) == by_key(await row.events())


FULL = Sample(
    "text",
    tuple(VALUES),
    tuple(f"c{nth}" for nth in range(len(VALUES))),
    (),
    True,
    tuple(
        "INSERT INTO public.t VALUES "
        + ", ".join(
            f"('{at + 10 * turn}', "
            + ", ".join(cast(texts[at % len(texts)], declared) for declared, texts in VALUES.items())
            + ")"
            for at in range(10)
        )
        for turn in range(2)
    ),
)


def gathered(*columns: str) -> Sample:
    """A table of columns whose rows are gathered by column; the last statement has values that are not."""
    return Sample(
        "text",
        columns,
        tuple(f"c{nth}" for nth in range(len(columns))),
        (),
        True,
        tuple(
            many(
                "text", [[cast(text, each) for text in VALUES[each] if text not in left_out] for each in columns], first
            )
            for first, left_out in ((100, {"NaN", "1e2000", "a" * 3000}), (300, set()))
        ),
    )


@settings(max_examples=15, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(sample=samples())
@example(sample=FULL)
@example(sample=gathered("int8", "numeric", "text", "varchar(9)", "timestamptz", "float8", "bool"))
@example(sample=gathered("char(5)", "name", "bytea", "inet", "interval", "money", "mood"))
@example(sample=replace(gathered("int8", "varchar(9)", "jsonb", "numeric(9,2)", "mood"), sent=("*",)))
@example(sample=gathered("int2", "float4", "uuid", "date", "timestamp", "time", "timetz"))
def test_the_events_of_a_row_are_the_same(sample: Sample, any_database: Database) -> None:
    asyncio.run(compare(any_database, sample))
