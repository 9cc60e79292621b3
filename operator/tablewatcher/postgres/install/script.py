"""Plans as a script that a DBA reads and runs. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from .plan import Plan, Step

_HEAD = """\
-- What TableWatcher needs in this database, in one transaction: after a failure nothing of it is there.
-- Run it as a role that may create schemas and triggers here, such as the owner of the tables, rather than as a
-- superuser: the capture functions keep the rights of the role that runs this.
BEGIN;
SET LOCAL lock_timeout = '500ms';  -- writers never queue behind this for longer; run it again if it gives up
"""


@dataclass(frozen=True, slots=True)
class Section:
    """What one watcher needs. `database`: the name of its database."""

    watcher: str
    database: str
    plan: Plan


def script(sections: Iterable[Section]) -> str:
    """One transaction for each database; "" where nothing is needed. What two watchers need alike is there once."""
    by_database: dict[str, list[Section]] = {}
    for section in sections:
        if section.plan:
            by_database.setdefault(section.database, []).append(section)
    several = len(by_database) > 1
    return "\n".join(_transaction(database, found, several) for database, found in by_database.items())


def _transaction(database: str, sections: Iterable[Section], several: bool) -> str:
    lines = [f"-- In database {_comment(database)}:\n{_HEAD}" if several else _HEAD]
    seen: set[Step] = set()
    for section in sections:
        lines.append(f"-- {_comment(section.watcher)}")
        for step in section.plan.steps:
            if step not in seen:
                seen.add(step)
                lock = " (locks the table)" if step.locks_table else ""
                lines.append(f"-- {_comment(step.what)}{lock}\n{step.sql.strip().rstrip(';')};")
        lines.append("")
    return "\n".join([*lines, "COMMIT;\n"])


def _comment(text: str) -> str:
    """A name may hold anything, a comment ends with its line."""
    return " ".join(text.split())
