"""The SQL a person runs to remove a watcher that the operator could not remove. Pure."""

from __future__ import annotations

from ...naming import SCHEMA, WatcherNames
from ...spec.model import DeletionPolicy


def removal_sql(names: WatcherNames, policy: DeletionPolicy) -> str:
    """Statements for one watcher; harmless where something of it is gone already."""
    statements = [f"DROP FUNCTION IF EXISTS {SCHEMA}.{names.function}() CASCADE"]
    if policy is DeletionPolicy.DELETE:
        tables = ", ".join(f"{SCHEMA}.{name}" for name in (*names.rings, *names.cursors))
        sequences = ", ".join(f"{SCHEMA}.{name}" for name in names.sequences)
        statements += [
            f"DROP TABLE IF EXISTS {tables}",
            f"DROP SEQUENCE IF EXISTS {sequences}",
            f"DELETE FROM {SCHEMA}.watcher WHERE hash = '{names.hash}'",
            f"DELETE FROM {SCHEMA}.progress WHERE hash = '{names.hash}'",
        ]
    return "; ".join(statements) + ";"
