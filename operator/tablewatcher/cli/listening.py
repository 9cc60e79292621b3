"""The process of a listener: it runs for months and carries only what it uses (decision 0014)."""

from __future__ import annotations

import os
import pickle
import sys

from ..absent import absent

with absent("rich"):
    # Where it is there, structlog loads it to colour tracebacks: 4 MB.
    import structlog  # noqa: F401

from ..errors import TableWatcherError
from ..listener.options import Options
from ..listener.service import serve
from ..postgres.connection.dsn import checked
from .logs import configure_logs
from .screen import screen


def main() -> None:
    """Until it is told to stop; where it cannot start, ends with the fault's exit code."""
    with os.fdopen(int(sys.argv[1]), "rb") as file:
        options: Options = pickle.load(file)  # noqa: S301 - written by the command that this process was
    watched = screen()
    configure_logs()
    try:
        if options.dsn:
            checked(options.dsn)
        serve(options, watched.show if watched else None)
    except TableWatcherError as error:
        _fail(error)


def _fail(error: TableWatcherError) -> None:
    import typer

    from .results import Output, Result, finish

    try:
        finish([Result.failed("listen", error)], Output.TEXT)
    except typer.Exit as ended:
        sys.exit(ended.exit_code)


if __name__ == "__main__":
    main()
