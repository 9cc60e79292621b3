"""The last line of a terminal, which is rewritten while other lines scroll by above it."""

from __future__ import annotations

import os
import sys
import threading
from typing import TextIO

# Of what a terminal understands: to the left edge, and all right of it gone.
_ERASE = "\r\x1b[K"


class Screen:
    """Stands in the place of a stream that leads to a terminal, and keeps one line below all that is written there."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._lock = threading.Lock()
        self._shown = ""
        self._within_line = False

    def write(self, text: str) -> int:
        """As the stream does. The kept line makes way and comes back when it is shown next."""
        with self._lock:
            if self._shown:
                self._stream.write(_ERASE)
                self._shown = ""
            if text:
                self._within_line = not text.endswith("\n")
            return self._stream.write(text)

    def show(self, line: str) -> None:
        """Puts `line` in place of the one before, cut to the terminal's width; "" takes it away."""
        with self._lock:
            if self._within_line:
                return
            line = line[: _columns(self._stream) - 1]  # one that is full would wrap, and the half of it stay
            if line != self._shown:
                self._stream.write(_ERASE + line)
                self._stream.flush()
                self._shown = line

    def __getattr__(self, name: str) -> object:
        return getattr(self._stream, name)


def screen() -> Screen | None:
    """Standard error, which is replaced by it; None where nobody watches, or a terminal cannot rewrite a line."""
    if not sys.stderr.isatty() or os.environ.get("TERM", "dumb") == "dumb":
        return None
    found = Screen(sys.stderr)
    sys.stderr = found  # whoever writes to it, the line makes way
    return found


def _columns(stream: TextIO) -> int:
    try:
        return os.get_terminal_size(stream.fileno()).columns or 80
    except OSError:
        return 80
