"""`make bench`: the figures of the README, each beside its anchor measured in the same run.

Not a test: nothing here fails for being slow. Ratios of one run are worth more than absolute times, since the load,
the database, the broker and the listener share one machine. `held` and `reach for` are for two cores.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable
from pathlib import Path

from delivering import drain, http, latency, live
from fleet import fleet
from losing import loss, odd_writes
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from stage import Stage
from writing import bulk, install, single_rows

from tablewatcher.embedded import EmbeddedNats, EmbeddedPostgres

# What a change must not fall below, and what to reach for.
HELD = {
    ("drain", "rows_per_second"): (">= 50,000", "90,000"),
    ("drain", "listener_peak_mb"): ("<= 64", "48"),
    ("live", "rows_per_second"): (">= 45,000", "80,000"),
    ("latency", "p50_ms"): ("<= 2", "0.8"),
    ("latency", "p99_ms"): ("<= 10", "3"),
    # Of bare, what is left depends on the machine, and on the day: docs/decisions/0029 and 0031.
    ("writers", "captured_of_bare_8"): ("", "0.60"),
    ("writers", "captured_of_relayed_8"): (">= 0.90", ""),
    ("writers", "captured_of_bare_32"): ("", "0.60"),
    ("writers", "captured_of_relayed_32"): (">= 0.90", ""),
    ("bulk", "captured_of_bare_10k"): (">= 0.40", "0.55"),
    ("bulk", "captured_of_relayed_10k"): (">= 2", ""),
    ("http", "requests_per_second"): (">= 5,000", "7,000"),
    ("http", "batched_events_per_second"): (">= 100,000", "300,000"),
    ("fleet", "listener_mb"): ("<= 128", "96"),
    ("fleet", "database_connections"): ("<= 6", ""),
    ("install", "longest_writer_wait_s"): ("<= 0.5", "0.1"),
    ("loss", "lost_broker_stopped"): ("0", "0"),
    ("loss", "lost_listener_killed"): ("0", "0"),
    ("odd_writes", "captured_failed"): ("0", "0"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", nargs="*")
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--seconds", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--watchers", type=int, default=200)
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args()
    runs: dict[str, Callable[[Stage], dict[str, float]]] = {
        "drain": lambda stage: drain(stage, options.rows, options.rounds),
        "live": lambda stage: live(stage, options.rows, options.rounds),
        "latency": lambda stage: latency(stage, options.seconds, 100, options.rounds),
        "http": lambda stage: http(stage, options.rows, options.rounds),
        "writers": lambda stage: single_rows(stage, options.seconds, options.rounds, (1, 8, 32)),
        "bulk": lambda stage: bulk(stage, options.seconds, options.rounds),
        "install": install,
        "loss": loss,
        "odd_writes": odd_writes,
        "fleet": lambda stage: fleet(stage, options.watchers),
    }
    unknown = [what for what in options.what if what not in runs]
    if unknown:
        parser.error(f"no benchmark {', '.join(unknown)}: choose of {', '.join(runs)}")
    console = Console()
    figures = measured(console, {what: runs[what] for what in options.what or runs})
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2))


def measured(console: Console, runs: dict[str, Callable[[Stage], dict[str, float]]]) -> dict[str, dict[str, float]]:
    """Each run on servers of its own, so that none inherits what another left on the disk."""
    settings = {"shared_buffers": "256MB", "min_wal_size": "2GB", "max_wal_size": "4GB"}
    figures = {}
    with Progress(console=console, transient=True) as progress:
        for what, run in progress.track(runs.items(), description="measuring"):
            with tempfile.TemporaryDirectory(prefix="tablewatcher-bench-") as name:
                directory = Path(name)
                with (
                    EmbeddedPostgres(directory / "postgres", settings=settings) as postgres,
                    EmbeddedNats(directory / "nats") as broker,
                ):
                    figures[what] = run(Stage(directory, postgres, broker))
            # At once: a run that fails takes nothing of the others with it.
            show(console, what, figures[what])
    return figures


def show(console: Console, what: str, found: dict[str, float]) -> None:
    """What one run has measured, beside what is held and reached for."""
    table = Table("what", "figure", "value", "held", "reach for")
    for figure, value in found.items():
        shown = f"{value:,.2f}" if value < 100 else f"{value:,.0f}"
        table.add_row(what, figure, shown, *HELD.get((what, figure), ("", "")))
    console.print(table)


if __name__ == "__main__":
    main()
