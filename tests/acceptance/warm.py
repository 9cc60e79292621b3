"""Commands of `tablewatcher` without the time that Python takes to load it, most of what a command takes: forked from a
process that has loaded it already, `warmed.py`. Each is a process of its own, and runs the program's own script."""

from __future__ import annotations

import atexit
import os
import pickle
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path

WARMED = Path(__file__).with_name("warmed.py")
END_SECONDS = 10.0
_PACKET = 64
# What Python heeds at its start alone.
_HEEDED_AT_START = ("PYTHON", "LC_", "LANG")


class Warmed:
    """A process that has loaded the command line. It ends with us, or when it is closed."""

    def __init__(self) -> None:
        self._requests, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.environment = os.environ | {"PYTHONFAULTHANDLER": "1"}
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", WARMED, str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                env=self.environment,
                pass_fds=[theirs.fileno()],
            )

    def start(
        self, words: list[str], environment: dict[str, str], files: Sequence[int], *, tethered: bool
    ) -> WarmProcess:
        """files: what its standard input, output and error shall be. tethered: it ends with us, however we do."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            packet = pickle.dumps((words, environment, os.getcwd(), tethered))
            socket.send_fds(self._requests, [packet], [*files, theirs.fileno()])
        return WarmProcess(words, ours)

    def close(self) -> None:
        self._requests.close()
        try:
            self._process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


class WarmProcess:
    """A command. What it has of subprocess.Popen does as there."""

    def __init__(self, args: list[str], report: socket.socket) -> None:
        self.args, self._report = args, report
        self.returncode: int | None = None
        self.pid = int(self._said())

    def poll(self) -> int | None:
        if self.returncode is None and select.select([self._report], [], [], 0)[0]:
            self.returncode = os.waitstatus_to_exitcode(int(self._said()))
            self._report.close()
        return self.returncode

    def wait(self, timeout: float) -> int:
        if self.returncode is None:
            select.select([self._report], [], [], timeout)
        code = self.poll()
        if code is None:
            raise subprocess.TimeoutExpired(self.args, timeout)
        return code

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def _said(self) -> bytes:
        said = self._report.recv(_PACKET)
        assert said, f"{WARMED.name} has ended, or could not begin"
        return said


@cache
def warmed() -> Warmed:
    """The one of this process, which is started when it is first asked for."""
    found = Warmed()
    atexit.register(found.close)
    return found


def can_be_warm(environment: dict[str, str]) -> bool:
    """Whether Python, begun with this environment, would begin as it has there."""
    return sys.platform == "linux" and _heeded(environment) == _heeded(warmed().environment)


def _heeded(environment: dict[str, str]) -> dict[str, str]:
    return {name: text for name, text in environment.items() if name.startswith(_HEEDED_AT_START)}
