"""The manifests a listener is given as files, read by a process that ends with it (decision 0014).

What checks a manifest takes as much memory as what delivers its events, and the time for a few hundred of them is
time in which no other watcher's events move.
"""

from __future__ import annotations

import asyncio
import pickle
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from .files import Manifests

# A manifest is at most 32 KiB; a thousand of them take a few seconds.
LONGEST = 60.0


class NotRead(Exception):
    """The process that reads ended without an answer: nothing is known of the manifests."""


async def read(paths: Sequence[Path], *, require_secret: bool) -> Manifests:
    """As `load`, in another process. Raises NotRead."""
    try:
        # A session of its own: what a terminal sends to stop us must not end it halfway.
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-P",  # else a yaml.py of the directory we were started in would be run
            "-m",
            f"{__package__}.load",
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
    except OSError as error:  # as many processes as there may be, say
        raise NotRead(f"no process can be started: {error.strerror}") from None
    try:
        async with asyncio.timeout(LONGEST):
            answer, said = await process.communicate(pickle.dumps((list(paths), require_secret)))
    except TimeoutError:
        raise NotRead(f"nothing after {LONGEST:.0f} s") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        lines = said.decode(errors="replace").strip().splitlines()
        raise NotRead(f"exit code {process.returncode}: {lines[-1] if lines else 'no message'}")
    found: Manifests = pickle.loads(answer)  # noqa: S301 - from our own child, over a pipe
    return found
