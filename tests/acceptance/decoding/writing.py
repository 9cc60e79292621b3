"""Transactions of statements of every kind, on tables of which several sessions change the same few rows."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Sequence

import psycopg

from tablewatcher.postgres.quoting import identifier

from .tables import Sample

# How a session reads and writes values changes no event.
_ODD_SETTINGS = (
    "SET LOCAL DateStyle = German; SET LOCAL TimeZone = 'Asia/Kathmandu'; SET LOCAL IntervalStyle = iso_8601;"
    " SET LOCAL bytea_output = escape; SET LOCAL extra_float_digits = -5"
)


def write(dsn: str, tables: Sequence[Sample], seed: str, until: float) -> Counter[str]:
    """Transactions until that moment of the monotonic clock; how often which kind of end was met."""
    with psycopg.connect(dsn) as connection:
        writer = _Writer(tables, random.Random(seed), seed, merges=connection.info.server_version >= 150000)
        connection.prepare_threshold = None
        while time.monotonic() < until:
            writer.transaction(connection)
    return writer.ends


class _Writer:
    def __init__(self, tables: Sequence[Sample], chance: random.Random, name: str, *, merges: bool) -> None:
        self._tables = tables
        self._chance = chance
        self._name = name
        self._merges = merges
        self.ends: Counter[str] = Counter()

    def transaction(self, connection: psycopg.Connection) -> None:
        chance = self._chance
        try:
            if chance.random() < 0.2:
                connection.execute(_ODD_SETTINGS)
            for _ in range(chance.choice([1, 1, 2, 4, 10])):
                self._statement(connection)
            end = chance.choices(["commit", "rollback", "two phases"], [8, 1, 1])[0]
            if end == "commit":
                connection.commit()
            elif end == "rollback":
                connection.rollback()
            else:
                self._in_two_phases(connection)
            self.ends[end] += 1
        # Keys that are there, parents that are not: as among programs that know nothing of each other.
        except (psycopg.errors.DeadlockDetected, psycopg.IntegrityError) as error:
            self.ends[type(error).__name__] += 1
            connection.rollback()

    def _in_two_phases(self, connection: psycopg.Connection) -> None:
        transaction = connection.xid(1, f"{self._name}-{sum(self.ends.values())}", "")
        connection.execute(f"PREPARE TRANSACTION '{transaction.gtrid}'")
        connection.rollback()
        connection.autocommit = True
        # Prepared for a while, as where a coordinator is slow: others commit meanwhile, and are read before it.
        time.sleep(self._chance.random() * 0.2)
        word = self._chance.choice(["COMMIT", "COMMIT", "ROLLBACK"])
        connection.execute(f"{word} PREPARED '{transaction.gtrid}'")
        connection.autocommit = False

    def _statement(self, connection: psycopg.Connection) -> None:
        table = self._chance.choice(self._tables)
        statement = self._drawn(table)
        if self._chance.random() < 0.5:
            connection.execute(statement.encode())
            return
        # Within a savepoint, which may be taken back.
        connection.execute("SAVEPOINT before")
        try:
            connection.execute(statement.encode())
        except psycopg.IntegrityError:
            connection.execute("ROLLBACK TO before")
            return
        if self._chance.random() < 0.3:
            connection.execute("ROLLBACK TO before")

    def _drawn(self, table: Sample) -> str:
        kinds = {
            self._insert: 6,
            self._update: 6,
            self._update_many: 2,
            self._update_nothing: 1,
            self._change_key: 2,
            self._delete: 3,
            self._delete_many: 1,
            self._move: 1,
            self._merge: 1,
            self._fail_within: 1,
            self._truncate: 1,
        }
        return self._chance.choices(list(kinds), list(kinds.values()))[0](table)

    def _values(self, table: Sample, count: int) -> str:
        """Rows of different keys."""
        rows = [table.row(self._chance) for _ in range(count)]
        if table.key:
            rows = list({tuple(row[name] for name in table.key): row for row in rows}.values())
        return ", ".join(f"({', '.join(table.sql(name, text) for name, text in row.items())})" for row in rows)

    def _names(self, table: Sample) -> str:
        return ", ".join(map(identifier, [*table.few, *table.columns]))

    def _set(self, table: Sample) -> str:
        drawn = self._chance.sample(list(table.columns), self._chance.randint(1, 3))
        return ", ".join(f"{identifier(name)} = {table.sql(name, table.value(name, self._chance))}" for name in drawn)

    def _where(self, table: Sample, operator: str = "=") -> str:
        row = table.names_of_key(self._chance)
        if operator != "=":
            row = dict(list(row.items())[:1])
        return " AND ".join(f"{identifier(name)} {operator} {table.sql(name, text)}" for name, text in row.items())

    def _insert(self, table: Sample) -> str:
        rows = self._values(table, self._chance.choice([1, 1, 2, 40, 200]))
        end = ""
        if table.key:
            column = identifier(self._chance.choice(list(table.columns)))
            key = ", ".join(map(identifier, table.key))
            do = self._chance.choice(["NOTHING", f"UPDATE SET {column} = excluded.{column}"])
            end = f" ON CONFLICT ({key}) DO {do}"
        return f"INSERT INTO {identifier(table.name)} ({self._names(table)}) VALUES {rows}{end}"

    def _update(self, table: Sample) -> str:
        return f"UPDATE {identifier(table.name)} SET {self._set(table)} WHERE {self._where(table)}"

    def _update_many(self, table: Sample) -> str:
        name = self._chance.choice([*table.parts, table.name])
        return f"UPDATE {identifier(name)} SET {self._set(table)} WHERE {self._where(table, '>=')}"

    def _update_nothing(self, table: Sample) -> str:
        column = identifier(self._chance.choice(list(table.columns)))
        return f"UPDATE {identifier(table.name)} SET {column} = {column}"

    def _change_key(self, table: Sample) -> str:
        """Which moves a row of a table with partitions into another, now and then."""
        key = table.names_of_key(self._chance).items()
        new = ", ".join(f"{identifier(name)} = {table.sql(name, text)}" for name, text in key)
        return f"UPDATE {identifier(table.name)} SET {new} WHERE {self._where(table)}"

    def _delete(self, table: Sample) -> str:
        return f"DELETE FROM {identifier(table.name)} WHERE {self._where(table)}"

    def _delete_many(self, table: Sample) -> str:
        return f"DELETE FROM {identifier(table.name)} WHERE {self._where(table, '>=')}"

    def _move(self, table: Sample) -> str:
        return f"WITH gone AS ({self._delete(table)} RETURNING *) INSERT INTO keyless (id) SELECT 7 FROM gone"

    def _merge(self, table: Sample) -> str:
        if not (table.key and self._merges):
            return self._insert(table)
        same = " AND ".join(f"t.{identifier(name)} = s.{identifier(name)}" for name in table.key)
        column = identifier(self._chance.choice(list(table.columns)))
        values = ", ".join(f"s.{identifier(name)}" for name in [*table.few, *table.columns])
        return (
            f"MERGE INTO {identifier(table.name)} t USING (VALUES {self._values(table, 3)}) AS s ({self._names(table)})"
            f" ON {same} WHEN MATCHED AND random() < 0.3 THEN DELETE WHEN MATCHED THEN UPDATE SET {column} = s.{column}"
            f" WHEN NOT MATCHED THEN INSERT ({self._names(table)}) VALUES ({values})"
        )

    def _fail_within(self, table: Sample) -> str:
        """In a block of PL/pgSQL, which goes on after that with another statement."""
        first, second = self._insert(table), self._update(table)
        return f"DO $do$ BEGIN {first}; RAISE 'no'; EXCEPTION WHEN raise_exception THEN {second}; END $do$"

    def _truncate(self, table: Sample) -> str:
        return f"TRUNCATE {identifier(table.name)}" if table.truncated else self._update(table)
