"""A request that is waited for, as a bar on standard error."""

from __future__ import annotations

import contextlib
from types import TracebackType

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn

from ..postgres.requests import Request
from .plain import plain
from .progress import screen

# A listener may just be starting, or handing over to another.
_PATIENCE = 10
_NOBODY = "no listener of this watcher is active"


class Watching:
    """Shows how far a request is. quiet: without a bar; wait: also where nobody does it now."""

    def __init__(self, name: str, *, quiet: bool, wait: bool) -> None:
        console = screen()
        columns = (TextColumn(name, markup=False), BarColumn(), MofNCompleteColumn())
        hidden = quiet or not console.is_terminal
        self._bar = Progress(*columns, console=console, transient=True, disable=hidden)
        self._wait = wait
        self._told = ""
        self._idle = 0
        self._task: TaskID | None = None
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Watching:
        self._stack.enter_context(self._bar)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def progress(self, asked: Request, active: bool) -> bool:
        """Shows it; whether to go on waiting: not for what an endpoint refuses by itself."""
        if asked.is_sent:
            return False
        # What an open request says is what it waits for.
        obstacle = (asked.message if active else _NOBODY) if asked.is_open else ""
        self._idle = self._idle + 1 if obstacle else 0
        if self._idle > _PATIENCE and not self._wait:
            return False
        if self._idle > _PATIENCE and self._told != obstacle:
            self._told = obstacle
            # On standard error, also where the answer is JSON: else a script seems to hang.
            screen().print(f"{plain(obstacle)}; waiting (Ctrl-C leaves the request)", markup=False, soft_wrap=True)
        if self._task is None and asked.total:
            self._task = self._bar.add_task("", total=asked.total)
        if self._task is not None:
            self._bar.update(self._task, completed=min(asked.done, asked.total), total=asked.total)
        return True
