"""The command `listen`, by itself: a listener runs for months and carries only what it uses (decision 0014)."""

from __future__ import annotations

import typer

from ..absent import absent

with absent("rich"):
    # Where it is there, structlog loads it to colour tracebacks: 4 MB.
    import structlog  # noqa: F401

from ..errors import TableWatcherError
from ..listener.service import Options, serve
from ..naming import LOCAL_INSTANCE
from ..postgres.dsn import checked
from ..sinks.address import AddressPolicy, Places
from .logs import configure_logs
from .options import Allow, Deny, Dsn, Files, Host, Instance, Port, PublicOnly, SecretsDir
from .results import Output, Result, finish

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.callback()
def _commands() -> None:
    """Without this a program of one command takes no name of it."""


@app.command()
def listen(
    files: Files,
    dsn: Dsn = None,
    secrets_dir: SecretsDir = None,
    instance: Instance = LOCAL_INSTANCE,
    http_port: Port = 8080,
    http_host: Host = "127.0.0.1",
    public_only: PublicOnly = False,
    allow: Allow = None,
    deny: Deny = None,
) -> None:
    """Forward captured changes until stopped. Manifests are read again when they change."""
    addresses = address_policy(public_only, allow, deny)
    run_listener(Options(tuple(files), dsn, secrets_dir, instance, http_host, http_port, addresses))


def address_policy(public_only: bool, allow: list[str] | None, deny: list[str] | None) -> AddressPolicy:
    """What the options say. Raises typer.BadParameter."""
    places = []
    for option, texts in (("--http-allow", allow), ("--http-deny", deny)):
        try:
            places.append(Places.of(texts or ()))
        except ValueError as error:
            raise typer.BadParameter(str(error), param_hint=option) from None
    return AddressPolicy(not public_only, *places)


def run_listener(options: Options) -> None:
    """Until it is told to stop; where it cannot start, ends the command with the fault's exit code."""
    configure_logs()
    try:
        if options.dsn:
            checked(options.dsn)
        serve(options)
    except TableWatcherError as error:
        finish([Result.failed("listen", error)], Output.TEXT)
