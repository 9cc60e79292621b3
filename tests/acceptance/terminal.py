"""A terminal that a program writes to: all that it has shown, and what is on it in the end."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import pty
import re
import struct
import termios
from collections.abc import Iterator
from contextlib import contextmanager

from ..conftest import poll


class Terminal:
    """As far as tests need one. keyboard: the end for a program; raw: what it has written there so far."""

    def __init__(self, columns: int) -> None:
        self._screen, self.keyboard = pty.openpty()
        fcntl.ioctl(self._screen, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        self._ends = [self._screen, self.keyboard]
        self._has_more = True
        self.raw = b""
        asyncio.get_running_loop().add_reader(self._screen, self._read)

    @property
    def text(self) -> str:
        return self.raw.decode(errors="replace")

    async def finished(self) -> str:
        """All that was written to it, once its programs have ended. It takes no others."""
        os.close(self._ends.pop())
        await poll(lambda: not self._has_more, 40)
        return self.text

    def lines(self) -> tuple[list[str], list[str]]:
        """The lines that are there, and every state of the last one on the way."""
        lines, states = [""], []
        text = re.sub(r"\x1b\[[0-9;]*m", "", self.text)
        for token in re.findall(r"\r\n|\r\x1b\[K|[^\r\n]+|.", text, re.DOTALL):
            if token == "\r\n":
                lines.append("")
            elif token == "\r\x1b[K":
                lines[-1] = ""
            else:
                lines[-1] += token
                states.append(lines[-1])
        return lines, states

    def frames(self) -> list[list[str]]:
        """Every state of the screen, as lines without what is empty at the end: of programs that move up to redraw."""
        text = re.sub(r"\x1b\[(?:[0-9;]*m|\?[0-9]+[hl])", "", self.text)
        lines, row, frames = [""], 0, list[list[str]]()
        for token in re.findall(r"\x1b\[\d*[AK]|[\r\n]|[^\r\n\x1b]+", text):
            if token == "\n":
                row += 1
                lines += [""] * (row + 1 - len(lines))
            elif token.endswith("A"):
                row -= int(token[2:-1])
            elif token.endswith("K"):
                lines[row] = ""
            elif token != "\r":
                lines[row] += token
                frames.append([line.rstrip() for line in lines if line])
        return frames

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self._screen)
        for end in self._ends:
            os.close(end)

    def _read(self) -> None:
        piece = b""
        with contextlib.suppress(OSError):  # how Linux says that nobody writes to it any more
            piece = os.read(self._screen, 65536)
        self.raw += piece
        if not piece:
            self._has_more = False
            asyncio.get_running_loop().remove_reader(self._screen)


@contextmanager
def terminal(columns: int) -> Iterator[Terminal]:
    """A Terminal of so many columns, inside of a running event loop."""
    made = Terminal(columns)
    try:
        yield made
    finally:
        made.close()
