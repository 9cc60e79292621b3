"""What the demonstration has shown: figures, and how they are printed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich import box
from rich.console import Console
from rich.padding import Padding
from rich.syntax import Syntax
from rich.table import Table
from rich.text import Text

from .load import Ledger
from .receive import Arrival, Arrivals, Number


@dataclass(frozen=True, slots=True)
class Tally:
    """One sink, against what was committed. Latencies in milliseconds, from sending COMMIT to first arrival.

    lost: committed and not arrived. unexpected: arrived, though it was rolled back or is not watched. repeated: came
    again. out_of_order: came after a later change of its row.
    """

    sink: str
    committed: int
    delivered: int
    lost: int
    unexpected: int
    repeated: int
    out_of_order: int
    p50_ms: float
    p99_ms: float

    @property
    def sound(self) -> bool:
        """Whether the promise was kept."""
        return not (self.lost or self.unexpected or self.out_of_order)


def tally(ledger: Ledger, arrivals: Arrivals) -> Tally:
    """Compares what was written with what came."""
    newest: dict[str, str] = {}
    seen: set[str] = set()
    latencies: list[float] = []
    repeated = disordered = 0
    for arrival in arrivals.all:
        event = arrival.event
        if event["id"] in seen:
            repeated += 1
            continue
        seen.add(event["id"])
        key, sequence = event["partitionkey"], event["sequence"]
        disordered += sequence < newest.get(key, "")
        newest[key] = max(sequence, newest.get(key, ""))
        sent = ledger.committed.get(arrival.change)
        if sent is not None:
            latencies.append((arrival.at - sent) * 1000)
    expected = ledger.committed.keys()
    return Tally(
        sink=arrivals.sink,
        committed=len(expected),
        delivered=len(expected & arrivals.changes),
        lost=len(expected - arrivals.changes),
        unexpected=len(arrivals.changes - expected),
        repeated=repeated,
        out_of_order=disordered,
        p50_ms=_percentile(latencies, 0.50),
        p99_ms=_percentile(latencies, 0.99),
    )


def _percentile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return round(ordered[min(int(len(ordered) * share), len(ordered) - 1)], 2) if ordered else 0.0


def show_first(console: Console, arrivals: Sequence[Arrivals], count: int) -> None:
    """The first `count` events of each sink in one line each, and one of them in full."""
    for each in arrivals:
        for arrival in each.all[:count]:
            console.print(line(each.sink, arrival))
    whole = arrivals[-1].all[min(1, count - 1)]
    console.print(f"\n  One of them in full, as the {arrivals[-1].sink} endpoint got it:", style="dim")
    for name, text in whole.headers.items():
        console.print(Padding(Text(f"{name}: {text}", style="dim"), (0, 4)))
    console.print(
        Padding(Syntax(_written(whole.event, "\n"), "json", background_color="default", word_wrap=True), (0, 4))
    )


def line(sink: str, arrival: Arrival) -> Text:
    """An event in one line."""
    found = arrival.event["data"]
    row = found.get("after") or found.get("before") or found["key"]
    values = ", ".join(f"{name} {_plainly(value)}" for name, value in row.items())
    return Text.assemble(
        "  ", (f"{sink:<5}", "bold cyan"), f"{arrival.where:<28} ", (f"{found['action']:<7}", "bold"), values
    )


def _plainly(value: object) -> str:
    """A value in a line for people: text as it is, all else as JSON has it."""
    return value if isinstance(value, str) else _written(value)


def _written(value: object, margin: str = "") -> str:
    """JSON as it came; margin: what a line begins with, "" for all in one."""
    deeper = margin and margin + "  "
    between = "," + (deeper or " ")
    if isinstance(value, Mapping) and value:
        members = between.join(f"{_written(name)}: {_written(each, deeper)}" for name, each in value.items())
        return f"{{{deeper}{members}{margin}}}"
    if isinstance(value, list) and value:
        return f"[{deeper}{between.join(_written(each, deeper) for each in value)}{margin}]"
    return value if isinstance(value, Number) else json.dumps(value, ensure_ascii=False)


def show_summary(console: Console, ledger: Ledger, tallies: Sequence[Tally]) -> None:
    """The table at the end."""
    console.print(
        f"\n  {ledger.transactions} transactions committed; {ledger.rolled_back} rolled back and {ledger.unwatched}"
        " of a column that is not watched, none of which may arrive.",
        style="dim",
    )
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("sink")
    for name in ("committed", "delivered", "lost", "repeated", "p50", "p99"):
        table.add_column(name, justify="right")
    for each in tallies:
        lost = Text(str(each.lost), style="bold red" if each.lost else "bold green")
        counts = (str(each.committed), str(each.delivered), lost, str(each.repeated))
        table.add_row(each.sink, *counts, f"{each.p50_ms:.1f} ms", f"{each.p99_ms:.1f} ms")
    console.print(Padding(table, (0, 2)))
    for each in tallies:
        if not each.sound:
            console.print(
                f"  {each.sink}: {each.lost} lost, {each.unexpected} that must not arrive,"
                f" {each.out_of_order} out of order",
                style="bold red",
            )
    console.print("  Latency is from sending COMMIT to the event's arrival, all on this machine.", style="dim")


def as_json(ledger: Ledger, tallies: Sequence[Tally]) -> dict[str, Any]:
    """The same for programs."""
    return {
        "ok": all(each.sound for each in tallies),
        "transactions": ledger.transactions,
        "rolledBack": ledger.rolled_back,
        "unwatched": ledger.unwatched,
        "sinks": [
            {"sink": each.sink} | {_camel(name): value for name, value in asdict(each).items() if name != "sink"}
            for each in tallies
        ],
    }


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)
