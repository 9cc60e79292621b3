"""What a test's commands are forked from: a process that has loaded the command line, and waits to be asked.

Run as `python -P warmed.py SOCKET`, with a socket of packets. Each asks for a command (its words, its environment, its
directory, pickled) and carries four files: its standard ones, and a socket on which we tell its process id and, once it
has ended, its wait status. We end when nobody can ask any more.
"""

from __future__ import annotations

import ctypes
import gc
import os
import pickle
import runpy
import select
import signal
import socket
import sys
from typing import NamedTuple

import tablewatcher.cli.app
import tablewatcher.cli.asked
import tablewatcher.cli.doctor
import tablewatcher.cli.planning
import tablewatcher.cli.status
import tablewatcher.cli.watchers  # noqa: F401

LONGEST = 1 << 20
PR_SET_PDEATHSIG = 1


class Asked(NamedTuple):
    """words: the first is the program's path. tethered: the kernel ends it with us."""

    words: list[str]
    environment: dict[str, str]
    directory: str
    tethered: bool


def forked(requests: socket.socket) -> Asked | None:
    """In each child, what was asked for; None in this process, once nobody can ask any more."""
    woken, wakes = os.pipe()
    for end in (woken, wakes):
        os.set_blocking(end, False)
    signal.set_wakeup_fd(wakes, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    # Of a child by its process id.
    reports: dict[int, socket.socket] = {}
    while True:
        ready = select.select([woken, requests.fileno()], [], [])[0]
        if woken in ready:
            os.read(woken, LONGEST)
            tell_ends(reports)
        if requests.fileno() not in ready:
            continue
        packet, files, _, _ = socket.recv_fds(requests, LONGEST, 4)
        if not packet:
            return None
        pid = os.fork()
        if pid == 0:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            for number, file in enumerate(files[:3]):
                os.dup2(file, number)
            for file in (woken, wakes, requests.detach(), *files, *(each.detach() for each in reports.values())):
                os.close(file)
            return Asked(*pickle.loads(packet))
        reports[pid] = socket.socket(fileno=files[3])
        for file in files[:3]:
            os.close(file)
        reports[pid].send(str(pid).encode())


def tell_ends(reports: dict[int, socket.socket]) -> None:
    while reports:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if not pid:
            return
        with reports.pop(pid) as report:
            try:
                report.send(str(status).encode())
            except BrokenPipeError:
                continue  # whoever has asked is gone


def main() -> None:
    owner = os.getpid()
    gc.freeze()
    asked = forked(socket.socket(fileno=int(sys.argv[1])))
    if asked is None:
        return
    gc.unfreeze()
    if asked.tethered:
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != owner:
            sys.exit("its owner is gone")
    os.environ.clear()
    os.environ.update(asked.environment)
    os.chdir(asked.directory)
    sys.argv = asked.words
    sys.path[:0] = [os.path.dirname(asked.words[0])]
    runpy.run_path(asked.words[0], run_name="__main__")


if __name__ == "__main__":
    main()
