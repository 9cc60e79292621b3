"""The command line. Commands are thin: they read files, call the same functions as the operator, and print.

Next to nothing is imported here: until `main` runs, Ctrl-C is answered with a traceback by Python itself.
"""

from __future__ import annotations

import errno
import io
import sys

__all__ = ["main"]

_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO})
_UNEXPECTED, _INTERRUPTED = 1, 130  # of exit_codes, which is not loaded yet when Ctrl-C may come


def main() -> None:
    """The console script."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # not where it was closed before we began
            # A name that the terminal's encoding has no letters for is no fault of ours to end with.
            stream.reconfigure(errors="backslashreplace")
    try:
        _commands()
    except KeyboardInterrupt:
        sys.exit(_INTERRUPTED)
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise
        sys.stderr.write(f"error: what came of it could not be written: {error.strerror}\n")
        sys.exit(_UNEXPECTED)


def _commands() -> None:
    import gc
    import logging

    # A command loads, answers and ends, or makes way for the listener, which begins anew: to look for garbage meanwhile
    # is a tenth of what it takes.
    gc.set_threshold(200_000)
    if logging.lastResort is not None:
        # What libraries warn of among themselves (a TLS connection that ends) is no answer to a command.
        logging.lastResort.setLevel(logging.ERROR)
    # A listener is loaded alone: what the other commands need would stay in its memory for as long as it runs.
    if sys.argv[1:2] == ["listen"]:
        from .listen import app
    else:
        from .app import app
        from .usage import keep_only

        # What typer makes of the options of all commands takes longer than many a command.
        keep_only(app, sys.argv[1:])
    app()
