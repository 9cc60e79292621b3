"""The SQL a person runs to remove a watcher that the operator could not remove. Pure."""

from __future__ import annotations

from ...naming import SCHEMA, WatcherNames
from ...spec.model import DeletionPolicy
from ..shared import SHARED_FUNCTIONS, SHARED_TABLES


def removal_sql(names: WatcherNames, policy: DeletionPolicy, *, is_last: bool = False) -> str:
    """Statements for one watcher; harmless where something of it is gone already.

    is_last: no other is in that database, and what all watchers share goes too.
    """
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
        if is_last:
            functions = ", ".join(f"{SCHEMA}.{function}" for function in SHARED_FUNCTIONS)
            shared = ", ".join(f"{SCHEMA}.{table}" for table in reversed(SHARED_TABLES))
            # Not CASCADE: what somebody else has put there is theirs.
            statements += [
                f"DROP FUNCTION IF EXISTS {functions}",
                f"DROP TABLE IF EXISTS {shared}",
                f"DROP SCHEMA {SCHEMA}",
            ]
    return "; ".join(statements) + ";"
