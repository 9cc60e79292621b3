"""Commands and their options.

What a command needs is imported where it runs. `--help` and mistakes in the options need none of it, and the driver of
the database and the checks of manifests take as long to load as all the rest.
"""

from __future__ import annotations

import asyncio
import json
import sys
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from .. import __version__
from ..listener.options import Options
from ..naming import LOCAL_INSTANCE
from .listen import address_policy, become_listener, listen
from .options import (
    Adopt,
    Allow,
    Deny,
    Dsn,
    Files,
    Host,
    Instance,
    OutputOption,
    Port,
    PublicOnly,
    SecretsDir,
    place,
)
from .plain import plain
from .requests import parked, replay
from .results import Output, finish, show, tell
from .usage import Commands


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(__version__)
        raise typer.Exit


app = typer.Typer(
    name="tablewatcher",
    cls=Commands,
    help="Forward committed changes of Postgres tables to NATS or HTTP: at least once, in order per row.",
    epilog="First steps: validate, plan, apply, listen. When something is wrong: doctor. Without a database: demo.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.callback()
def _program(
    version: Annotated[bool, typer.Option("--version", callback=_print_version, help="Print the version.")] = False,
) -> None:
    """What stands before a command."""


@app.command()
def validate(
    files: Files,
    dsn: Dsn = None,
    secrets_dir: SecretsDir = None,
    instance: Instance = LOCAL_INSTANCE,
    output: OutputOption = Output.TEXT,
) -> None:
    """Check manifests, offline: every mistake at once. What the options of `apply` name is not looked at."""
    from .watchers import validate

    finish(validate(files), output)


@app.command()
def plan(
    files: Files,
    dsn: Dsn = None,
    secrets_dir: SecretsDir = None,
    instance: Instance = LOCAL_INSTANCE,
    adopt: Adopt = None,
    public_only: PublicOnly = False,
    allow: Allow = None,
    deny: Deny = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """Check manifests against the live database and sink, and print the SQL that `apply` would run."""
    from . import planning
    from .watchers import Scope

    addresses = address_policy(public_only, allow, deny)
    results = asyncio.run(planning.plan(Scope(tuple(files), dsn, secrets_dir, instance, adopt, addresses)))
    finish(results, output, display=planning.show_plan)


@app.command()
def apply(
    files: Files,
    dsn: Dsn = None,
    secrets_dir: SecretsDir = None,
    instance: Instance = LOCAL_INSTANCE,
    adopt: Adopt = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """Install or repair capture in the database. Does nothing where all is as it should be."""
    from . import watchers

    finish(asyncio.run(watchers.apply(watchers.Scope(tuple(files), dsn, secrets_dir, instance, adopt))), output)


@app.command()
def doctor(
    files: Files,
    dsn: Dsn = None,
    secrets_dir: SecretsDir = None,
    instance: Instance = LOCAL_INSTANCE,
    public_only: PublicOnly = False,
    allow: Allow = None,
    deny: Deny = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """Check everything about each watcher, line by line, and say what to do. Changes nothing."""
    from . import doctor
    from .watchers import Scope

    addresses = address_policy(public_only, allow, deny)
    results = asyncio.run(doctor.doctor(Scope(tuple(files), dsn, secrets_dir, instance, addresses=addresses)))
    finish(results, output, display=doctor.show_checks)


@app.command()
def status(
    files: Files,
    dsn: Dsn = None,
    secrets_dir: SecretsDir = None,
    instance: Instance = LOCAL_INSTANCE,
    output: OutputOption = Output.TEXT,
) -> None:
    """Show how each watcher stands: state, events that wait, the ring, parked events. Needs no listener."""
    from . import status
    from .watchers import Scope

    results = asyncio.run(status.status(Scope(tuple(files), dsn, secrets_dir, instance)))
    finish(results, output, display=status.show_status)


@app.command()
def destroy(
    files: Files,
    dsn: Dsn = None,
    secrets_dir: SecretsDir = None,
    instance: Instance = LOCAL_INSTANCE,
    output: OutputOption = Output.TEXT,
) -> None:
    """Remove capture and the ring from the database (deletionPolicy Retain: the ring stays)."""
    from . import watchers

    finish(asyncio.run(watchers.destroy(watchers.Scope(tuple(files), dsn, secrets_dir, instance))), output)


app.command()(listen)


@app.command()
def run(
    files: Files,
    dsn: Dsn = None,
    secrets_dir: SecretsDir = None,
    instance: Instance = LOCAL_INSTANCE,
    http_port: Port = 8080,
    http_host: Host = "127.0.0.1",
    public_only: PublicOnly = False,
    allow: Allow = None,
    deny: Deny = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """`apply`, then `listen`: a watcher that cannot be applied waits and does not stop the others."""
    from . import watchers

    addresses = address_policy(public_only, allow, deny)
    results = asyncio.run(watchers.apply(watchers.Scope(tuple(files), dsn, secrets_dir, instance)))
    if any(result.ok for result in results):
        tell(results, output)
    else:
        finish(results, output)
    become_listener(Options(tuple(files), dsn, secrets_dir, instance, http_host, http_port, addresses))


@app.command()
def sql(
    files: Files,
    dsn: Dsn = None,
    secrets_dir: SecretsDir = None,
    instance: Instance = LOCAL_INSTANCE,
    adopt: Adopt = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """Print, as one script, what a DBA must run where nobody else may run DDL. Changes nothing.

    It asks the database, as the role that delivers: the script depends on the table, and on what is installed already.
    """
    from . import watchers

    script, results = asyncio.run(watchers.sql(watchers.Scope(tuple(files), dsn, secrets_dir, instance, adopt)))
    if output is Output.TEXT:
        # What goes elsewhere is to be run as it is.
        typer.echo(plain(script) if sys.stdout.isatty() else script, nl=False)
    finish(results, output, display=partial(show, aside=True))


app.command()(replay)
app.add_typer(parked, name="parked")


@app.command()
def demo(
    files: Annotated[
        list[Path] | None,
        typer.Option(
            "--file",
            "-f",
            help="Manifests and orders.sql to use in place of the ones that come along.",
            parser=place,
            metavar="PATH",
        ),
    ] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Go on running, to play by hand; Ctrl-C ends it.")] = False,
    output: OutputOption = Output.TEXT,
) -> None:
    """Start Postgres and NATS, forward real changes to NATS and HTTP, count what arrives. Needs only Python."""
    from .demo.command import DemoOptions, demo

    raise typer.Exit(demo(DemoOptions(tuple(files or ()), keep, output)))


@app.command()
def version(output: OutputOption = Output.TEXT) -> None:
    """Print the version."""
    typer.echo(json.dumps({"version": __version__}) if output is Output.JSON else __version__)
