"""A table with columns of odd types, which the application changes while it writes statements of many rows.

Each row is noted in table `truth` as the database itself puts it into JSON, so that the events are held against it.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Awaitable, Callable, Iterable, Mapping
from decimal import Decimal
from typing import Any

from tablewatcher.postgres.quoting import literal

from .changing import Row, Work
from .truth import Arrival, Change

Ask = Callable[[str], Awaitable[list[tuple[Any, ...]]]]
# As many columns as may be gathered side by side. The last of them are exchanged for others by `migration`.
TABLE = """
CREATE TYPE mood AS ENUM ('', 'so', 'so ☃');
CREATE TYPE pair AS (a int, b text);
CREATE DOMAIN brief AS text CHECK (length(VALUE) < 5000);
CREATE TABLE wide (key text PRIMARY KEY, version bigint NOT NULL, kind text NOT NULL, note text DEFAULT '',
                   c0 numeric, c1 text, c2 timestamptz, c3 mood);
"""
_ODD = ("c0", "c1", "c2", "c3")
_TEXTS = ["", " ", "null", '"', "\\", "\\u0000", "\t\r\n\x01\x7f", "é☃😀", "\u2028", "{}", "'%s%1$s"]
_KEYS = ["'x' || g", "'\"☃\\,' || g", "repeat('k', 500) || g"]
# Rows of these are not gathered by column, and end the block that they are in.
_APART = {"text": ["a" * 1700, "☃" * 1000], "brief": ["☃" * 1000], "numeric": ["NaN", "-1e40"]}
_LONG_KEY = "repeat('\"', 1000) || g"
# By their names in `format_type`, texts that are values of them.
_VALUES = {
    "smallint": ["-32768", "7"],
    "bigint": ["0", "9223372036854775807", "-9223372036854775808"],
    "numeric": ["0.000", "-1.10", "1e29", "12345678901234567890.1234567890", "1e-500"],
    "numeric(9,2)": ["1.005", "-0.001", "NaN"],
    "double precision": ["NaN", "-Infinity", "-0", "0.30000000000000004", "1e308"],
    "boolean": ["true", "false"],
    "text": _TEXTS,
    "brief": _TEXTS,
    "character varying(9)": ["", "é☃", "123456789"],
    "character(5)": ["", "ab   ", "☃"],
    "uuid": ["a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"],
    "date": ["infinity", "0044-03-15 BC", "2024-02-29"],
    "timestamp with time zone": ["-infinity", "2024-03-31 01:30:00.000001+00", "0001-01-01 00:00:00+00 BC"],
    "time without time zone": ["24:00:00", "00:00:00.1"],
    "interval": ["1 year -2 days 03:04:05.6", "-00:00:00.000001"],
    "bytea": ["\\x", "\\x00ff5c"],
    "inet": ["10.0.0.1/8", "::1"],
    # Nothing that jsonb does not take: after a change of the columns such a row may come as its key alone.
    "json": ['{"a": [1.50, "☃"], "a": 1}', '"\\u2603"', " null "],
    "jsonb": ['{"b": [1.10, null], "a": {}}', '"\\\\"', "null"],
    "integer[]": ["{}", "{1,NULL}", "{{1,2},{3,4}}"],
    "pair": ["(1,x)", "(,)"],
    "mood": [],
}
_NOT_GATHERED = ("brief", "json", "jsonb", "integer[]", "pair")
# Its labels get other names meanwhile.
_MOODS = [f"(enum_range(NULL::mood))[{nth}]" for nth in (1, 2, 3)]
_SIZES = [1, 5, 33, 40, 97, 150, 200, 600]
_MOST_ROWS = 3000
_COLUMNS = """
SELECT attname::text, format_type(atttypid, atttypmod) FROM pg_attribute
WHERE attrelid = 'wide'::regclass AND attnum > 0 AND NOT attisdropped
"""
_NOTE = """
INSERT INTO truth (n, name, action, key, kind, old_kind, image)
SELECT version, 'wide', %s, key, kind, %s, row_to_json(t) FROM wide AS t WHERE version BETWEEN %s AND %s
"""


async def write_wide(work: Work, ask: Ask, *, lazy: bool) -> None:
    """A transaction: rows come by one statement; sometimes some that are there change, or all go.

    Nobody else writes this table. ask: what another session sees. lazy: it does not wait for the disk.
    """
    chance, is_older = work.chance, work.chance.random() < 0.15
    await work.execute(f"BEGIN ISOLATION LEVEL {'REPEATABLE READ' if is_older else 'READ COMMITTED'}")
    if is_older:  # of a snapshot from before what may be done to the table now
        await work.execute("SELECT 1")
        await asyncio.sleep(chance.choice([0.5, 2]))
    if lazy or chance.random() < 0.3:
        await work.execute("SET LOCAL synchronous_commit = off")
    await _write(work, ask)
    await work.execute("ROLLBACK" if chance.random() < 0.08 else "COMMIT")
    await asyncio.sleep(chance.uniform(0.1, 1.0))


async def _write(work: Work, ask: Ask) -> None:
    # From here on the columns are what they are; the snapshot may be older.
    await work.execute("LOCK TABLE wide IN ROW EXCLUSIVE MODE")
    types = dict(await ask(_COLUMNS))
    ((there,),) = await work.execute("SELECT count(*)::int FROM wide")
    if there > _MOST_ROWS:
        await _empty(work)
    elif there and work.chance.random() < 0.25:
        await _change(work, types)
    else:
        await _insert(work, types)


async def _insert(work: Work, types: Mapping[str, str]) -> None:
    size = work.chance.choice(_SIZES)
    first, last = _drawn(work, size)
    kind = work.kind()
    odd = {name: _value(work.chance, types[name]) for name in types if name not in ("key", "version", "kind")}
    names = ", ".join(["key", "version", "kind", *odd])
    key = work.chance.choice(_KEYS) if work.chance.random() < 0.9 else _LONG_KEY
    await work.execute(
        f"INSERT INTO wide ({names}) SELECT {', '.join([key, 'g', literal(kind), *odd.values()])}"
        f" FROM generate_series({first}, {last}) AS g"
    )
    await work.execute(_NOTE, "insert", None, first, last)


async def _change(work: Work, types: Mapping[str, str]) -> None:
    """Of those of one kind, some."""
    kind, new = work.kind(), work.kind()
    rows = await work.execute("SELECT key FROM wide WHERE kind = %s ORDER BY version LIMIT 40", kind)
    if not rows:
        return
    first, last = _drawn(work, len(rows))
    name = work.chance.choice([each for each in types if each in _ODD] or ["note"])
    value = _value(work.chance, types[name]).replace("%", "%%")
    await work.execute(
        f"UPDATE wide AS t SET version = g, kind = %s, {name} = {value}"
        " FROM unnest(%s::text[]) WITH ORDINALITY AS k (key, nth), LATERAL (SELECT k.nth + %s AS g) AS n"
        " WHERE t.key = k.key",
        new,
        [key for (key,) in rows],
        first - 1,
    )
    await work.execute(_NOTE, "update", kind, first, last)


async def _empty(work: Work) -> None:
    if work.chance.random() < 0.5:
        rows: list[Row] = [(work.version(), "truncate", "", None, None, None)]
        await work.execute("TRUNCATE wide")
    else:
        gone = await work.execute("DELETE FROM wide RETURNING key, kind")
        rows = [(work.version(), "delete", key, None, None, kind) for key, kind in gone]
    await work.note("wide", rows)


def _drawn(work: Work, size: int) -> tuple[int, int]:
    """The first and the last of so many numbers in a row: nobody else draws meanwhile."""
    drawn = [work.version() for _ in range(size)]
    return drawn[0], drawn[-1]


def _value(chance: random.Random, declared: str) -> str:
    """An expression over `g` that gives one value of some, in turns; no other type than was known here has one."""
    if declared not in _VALUES:
        return "NULL"
    texts = _VALUES[declared] + (_APART.get(declared, []) if chance.random() < 0.1 else [])
    all_ = [f"{literal(text)}::{declared}" for text in texts] or _MOODS
    some = [*chance.sample(all_, chance.randint(1, min(len(all_), 4))), f"NULL::{declared}"]
    return f"CASE g % {len(some)} {' '.join(f'WHEN {nth} THEN {value}' for nth, value in enumerate(some))} END"


# For what takes no lock on the table: between a row and the note of it, it would have another name.
_ALONE = "BEGIN; LOCK TABLE wide IN ACCESS EXCLUSIVE MODE;"


def migration(chance: random.Random) -> tuple[str, ...]:
    """Statements of a migration: what it does, and after a while what is done then."""
    name = chance.choice(_ODD)
    # Mostly of a type that goes on to be gathered.
    declared = chance.choice([each for each in _VALUES if each not in _NOT_GATHERED or chance.random() < 0.2])
    found = [
        (f"ALTER TABLE wide ALTER {name} TYPE {declared} USING NULL",),
        (f"ALTER TABLE wide ALTER {name} TYPE {declared} USING NULL",),
        (f"ALTER TABLE wide DROP {name}", f"ALTER TABLE wide ADD {name} {declared}"),
        (f"ALTER TABLE wide RENAME {name} TO other", f"ALTER TABLE wide RENAME other TO {name}"),
        (f"ALTER TABLE wide ADD more {declared}", "ALTER TABLE wide DROP more"),
        (f"BEGIN; ALTER TABLE wide DROP {name}; ALTER TABLE wide ADD {name} {declared}; COMMIT",),
        tuple(f"{_ALONE} ALTER TYPE mood RENAME VALUE {names}; COMMIT" for names in ("'so' TO 'sö'", "'sö' TO 'so'")),
        ("ALTER TABLE wide ALTER key TYPE varchar(2000)", "ALTER TABLE wide ALTER key TYPE text"),
        ("ALTER TABLE wide ALTER note SET DEFAULT 'x'", "ALTER TABLE wide ALTER note SET DEFAULT ''"),
    ]
    return chance.choice(found)


def unlike(made: Iterable[Change], arrivals: Iterable[Arrival], *, every: bool) -> Iterable[str]:
    """Where an event does not hold what its row did, in words. every: all columns are sent."""
    images = {each.n: loads(each.image) for each in made if each.image is not None}
    for each in arrivals:
        if each.after is None:
            if every and each.action in ("insert", "update"):
                yield f"{each} has no row"
            continue
        image = images.get(each.version or 0)
        if image is None:
            continue
        if every and each.after.keys() != image.keys():
            yield f"{each} has {[*each.after]}, and its row {[*image]}"
        # A column of another name meanwhile is null, if it is there.
        if other := {name: value for name, value in each.after.items() if image.get(name) != value}:
            yield f"{each} has {other}, and its row {image}"


def loads(text: str | bytes) -> Any:
    """What JSON says, with all digits."""
    return json.loads(text, parse_float=Decimal)
