"""Who holds a lease, and whether that process is known to have ended.

A listener that was killed cannot release its lease. Where it ran under the same kernel and in the same process
namespace, its successor can see that it is gone and need not wait.
"""

from __future__ import annotations

import os
import socket
from pathlib import Path


def this_process() -> str:
    """`host/kernel boot/process namespace/pid/start time`: names one process, for ever."""
    pid = os.getpid()
    return f"{socket.gethostname()}/{_place()}/{pid}/{_started(pid)}"


def is_dead(holder: str) -> bool:
    """Whether `holder` has certainly ended: it is of this kernel and namespace, and no such process is there."""
    if holder == this_process():
        return True  # ours, over a connection that broke
    parts = holder.split("/")
    if len(parts) != 5 or f"{parts[1]}/{parts[2]}" != _place() or "-" in (parts[1], parts[2]):
        return False
    return _started(int(parts[3])) != parts[4]


def _place() -> str:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        namespace = os.readlink("/proc/self/ns/pid").strip("pid:[]")
    except OSError:
        return "-/-"
    return f"{boot}/{namespace}"


def _started(pid: int) -> str:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return "-"
    fields = stat.rpartition(")")[2].split()
    # A zombie runs nothing any more.
    return "-" if fields[0] in "ZX" else fields[19]
