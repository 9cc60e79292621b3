"""Mistakes in the options: told to people by typer, and as JSON too where that was asked for."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import typer
from typer.core import TyperGroup

from ..errors import Reason
from .results import Output, Result, tell

_PASSWORD = re.compile(r"(://[^:@/\s]*:)\S*(?=@)|(password\s*=\s*)('[^']*'|\S+)")


class Commands(TyperGroup):
    """The commands of the program. Types are Any where typer keeps its own to itself."""

    def make_context(self, *given: Any, **more: Any) -> Any:  # noqa: ANN401
        """As typer's: here the options before a command are read."""
        with _as_json_too():
            return super().make_context(*given, **more)

    def invoke(self, ctx: Any) -> Any:  # noqa: ANN401
        """As typer's: here a command is found, its options are read, and it runs."""
        with _as_json_too():
            return super().invoke(ctx)


def keep_only(program: typer.Typer, words: Sequence[str]) -> None:
    """Where the first of `words` is a command of the program, takes the others from it."""
    commands = [each for each in program.registered_commands if each.callback and each.callback.__name__ in words[:1]]
    groups = [each for each in program.registered_groups if each.name in words[:1]]
    if commands or groups:
        program.registered_commands, program.registered_groups = commands, groups


@contextmanager
def _as_json_too() -> Iterator[None]:
    try:
        yield
    except typer.TyperException as error:
        told = [error.message.rstrip("."), bare_words(error, sys.argv[1:])]
        error.message = without_password(". ".join(filter(None, told)))
        if asks_for_json(sys.argv[1:]):
            fault = Result("options", ok=False, text=error.format_message(), reason=Reason.SPEC_INVALID)
            tell([fault], Output.JSON)
        raise


def bare_words(error: typer.TyperException, words: Sequence[str]) -> str:
    """What to write in place of a manifest that is named without its option; "" where none is.

    words: of the command line. An option that is missing is told before the words that are too many.
    """
    context: Any = getattr(error, "ctx", None)
    if context is None or not any("--file" in each.opts for each in context.command.params):
        return ""
    name, left = context.command_path, list(words)
    for command in name.split()[1:]:
        left = left[left.index(command) + 1 :]
    try:
        _, bare, _ = context.command.make_parser(context).parse_args(args=left)
    except typer.TyperException:
        return ""
    return f"A manifest, or a directory of them, is named by -f: `{name} -f FILE`" if bare else ""


def without_password(words: str) -> str:
    """The same with *** for what may be a password: a connection string can get to a wrong place of the line."""
    return _PASSWORD.sub(r"\1\2***", words)


def asks_for_json(words: Sequence[str]) -> bool:
    """Whether the last `--output` among the words is json: what typer made of them is lost with the mistake."""
    asked = ""
    for word, after in pairwise([*words, ""]):
        if word in ("-o", "--output"):
            asked = after
        elif word.startswith(("--output=", "-o")):
            asked = word.removeprefix("--output=").removeprefix("-o")
    return asked == Output.JSON
