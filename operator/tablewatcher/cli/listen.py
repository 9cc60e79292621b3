"""The command `listen`, which makes way for the listener: what reads options would stay in memory (decision 0014)."""

from __future__ import annotations

import os
import pickle
import signal
import sys
import tempfile
from typing import IO, NoReturn

import typer

from ..listener.options import Options
from ..listener.stopping import stopping
from ..naming import LOCAL_INSTANCE
from ..sinks.address import AddressPolicy, Places
from .options import Allow, Deny, Dsn, Files, Host, Instance, Port, PublicOnly, SecretsDir
from .usage import Commands

LISTENER = f"{__package__}.listening"

app = typer.Typer(cls=Commands, add_completion=False, pretty_exceptions_enable=False)


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
    become_listener(Options(tuple(files), dsn, secrets_dir, instance, http_host, http_port, addresses))


def address_policy(public_only: bool, allow: list[str] | None, deny: list[str] | None) -> AddressPolicy:
    """What the options say. Raises typer.BadParameter."""
    places = []
    for option, texts in (("--http-allow", allow), ("--http-deny", deny)):
        try:
            places.append(Places.of(texts or ()))
        except ValueError as error:
            raise typer.BadParameter(str(error), param_hint=option) from None
    return AddressPolicy(not public_only, *places)


def become_listener(options: Options) -> NoReturn:
    """Puts the listener in the place of this process, under the same process id."""
    # Not as arguments: a connection string of the environment would show in the list of processes.
    with _unnamed_file() as file:
        file.write(pickle.dumps(options))
        file.seek(0)
        os.set_inheritable(file.fileno(), True)
        sys.stdout.flush()
        sys.stderr.flush()
        # What tells us to end in the next moments is kept until the listener can hear it.
        signal.pthread_sigmask(signal.SIG_BLOCK, stopping())
        # -P: else a json.py of the directory we were started in would be run. What was asked for follows, for whoever
        # looks at the list of processes.
        os.execv(  # noqa: S606 - our own interpreter
            sys.executable, [sys.executable, "-P", "-m", LISTENER, str(file.fileno()), *sys.argv[1:]]
        )


def _unnamed_file() -> IO[bytes]:
    """In memory where the system has such files: a container's root is read-only."""
    if hasattr(os, "memfd_create"):
        return os.fdopen(os.memfd_create("tablewatcher"), "w+b", buffering=0)
    return tempfile.TemporaryFile(buffering=0)
