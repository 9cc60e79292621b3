"""A program of its own: start a server, report its process id, end it when the process that asked is gone.

Run as `python -I -S keeper.py <uid or -> <gid or -> <signal> <program> [argument ...]`. Standard input is a
pipe that the owner holds open; its end means that the owner died, however it died. The server's output goes
to our standard error.

A process between the two, and not a parent-death signal alone: that signal comes when the *thread* that
started the child ends, is cleared when the user id changes, and exists on Linux only.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading

_PR_SET_PDEATHSIG = 1
_GRACE_SECONDS = 5.0


def _die_with_keeper() -> None:
    """Covers a SIGKILL of the keeper itself. Runs in the child, after the user id has changed."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _end_when_orphaned(server: subprocess.Popen[bytes], number: int) -> None:
    while os.read(0, 1):
        pass
    server.send_signal(number)
    try:
        server.wait(_GRACE_SECONDS)
    except subprocess.TimeoutExpired:
        server.kill()


def main(arguments: list[str]) -> int:
    """Keep one server; returns its exit code, 127 when it could not be started."""
    uid, gid, number, *command = arguments
    try:
        server = subprocess.Popen(  # noqa: S603 - the command is given by our own package
            command,
            user=None if uid == "-" else int(uid),
            group=None if gid == "-" else int(gid),
            extra_groups=None if uid == "-" else [],
            stdin=subprocess.DEVNULL,
            stdout=sys.stderr,
            stderr=sys.stderr,
            preexec_fn=_die_with_keeper,
        )
    except (OSError, subprocess.SubprocessError) as error:
        sys.stderr.write(f"cannot start {command[0]}: {error}\n")
        return 127
    os.write(1, f"{server.pid}\n".encode())
    threading.Thread(target=_end_when_orphaned, args=(server, int(number)), daemon=True).start()
    return server.wait()


if __name__ == "__main__":
    # Not sys.exit: at its end the interpreter would wait for the thread that reads standard input.
    code = main(sys.argv[1:])
    sys.stderr.flush()
    os._exit(code & 0xFF)
