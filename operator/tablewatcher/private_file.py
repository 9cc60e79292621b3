"""A file that only this process can read, for libraries that take a key from nothing else."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def private_file(text: str) -> Iterator[str]:
    """The path of a file of this content; it is gone after the block.

    In memory where the system can: a key never reaches a disk then, a read-only root is no hindrance, and nothing is
    left behind even by SIGKILL.
    """
    if not hasattr(os, "memfd_create"):
        with tempfile.NamedTemporaryFile("w", prefix="tablewatcher-", encoding="utf-8") as named:  # mode 0600
            named.write(text)
            named.flush()
            yield named.name
        return
    descriptor = os.memfd_create("tablewatcher", os.MFD_CLOEXEC)
    with open(descriptor, "w", encoding="utf-8") as file:
        os.fchmod(descriptor, 0o600)
        file.write(text)
        file.flush()
        yield f"/proc/self/fd/{descriptor}"
