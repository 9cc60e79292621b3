"""`tablewatcher status`: how each watcher stands, a line each, and below what is wrong. From the database alone."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..postgres.connection.pooling import POOLED
from ..postgres.drift import remedy
from ..postgres.standing import OpenGap, Standing, standing, surroundings
from ..postgres.unattended import others
from ..spec.model import WatcherSpec
from .checks import (
    SKIPPED,
    Check,
    Level,
    filling,
    namesake_note,
    span,
    standing_checks,
    surrounding_checks,
    unattended_check,
)
from .plain import plain
from .results import Result
from .watchers import Scope, each_watcher, of_manifests

_WIDE = 1000
_GOOD = frozenset({"forwarding", "suspended"})
_COLUMNS = ("watcher", "state", "listener", "waiting", "oldest", "ring", "parked")
_NUMBERS = frozenset({"waiting", "oldest", "ring", "parked"})


async def status(scope: Scope) -> list[Result]:
    """One result a watcher, whatever its state; a fault only where the database cannot be asked."""
    known = of_manifests(scope)

    async def one(spec: WatcherSpec) -> Result:
        conninfo, names = scope.conninfo_to_ask(spec), scope.names(spec)
        found = await scope.reaching.once(conninfo, lambda: standing(conninfo, names))
        around = await others(conninfo, spec.table, names, known)
        alone = [unattended_check(other) for other in around.unattended]
        if found is None:
            note = f"nothing of it is in this database: {remedy(spec)}"
            if elsewhere := around.namesakes:
                note = (
                    f"nothing of {names.identity} is here, but {namesake_note(elsewhere, names)}; else {remedy(spec)}"
                )
            notes = [note, *map(_line, alone)]
            extra: dict[str, Any] = {"state": state(spec, None), "notes": notes}
            return Result(spec.qualified_name, ok=True, text="", extra=extra)
        checks = [*standing_checks(spec, found), *alone]
        if filling(spec, found):
            checks += surrounding_checks(await surroundings(conninfo, names))
        told = (check for check in checks if check.level is not Level.OK or check.name == SKIPPED)
        notes = [*map(_line, told)]
        notes += [POOLED] if found.pooled else []
        return Result(spec.qualified_name, ok=True, text="", extra=_as_json(spec, found) | {"notes": notes})

    return await each_watcher(scope, one)


def _line(check: Check) -> str:
    return f"{check.name}: {check.text}"


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


def _as_json(spec: WatcherSpec, found: Standing) -> dict[str, Any]:
    return {
        "state": state(spec, found),
        "listener": found.host,
        "pid": found.last_pid if found.host else None,
        "leaseSeconds": round(found.lease_seconds, 1),
        "waiting": found.waiting,
        "oldestSeconds": _rounded(found.oldest_seconds),
        "ringBytes": found.ring_bytes,
        "parked": found.parked,
        "skipped": found.skipped,
        "gaps": [_gap_as_json(gap) for gap in found.gaps],
        "says": found.reason,
        "saysSeconds": _rounded(found.said_seconds),
        "lastError": "" if found.forwarding else found.message,
    }


def _gap_as_json(gap: OpenGap) -> dict[str, Any]:
    since = None if gap.since is None else gap.since.isoformat()
    return {"reason": gap.reason, "certain": gap.certain, "since": since, "until": gap.until.isoformat()}


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 1)


def show_status(results: Iterable[Result]) -> None:
    """Prints a table for people, and below it what is wrong and what to do, a line each."""
    found = list(results)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for name in _COLUMNS:
        # What a name is cut to, nobody could look for.
        table.add_column(name, justify="right" if name in _NUMBERS else "left", overflow="fold")
    for result in found:
        table.add_row(Text(plain(result.name), "bold"), *_cells(result))
    # Not wrapped where nobody watches: a script reads lines.
    Console(highlight=False, width=None if sys.stdout.isatty() else _WIDE).print(table)
    console = Console(highlight=False, soft_wrap=True)
    for result in found:
        lines = result.extra.get("notes", []) if result.ok else [f"{result.reason}: {result.text}"]
        for line in lines:
            console.print(Text.assemble((plain(result.name), "bold"), f": {plain(line)}"))


def _cells(result: Result) -> list[Text]:
    if not result.ok:
        return [Text("unknown", "bold red"), *[Text("")] * 5]
    row = result.extra
    word = Text(row["state"], "green" if row["state"] in _GOOD else "bold yellow")
    if "waiting" not in row:
        return [word, *[Text("")] * 5]
    oldest = "" if row["oldestSeconds"] is None else span(row["oldestSeconds"])
    parked = "" if row["parked"] is None else str(row["parked"])
    return [
        word,
        Text(plain(row["listener"])),
        *map(Text, (str(row["waiting"]), oldest, f"{row['ringBytes'] / 2**20:.1f} MiB", parked)),
    ]
