"""`tablewatcher status`: how each watcher stands, a line each, read from the database alone."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..postgres.standing import Standing, standing
from ..spec.model import WatcherSpec
from .checks import span
from .results import Result
from .watchers import Scope, each_watcher

_WIDE = 1000
_GOOD = frozenset({"forwarding", "suspended"})
_COLUMNS = ("watcher", "state", "listener", "waiting", "oldest", "ring", "parked", "says")


async def status(scope: Scope) -> list[Result]:
    """One result a watcher, whatever its state; a fault only where the database cannot be asked."""

    async def one(spec: WatcherSpec) -> Result:
        found = await standing(scope.access(spec).conninfo, scope.names(spec))
        return Result(spec.qualified_name, ok=True, text="", extra=_as_json(spec, found))

    return await each_watcher(scope, one)


def state(spec: WatcherSpec, found: Standing | None) -> str:
    """One word: not installed, stopped (capture), suspended, no listener, starting, forwarding or failing."""
    if found is None:
        return "not installed"
    if found.stopped_at:
        return "stopped"
    if not found.host:
        return "no listener"
    if spec.suspend:
        return "suspended"
    if not found.reason:
        return "starting"
    return "forwarding" if found.forwarding else "failing"


def _as_json(spec: WatcherSpec, found: Standing | None) -> dict[str, Any]:
    if found is None:
        return {"state": state(spec, None)}
    return {
        "state": state(spec, found),
        "listener": found.host,
        "leaseSeconds": round(found.lease_seconds, 1),
        "waiting": found.waiting,
        "oldestSeconds": None if found.oldest_seconds is None else round(found.oldest_seconds, 1),
        "ringBytes": found.ring_bytes,
        "parked": found.parked,
        "says": found.reason,
        "lastError": "" if found.forwarding else found.message,
    }


def show_status(results: Iterable[Result]) -> None:
    """Prints a table for people."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in _COLUMNS:
        table.add_column(name, justify="right" if name in ("waiting", "oldest", "ring", "parked") else "left")
    for result in results:
        table.add_row(Text(result.name, "bold"), *_cells(result))
    # Not wrapped where nobody watches: a script reads lines.
    Console(highlight=False, width=None if sys.stdout.isatty() else _WIDE).print(table)


def _cells(result: Result) -> list[Text]:
    if not result.ok:
        return [Text("unknown", "bold red"), *[Text("")] * 5, Text(f"{result.reason}: {result.text}")]
    row = result.extra
    word = Text(row["state"], "green" if row["state"] in _GOOD else "bold yellow")
    if "waiting" not in row:
        return [word, *[Text("")] * 6]
    oldest = "" if row["oldestSeconds"] is None else span(row["oldestSeconds"])
    parked = "" if row["parked"] is None else str(row["parked"])
    numbers = (row["listener"], str(row["waiting"]), oldest, f"{row['ringBytes'] / 2**20:.1f} MiB", parked)
    says = f"{row['says']}: {row['lastError']}" if row["lastError"] else row["says"]
    return [word, *map(Text, numbers), Text(says)]
