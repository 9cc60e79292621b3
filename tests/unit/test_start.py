"""What a command costs is its start, mostly."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import typer

from tablewatcher.cli.usage import keep_only

EXAMPLE = Path(__file__).parents[2] / "examples" / "nats.yaml"
COUNTED = """
import atexit, gc, sys

collected = []
gc.callbacks.append(lambda phase, _: collected.append(phase))
atexit.register(lambda: print(collected.count("stop"), file=sys.stderr))
from tablewatcher.cli import main
main()
"""


@pytest.mark.parametrize("words", [("validate", "-f", EXAMPLE), ("listen", "--help")], ids=["validate", "listen"])
def test_a_command_looks_for_no_garbage_while_it_loads(words: tuple[str, ...]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", COUNTED, *words],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    # Python itself does so now and then before we are asked.
    assert int(done.stderr) < 20, "it was 130, and 66 for listen"


@pytest.mark.parametrize(
    ("words", "left"),
    [
        (["apply", "parked"], ["apply"]),
        (["parked", "list"], ["parked"]),
        # For its help, and for what is like a word that is no command.
        ([], ["apply", "status", "parked"]),
        (["--help"], ["apply", "status", "parked"]),
        (["aply", "status"], ["apply", "status", "parked"]),
    ],
)
def test_a_command_reads_the_options_of_no_other(words: list[str], left: list[str]) -> None:
    program = typer.Typer()

    @program.command()
    def apply() -> None: ...

    @program.command()
    def status() -> None: ...

    program.add_typer(typer.Typer(), name="parked")
    keep_only(program, words)
    commands = [each.callback.__name__ for each in program.registered_commands if each.callback]
    assert [*commands, *(each.name for each in program.registered_groups)] == left
