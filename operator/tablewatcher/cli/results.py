"""What commands found, printed for people or as JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import typer

from ..errors import Reason, SpecInvalid, TableWatcherError
from .exit_codes import ExitCode, exit_code
from .plain import plain

if TYPE_CHECKING:
    from rich.text import Text


class Output(StrEnum):
    """How to print."""

    TEXT = "text"
    JSON = "json"


@dataclass(slots=True)
class Result:
    """What came of one watcher (or of one file that could not be read)."""

    name: str
    ok: bool
    text: str
    reason: Reason | None = None
    extra: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def failed(cls, name: str, error: TableWatcherError) -> Result:
        """The result of a fault."""
        extra = {}
        if isinstance(error, SpecInvalid):
            extra["errors"] = [{"path": found.path, "message": found.message} for found in error.errors]
        return cls(name, ok=False, text=error.message, reason=error.reason, extra=extra)

    def as_json(self) -> dict[str, Any]:
        """The same for programs."""
        found: dict[str, Any] = {"watcher": self.name, "ok": self.ok}
        if self.reason is not None:
            found |= {"reason": str(self.reason), "message": self.text}
        return found | self.extra


def show(results: Iterable[Result], *, aside: bool = False) -> None:
    """Prints the results for people, faults to standard error; `aside`: the rest too, since standard output is for
    something else."""
    # Here, since a listener knows results too, and shows none but the one it ends with.
    from rich.console import Console
    from rich.text import Text

    bad = Console(stderr=True, highlight=False, soft_wrap=True)
    good = bad if aside else Console(highlight=False, soft_wrap=True)
    for result in results:
        if result.ok:
            good.print(Text.assemble((plain(result.name), "bold"), ": ", plain(result.text)))
        else:
            bad.print(fault_line(result.name, str(result.reason), result.text))


def fault_line(name: str, reason: str, message: str) -> Text:
    """A fault of a watcher, or of a file, for people."""
    from rich.text import Text

    text = plain(message.removeprefix(f"{name}: "))
    return Text.assemble(("error", "bold red"), f" {reason}: ", (plain(name), "bold"), f": {text}")


def tell(results: Sequence[Result], output: Output, *, display: Callable[[Sequence[Result]], None] = show) -> None:
    """Prints the results, with `display` for people."""
    if output is Output.JSON:
        typer.echo(json.dumps([result.as_json() for result in results], indent=2))
    else:
        display(results)


def finish(results: Iterable[Result], output: Output, *, display: Callable[[Sequence[Result]], None] = show) -> None:
    """Prints the results, as `tell`, and ends the command: with the code of the first fault, or 0."""
    found = list(results)
    tell(found, output, display=display)
    faults = [result for result in found if not result.ok]
    if faults:
        raise typer.Exit(exit_code(faults[0].reason) if faults[0].reason else ExitCode.UNEXPECTED)
