"""`tablewatcher plan`: what `apply` would run, and all that stands against it, at once."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rich.console import Console
from rich.text import Text

from ..errors import TableWatcherError
from ..postgres.capture.granularity import notes
from ..postgres.connection.pooling import POOLED, Pooling
from ..postgres.install.survey import Survey
from ..spec.model import WatcherSpec
from .checks import namesake_note
from .looking import look_at_database, look_at_sink
from .plain import one_line, plain
from .results import Result, fault_line
from .steps import number_of, steps_json
from .watchers import Scope, each_watcher, no_key, refused

# What pg_class calls tables, and partitioned ones: of a view nothing is to be said but that it is one.
_TABLES = ("r", "p")


async def plan(scope: Scope) -> list[Result]:
    """One result a watcher: its steps, and every fault of database and sink. Changes nothing."""

    async def one(spec: WatcherSpec) -> Result:
        found, faults = await _look(scope, spec)
        sink = await look_at_sink(scope, spec)
        faults += [sink.fault] if sink.fault else []
        others = _others(scope, spec, found)
        extra: dict[str, Any] = {"notes": [*others, *_notes(spec, found), *sink.makes, *sink.notes]}
        if found is not None and found.plan is not None:
            extra |= steps_json(found.plan)
        if not faults:
            return Result(spec.qualified_name, ok=True, text="", extra=extra)
        result = refused(spec.qualified_name, faults)
        result.extra |= extra
        return result

    return await each_watcher(scope, one)


async def _look(scope: Scope, spec: WatcherSpec) -> tuple[Survey | None, list[TableWatcherError]]:
    try:
        found = await look_at_database(scope, spec, scope.access(spec))
    except TableWatcherError as error:
        return None, [error]
    return found, list(found.faults)


def _others(scope: Scope, spec: WatcherSpec, found: Survey | None) -> list[str]:
    """Of what is to be installed: who has it already."""
    if found is None or found.plan is None or found.observed.registered_table is not None:
        return []
    elsewhere = found.observed.namesakes
    return [namesake_note(elsewhere, scope.names(spec))] if elsewhere else []


def _notes(spec: WatcherSpec, found: Survey | None) -> list[str]:
    """What deserves a thought in the database, and stops nothing."""
    if found is None or found.observed.table is None or found.observed.table.kind not in _TABLES:
        return []
    shape = found.observed.table.shape
    pooled = [POOLED] if found.pooling is Pooling.TRANSACTION else []
    return [*pooled, *([] if shape.primary_key else [no_key(spec)]), *notes(shape)]


def show_plan(results: Iterable[Result]) -> None:
    """Prints the SQL of each watcher on standard output, and after it what stands against it on standard error."""
    good, bad = (Console(stderr=aside, highlight=False, soft_wrap=True) for aside in (False, True))
    for result in results:
        steps, remarks = result.extra.get("steps"), result.extra.get("notes") or []
        if steps is not None or remarks:
            good.print(Text.assemble((plain(result.name), "bold"), f": {_head(steps)}"))
        for step in steps or ():
            lock = " (locks the table, for half a second at the most)" if step["locksTable"] else ""
            text = step["sql"].strip().rstrip(";")
            # Of SQL that goes elsewhere every sign counts.
            text = plain(text) if good.is_terminal else text
            good.print(Text(f"-- {one_line(step['what'])}{lock}\n{text};"))
        for remark in remarks:
            good.print(Text(f"-- note: {one_line(remark)}"))
        if not result.ok:
            for fault in result.extra.get("faults") or [{"reason": result.reason, "message": result.text}]:
                bad.print(fault_line(result.name, fault["reason"], fault["message"]))


def _head(steps: list[dict[str, Any]] | None) -> str:
    if steps is None:
        return "no steps, since errors stand against them"
    return number_of(steps) if steps else "in sync, nothing to do"
