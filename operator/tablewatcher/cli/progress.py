"""How far a command is, where a person watches: on standard error, so that standard output holds results only."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn


@cache
def screen() -> Console:
    """Where a person watches. One for all bars of a command: two would each draw over the other's line."""
    return Console(stderr=True, highlight=False)


@contextmanager
def progress(total: int) -> Iterator[Callable[[str], None]]:
    """Gives a function to call at the beginning of each of `total` pieces of work, with its name.

    Shows nothing where standard error is no terminal, and nothing stays on the screen afterwards.
    """
    console = screen()
    name, passed = TextColumn("{task.description}", markup=False), TimeElapsedColumn()
    columns = (SpinnerColumn(), name, BarColumn(), MofNCompleteColumn(), passed)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=total)
        begun = 0

        def begin(name: str) -> None:
            nonlocal begun
            bar.update(task, description=name, completed=begun)
            begun += 1

        yield begin
