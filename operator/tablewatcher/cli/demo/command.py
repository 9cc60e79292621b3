"""`tablewatcher demo`: real servers, the real commands, real changes, and a count of what arrived.

Nothing here knows how capture or delivery work: rows are written over ordinary connections, the listener is the
process that `tablewatcher listen` starts, and events are taken where a consumer would take them.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import shlex
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from ...embedded import EmbeddedNats, EmbeddedPostgres, EmbeddedUnavailable
from ...errors import DatabaseError, FieldError, Reason, SpecInvalid, TableWatcherError
from ...listener.stopping import stopping
from ...naming import LOCAL_INSTANCE
from ...postgres.connection.session import connected
from ...sinks.nats.readback import Stored, reading
from ...spec.model import WatcherSpec
from .. import watchers
from ..exit_codes import ExitCode, exit_code
from ..results import Output, Result
from .listener import Listener
from .load import SCHEMA, TABLE, TRANSACTIONS, WRITTEN, Ledger, Writers
from .manifests import SCHEMA_FILE, Addresses, chosen, new_signing_secret, place, table_sql
from .playable import STREAM, SUBJECTS, sink_kind, takes_notes
from .receive import Arrivals, endpoint
from .report import as_json, line, show_first, show_summary, tally

DATABASE = "shop"
ARRIVAL_SECONDS = 15.0
QUIET_SECONDS = 0.3
POLL_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class DemoOptions:
    """`files`: manifests and SQL to use in place of the ones that come with the package."""

    files: tuple[Path, ...]
    keep: bool
    output: Output


@dataclass(frozen=True, slots=True)
class Stage:
    """The servers of one demonstration, and its directory."""

    directory: Path
    postgres: EmbeddedPostgres
    nats: EmbeddedNats

    @property
    def dsn(self) -> str:
        """Of the shop's database."""
        return self.postgres.dsn(DATABASE)


def demo(options: DemoOptions) -> ExitCode:
    """Runs the demonstration to its end."""
    # With JSON asked for, what people read goes to standard error.
    aside = Console(stderr=True, highlight=False, soft_wrap=True)
    console = aside if options.output is Output.JSON else Console(highlight=False, soft_wrap=True)
    try:
        for number in stopping():  # as Ctrl-C does: the servers are stopped and the directory is removed
            signal.signal(number, signal.default_int_handler)
        specs, schema = chosen(options.files), table_sql(options.files)
        with _stage(console) as stage:
            return asyncio.run(_play(stage, specs, schema, options, console))
    except EmbeddedUnavailable as error:
        aside.print(f"error: {error}", style="bold red", markup=False)
        _tell(options, Result("demo", ok=False, text=str(error), reason=Reason.MANUAL_ACTION_REQUIRED))
        return ExitCode.PERSON
    except TableWatcherError as error:
        aside.print(f"error {error.reason}: {error.message}", style="bold red", markup=False)
        _tell(options, Result.failed("demo", error))
        return exit_code(error.reason)
    except KeyboardInterrupt:
        console.print("stopped")
        return ExitCode.OK if options.keep else ExitCode.INTERRUPTED


def _tell(options: DemoOptions, fault: Result) -> None:
    """Why there is no summary, for programs."""
    if options.output is Output.JSON:
        typer.echo(json.dumps(fault.as_json(), indent=2))


@contextlib.contextmanager
def _stage(console: Console) -> Iterator[Stage]:
    """Postgres and NATS of our own, in a directory that is removed afterwards."""
    # Not below a private directory: as root, Postgres runs as another user.
    directory = Path(tempfile.mkdtemp(prefix="tablewatcher-demo-"))
    began = time.monotonic()
    try:
        with (
            EmbeddedPostgres(directory / "postgres") as postgres,
            EmbeddedNats(directory / "nats") as nats,
        ):
            spent = time.monotonic() - began
            console.print(f"[bold]1.[/] Postgres {postgres.version} and NATS with JetStream started in {spent:.1f} s")
            yield Stage(directory, postgres, nats)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


async def _play(
    stage: Stage, specs: Sequence[WatcherSpec], schema: str, options: DemoOptions, console: Console
) -> ExitCode:
    at_nats, at_http = Arrivals("NATS"), Arrivals("HTTP")
    secret = new_signing_secret()

    def take(message: Stored) -> None:
        at_nats.add(message.subject, message.headers, message.body)

    async with (
        endpoint(secret, at_http) as url,
        reading(stage.nats.url, STREAM, SUBJECTS, take),
    ):
        manifests, secrets = place(specs, stage.directory, Addresses(stage.dsn, stage.nats.url, url, secret))
        await _make_table(stage, schema)
        scope = watchers.Scope((manifests,), None, secrets, LOCAL_INSTANCE)
        console.print(f"[bold]2.[/] stream {STREAM} and table public.orders made; tablewatcher apply -f {manifests}")
        applied = await watchers.apply(scope)
        for result in applied:
            console.print(f"  {result.name}: {result.text}", markup=False)
        faults = [result for result in applied if not result.ok]
        if faults:
            _tell(options, faults[0])
            return exit_code(faults[0].reason) if faults[0].reason else ExitCode.UNEXPECTED
        with Listener(manifests, secrets, stage.directory) as listener:
            await listener.ready()
            console.print(f"[bold]3.[/] tablewatcher listen is ready (metrics: {listener.url}/metrics)")
            played = {sink_kind(spec) for spec in specs}
            arrivals = [each for each in (at_nats, at_http) if each.sink in played]
            writers = Writers(stage.dsn, notes_arrive=takes_notes(specs[0]))
            code = await _act(writers, options, console, arrivals)
            if options.keep:
                await _stay(stage, console, arrivals)
            return code


async def _make_table(stage: Stage, schema: str) -> None:
    async with connected(stage.postgres.dsn()) as connection:
        await connection.execute(f"CREATE DATABASE {DATABASE}".encode())
    try:
        async with connected(stage.dsn) as connection:
            await connection.execute(schema.encode())
    except DatabaseError as error:
        # In the words of the database: ours are about a watcher's own objects.
        raise SpecInvalid("demo", (FieldError("-f", f"{SCHEMA_FILE}: {error.__cause__ or error}"),)) from None
    async with connected(stage.dsn) as connection:
        query = "SELECT attname FROM pg_catalog.pg_attribute WHERE attrelid = pg_catalog.to_regclass(%s)"
        found = await (await connection.execute(query.encode(), [f"{SCHEMA}.{TABLE}"])).fetchall()
    if missing := set(WRITTEN) - {row["attname"] for row in found}:
        text = f"{SCHEMA_FILE} must make {SCHEMA}.{TABLE} with {', '.join(WRITTEN)}: no {', '.join(sorted(missing))}"
        raise SpecInvalid("demo", (FieldError("-f", text),))


async def _act(writers: Writers, options: DemoOptions, console: Console, arrivals: Sequence[Arrivals]) -> ExitCode:
    ledger = writers.ledger
    console.print("[bold]4.[/] An order is placed, paid and removed:")
    await writers.one_of_each()
    await _all_arrived(ledger, arrivals)
    silent = [each.sink for each in arrivals if not each.all]
    if silent:
        console.print(f"  nothing arrived at {' and '.join(silent)}", style="bold red")
    else:
        show_first(console, arrivals, len(ledger.committed))
        await _write_at_once(writers, console)
        await _all_arrived(ledger, arrivals)
    tallies = [tally(ledger, each) for each in arrivals]
    show_summary(console, ledger, tallies)
    if options.output is Output.JSON:
        typer.echo(json.dumps(as_json(ledger, tallies), indent=2))
    return ExitCode.OK if all(each.sound for each in tallies) else ExitCode.UNEXPECTED


async def _write_at_once(writers: Writers, console: Console) -> None:
    console.print("[bold]5.[/] Four clients write at once; some transactions are rolled back:")
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("  transactions", total=TRANSACTIONS)
        await writers.run(lambda: bar.advance(task))


async def _all_arrived(ledger: Ledger, arrivals: Sequence[Arrivals]) -> None:
    """Until each sink has every change and then nothing more comes, or it takes too long."""
    deadline = time.monotonic() + ARRIVAL_SECONDS
    for each in arrivals:
        while ledger.committed.keys() - each.changes:
            if not await _news(each, deadline - time.monotonic()):
                return
    # What must not come at all, or comes twice, would come now.
    for each in arrivals:
        while await _news(each, QUIET_SECONDS):
            pass


async def _news(arrivals: Arrivals, seconds: float) -> bool:
    """Whether something arrives within `seconds`."""
    arrivals.news.clear()
    try:
        async with asyncio.timeout(max(seconds, 0.0)):
            await arrivals.news.wait()
    except TimeoutError:
        return False
    return True


async def _stay(stage: Stage, console: Console, arrivals: Sequence[Arrivals]) -> None:
    """Prints what arrives until Ctrl-C."""
    console.print("\n  All of it goes on running. Ctrl-C ends it. In another terminal:")
    statement = "INSERT INTO orders (customer, total) VALUES ('ada', 9.99)"
    # No --dsn: TABLEWATCHER_DSN of that terminal would lead to another database.
    where = f"-f {stage.directory / 'manifests'} --secrets-dir {stage.directory / 'secrets'} --dsn ''"
    for text in (
        f'psql "{stage.dsn}" -c "{statement}"',
        *(f"{_program()} {command} {where}" for command in ("status", "doctor", "replay --since 1m")),
        f"nats --server {stage.nats.url} subscribe '{SUBJECTS[0]}'",
        f"curl -s '{stage.nats.monitor_url}/jsz?streams=true'",
    ):
        console.print(f"    {text}", markup=False, soft_wrap=True)
    shown = {each.sink: len(each.all) for each in arrivals}
    while True:
        for each in arrivals:
            for arrival in each.all[shown[each.sink] :]:
                console.print(line(each.sink, arrival))
            shown[each.sink] = len(each.all)
        await asyncio.sleep(POLL_SECONDS)


def _program() -> str:
    """What to type in another terminal, whose directory may be another, to run this program."""
    return shlex.quote(str(Path(sys.argv[0]).absolute()))
