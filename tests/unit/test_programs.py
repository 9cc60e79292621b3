"""A program that does not end when it should: a test fails with what it was doing, and leaves nothing."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from tablewatcher.embedded.process import wait_gone

from ..acceptance.programs import Program, running, started

DEAF = """
import signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
def waits_for_ever():
    print("deaf", file=sys.stderr, flush=True)
    time.sleep(600)
waits_for_ever()
"""


def is_gone(program: Program) -> bool:
    try:
        os.kill(program.pid, 0)
    except ProcessLookupError:
        return True
    return False


async def test_what_does_not_end_is_killed_and_shows_where_it_stood(eventually: Callable[..., Awaitable[Any]]) -> None:
    with started(sys.executable, "-c", DEAF) as program:
        await eventually(lambda: "deaf" in program.err)
        program.send(signal.SIGTERM)
        with pytest.raises(AssertionError) as caught:
            await program.ended(0.2)
        assert is_gone(program)
    for said in ("it did not end within 0.2 s", sys.executable, "deaf", "in waits_for_ever"):
        assert said in str(caught.value)


async def test_what_is_stopped_is_killed_all_the_same(eventually: Callable[..., Awaitable[Any]]) -> None:
    with started(sys.executable, "-c", DEAF) as program:
        await eventually(lambda: "deaf" in program.err)
        program.send(signal.SIGSTOP)
    assert is_gone(program)


async def test_a_test_that_fails_leaves_no_program_and_shows_what_it_wrote(
    eventually: Callable[..., Awaitable[Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    kept: list[Program] = []

    async def fails() -> None:
        async with running(sys.executable, "-c", DEAF) as program:
            kept.append(program)
            await eventually(lambda: "deaf" in program.err)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fails()
    assert is_gone(kept[0])
    assert "deaf" in capsys.readouterr().out


OWNER = f"""
import sys, time
sys.path.insert(0, {str(Path(__file__).parents[2])!r})
from tests.acceptance.programs import Program
program = Program(sys.executable, "-c", "import time; print(1, flush=True); time.sleep(600)", tethered=True)
while not program.out:
    time.sleep(0.01)
print(program.pid, flush=True)
time.sleep(600)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="a program ends with the one that has started it on Linux only")
async def test_what_is_tethered_ends_with_whoever_has_started_it(eventually: Callable[..., Awaitable[Any]]) -> None:
    with started(sys.executable, "-c", OWNER) as owner:
        await eventually(lambda: owner.out.endswith("\n"))
        pid = int(owner.out)
        assert not wait_gone([pid], 0)
        owner.send(signal.SIGKILL)
    assert wait_gone([pid], 10)


# Not signal.pause(): a signal that comes right before it would be slept over.
ENDS_WITH = """
import signal, time
signal.signal(signal.SIGTERM, lambda *_: exit({}))
print('{}', flush=True)
while True:
    time.sleep(0.02)
"""


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("pass", "it has ended by itself, with 0"),
        (ENDS_WITH.format(3, "here"), "it ended with 3 instead of 0"),
        (ENDS_WITH.format(0, "Traceback"), "a fault that it did not foresee"),
    ],
    ids=["early", "exit-code", "unforeseen"],
)
async def test_what_runs_must_end_well(code: str, said: str, eventually: Callable[..., Awaitable[Any]]) -> None:
    async def runs() -> None:
        async with running(sys.executable, "-c", code) as program:
            await eventually(lambda: program.out or program.code is not None)

    with pytest.raises(AssertionError, match=said):
        await runs()
