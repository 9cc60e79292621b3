"""The command line. Commands are thin: they read files, call the same functions as the operator, and print."""

from __future__ import annotations

import sys

__all__ = ["main"]


def main() -> None:
    """The console script."""
    # A listener is loaded alone: what the other commands need would stay in its memory for as long as it runs.
    if sys.argv[1:2] == ["listen"]:
        from .listen import app
    else:
        from .app import app
    app()
