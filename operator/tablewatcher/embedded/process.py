"""One server process of ours: started through the keeper, signalled, waited for."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from .installation import EmbeddedUnavailable

if TYPE_CHECKING:
    from .account import Account

_KEEPER = Path(__file__).with_name("keeper.py")
_TAIL_BYTES = 4000
_POLL_SECONDS = 0.01


class ServerProcess:
    """A running server; its output is appended to `log`. Ends with the process that created this object."""

    def __init__(
        self,
        command: Sequence[str | Path],
        *,
        log: Path,
        account: Account | None,
        orphan_signal: signal.Signals,
        cwd: Path,
        environment: Mapping[str, str],
    ) -> None:
        self._log = log
        self._log_start = log.stat().st_size if log.exists() else 0
        owner = ("-", "-") if account is None else (str(account.uid), str(account.gid))
        with log.open("ab") as output:
            self._keeper = subprocess.Popen(  # noqa: S603 - a program of the installed wheel
                [sys.executable, "-I", "-S", _KEEPER, *owner, str(orphan_signal.value), *command],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=output,
                cwd=cwd,
                env=dict(environment),
                # Ctrl-C in a terminal reaches us only: we stop the servers in order.
                start_new_session=True,
            )
        assert self._keeper.stdout is not None  # noqa: S101 - asked for above
        with self._keeper.stdout as report:
            line = report.readline()
        if not line:
            self._reap(10)
            raise EmbeddedUnavailable(f"{command[0]} did not start:\n{self.log_tail()}")
        self.pid = int(line)

    @property
    def running(self) -> bool:
        return self._keeper.poll() is None

    def signal(self, number: signal.Signals) -> None:
        """Signal the server itself; nothing happens when it is gone."""
        if self.running:
            send(self.pid, number)

    def wait(self, seconds: float) -> bool:
        """True when the server has ended within `seconds`."""
        return self._reap(seconds)

    def wait_ready(self, ready: Callable[[], bool], seconds: float) -> None:
        """Return once `ready()`; EmbeddedUnavailable with the log's tail when it ends or is too slow."""
        deadline = time.monotonic() + seconds
        while not ready():
            if not self.running:
                self._reap(0)
                raise EmbeddedUnavailable(f"the server ended while starting:\n{self.log_tail()}")
            if time.monotonic() > deadline:
                self.signal(signal.SIGKILL)
                self._reap(10)
                raise EmbeddedUnavailable(f"the server was not ready in {seconds:g} s:\n{self.log_tail()}")
            time.sleep(_POLL_SECONDS)

    def log_tail(self) -> str:
        """The last lines this run has written."""
        with self._log.open("rb") as log:
            log.seek(max(self._log_start, self._log.stat().st_size - _TAIL_BYTES))
            return log.read().decode(errors="replace").strip()

    def _reap(self, seconds: float) -> bool:
        try:
            self._keeper.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        if self._keeper.stdin is not None:
            self._keeper.stdin.close()
        return True


def send(pid: int, number: signal.Signals) -> None:
    """Signal `pid`, which may be gone already."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


def children(pid: int) -> tuple[int, ...]:
    """Process ids of the direct children of `pid`."""
    return tuple(child for child, parent, _ in _table() if parent == pid)


def wait_gone(pids: Sequence[int], seconds: float) -> bool:
    """True once none of `pids` lives. One that nobody has reaped yet counts as gone."""
    deadline = time.monotonic() + seconds
    while {pid for pid, _, state in _table() if state != "Z"} & set(pids):
        if time.monotonic() > deadline:
            return False
        time.sleep(_POLL_SECONDS)
    return True


def _table() -> list[tuple[int, int, str]]:
    """All processes as (process id, parent's id, state)."""
    if not Path("/proc/self/stat").exists():
        command = ["ps", "-A", "-o", "pid=,ppid=,stat="]
        listing = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603
        rows = (line.split() for line in listing.stdout.splitlines())
        return [(int(row[0]), int(row[1]), row[2][0]) for row in rows]
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal():
            continue
        try:
            text = (entry / "stat").read_text(errors="replace")
        except OSError:
            continue
        # The name in parentheses may hold spaces and parentheses: fields start after the last one.
        state, parent = text.rpartition(")")[2].split()[:2]
        found.append((int(entry.name), int(parent), state))
    return found
