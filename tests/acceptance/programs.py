"""Programs that a test runs beside itself. None outlives its test; one that does not end when it should is killed, and
the test fails with what the program has written and where each of its threads stood."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import IO, Any

from .warm import WarmProcess, can_be_warm, warmed

PROGRAM = Path(sys.executable).with_name("tablewatcher")
END_SECONDS = 30.0
_ABORT_SECONDS = 5.0
_SHOWN = 4000
# Makes the kernel end a program with us, and becomes it.
_TETHER = """
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
if os.getppid() != int(sys.argv[1]):
    sys.exit("its owner is gone")
os.execvp(sys.argv[2], sys.argv[2:])
"""

Output = IO[bytes] | int | None


class Program:
    """`command`, running, until `close` at the latest. `environment` goes over ours, which loses its TABLEWATCHER_*.

    stdout and stderr: a file opened to be read too, or a terminal, for what it writes; else one that goes with it.
    tethered: on Linux it ends with us however we do, as when somebody kills the tests.
    warm: it is `tablewatcher`, and need not begin with a Python that has loaded nothing.
    """

    def __init__(
        self,
        *command: object,
        stdout: Output = None,
        stderr: Output = None,
        tethered: bool = False,
        warm: bool = False,
        **environment: str,
    ) -> None:
        inherited = {name: text for name, text in os.environ.items() if not name.startswith("TABLEWATCHER_")}
        # With PYTHONFAULTHANDLER, SIGABRT makes Python write the stack of each of its threads.
        environment = inherited | {"PYTHONFAULTHANDLER": "1"} | environment
        words = list(map(str, command))
        with ExitStack() as files:
            self._outputs = [
                files.enter_context(tempfile.TemporaryFile()) if output is None else output
                for output in (stdout, stderr)
            ]
            start = _warm if warm and can_be_warm(environment) else _cold
            self._process = start(words, self._outputs, environment, tethered=tethered and sys.platform == "linux")
            self._files = files.pop_all()
        # Once it is closed.
        self._written: tuple[str, str] | None = None

    @property
    def out(self) -> str:
        """What it has written to standard output so far."""
        return self._written[0] if self._written else _text(self._outputs[0])

    @property
    def err(self) -> str:
        """The same of standard error."""
        return self._written[1] if self._written else _text(self._outputs[1])

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def code(self) -> int | None:
        """Its exit code, None while it runs."""
        return self._process.poll()

    def send(self, number: signal.Signals) -> None:
        """Sends it a signal."""
        self._process.send_signal(number)

    async def end(self, number: signal.Signals) -> int:
        """Sends it a signal that should end it; its exit code, and AssertionError as in `ended`."""
        self.send(number)
        return await self.ended(END_SECONDS, f" of {number.name}")

    async def ended(self, seconds: float, since: str = "") -> int:
        """Its exit code, once it has ended; AssertionError after `seconds`."""
        if not await self._is_gone(seconds):
            self.send(signal.SIGABRT)
            await self._is_gone(_ABORT_SECONDS)
            command = " ".join(map(str, self._process.args))
            raise AssertionError(f"it did not end within {seconds:g} s{since}: {command}\n{self.tail()}")
        code = self.code
        assert code is not None
        return code

    def tail(self) -> str:
        """The end of what it has written."""
        return "\n".join(text[-_SHOWN:] for text in dict.fromkeys((self.out, self.err)))

    def close(self) -> None:
        """It is gone, whatever it was doing."""
        self._process.kill()
        self._process.wait(END_SECONDS)
        self._written = self.out, self.err
        self._files.close()

    async def _is_gone(self, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while self.code is None:
            if time.monotonic() > deadline:
                return False
            await asyncio.sleep(0.01)
        return True


def _cold(
    words: list[str], outputs: Sequence[IO[bytes] | int], environment: dict[str, str], *, tethered: bool
) -> subprocess.Popen[bytes] | WarmProcess:
    stdout, stderr = outputs
    if tethered:
        words = [sys.executable, "-I", "-S", "-c", _TETHER, str(os.getpid()), *words]
    return subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr, env=environment)


def _warm(
    words: list[str], outputs: Sequence[IO[bytes] | int], environment: dict[str, str], *, tethered: bool
) -> subprocess.Popen[bytes] | WarmProcess:
    with Path(os.devnull).open("rb") as nothing:
        files = [file if isinstance(file, int) else file.fileno() for file in (nothing, *outputs)]
        return warmed().start(words, environment, files, tethered=tethered)


def _text(output: IO[bytes] | int) -> str:
    if isinstance(output, int):
        return ""  # a terminal, which has it
    # Not by seek and read: the program goes on where this file stands.
    return os.pread(output.fileno(), os.fstat(output.fileno()).st_size, 0).decode(errors="replace")


@contextmanager
def started(*command: object, **settings: Any) -> Iterator[Program]:
    """A Program, gone afterwards. Where the test fails meanwhile, what it has written is shown."""
    program = Program(*command, **settings)
    try:
        yield program
    except BaseException:
        print(program.tail())
        raise
    finally:
        program.close()


@asynccontextmanager
async def running(
    *command: object, ended_by: signal.Signals = signal.SIGTERM, **settings: Any
) -> AsyncIterator[Program]:
    """A Program that runs until the end of the block, where a signal ends it: by SIGTERM, with exit code 0. It must not
    have met a fault that it did not foresee."""
    with started(*command, tethered=True, **settings) as program:
        yield program
        assert program.code is None, f"it has ended by itself, with {program.code}"
        code, wanted = await program.end(ended_by), 0 if ended_by is signal.SIGTERM else -ended_by
        assert code == wanted, f"it ended with {code} instead of {wanted}"
        assert "Traceback" not in program.out + program.err, "it has met a fault that it did not foresee"
