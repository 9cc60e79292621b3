"""A command that is started warm is what it is when it is started cold: its answer, its exit code, its end."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from tablewatcher.embedded.process import wait_gone

from ..acceptance.programs import PROGRAM, started
from ..acceptance.warm import can_be_warm, warmed

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="commands are started warm on Linux only")
EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.mark.parametrize(
    "words",
    [
        ("validate", "-f", EXAMPLES),
        ("validate", "-f", "nowhere"),
        ("aply",),
        ("--help",),
    ],
)
async def test_it_answers_as_a_cold_one(words: tuple[object, ...]) -> None:
    answers = []
    for warm in (False, True):
        with started(PROGRAM, *words, warm=warm) as program:
            answers.append((await program.ended(60), program.out, program.err))
            assert program.code == answers[-1][0]
    assert answers[0] == answers[1]
    assert "".join(answers[0][1:])


async def test_it_has_the_directory_and_the_environment_of_now(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    warmed()
    monkeypatch.chdir(tmp_path)
    shutil.copy(EXAMPLES / "nats.yaml", tmp_path / "here.yaml")
    with started(PROGRAM, "validate", "-f", "here.yaml", warm=True) as program:
        assert await program.ended(60) == 0, program.err
    for dsn, named in (("nonsense", "connection"), ("", "shop/orders")):
        with started(PROGRAM, "status", "-f", "here.yaml", warm=True, TABLEWATCHER_DSN=dsn) as program:
            await program.ended(60)
            assert named in program.out


async def test_a_signal_is_its_end(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "never.yaml")
    with started(PROGRAM, "validate", "-f", tmp_path / "never.yaml", warm=True) as program:
        assert program.pid != os.getpid()
        with pytest.raises(AssertionError, match="it did not end"):
            await program.ended(0.1)
        assert program.code == -signal.SIGABRT
    with started(PROGRAM, "validate", "-f", tmp_path / "never.yaml", warm=True) as program:
        assert program.code is None
    assert program.code == -signal.SIGKILL


OWNER = f"""
import sys, time
sys.path.insert(0, {str(Path(__file__).parents[2])!r})
from tests.acceptance.programs import PROGRAM, Program
print(Program(PROGRAM, "validate", "-f", sys.argv[1], tethered=True, warm=True).pid, flush=True)
time.sleep(600)
"""


async def test_it_ends_with_whoever_has_started_it(tmp_path: Path, eventually: Callable[..., Awaitable[Any]]) -> None:
    os.mkfifo(tmp_path / "never.yaml")
    with started(sys.executable, "-c", OWNER, tmp_path / "never.yaml") as owner:
        await eventually(lambda: owner.out.endswith("\n"), 60)
        pid = int(owner.out)
        assert not wait_gone([pid], 0)
        owner.send(signal.SIGKILL)
    assert wait_gone([pid], 10)


def test_what_python_heeds_at_its_start_is_heeded() -> None:
    environment = dict(warmed().environment)
    assert can_be_warm(environment | {"TABLEWATCHER_DSN": "postgresql://"})
    assert not can_be_warm(environment | {"PYTHONIOENCODING": "ascii"})
    assert not can_be_warm(environment | {"LC_ALL": "C"})
