"""What tells a process of ours to end in order."""

from __future__ import annotations

import signal


def stopping() -> tuple[signal.Signals, ...]:
    """The signals. SIGHUP comes when a terminal is closed, unless it is ignored, as nohup has it."""
    closed = () if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else (signal.SIGHUP,)
    return (signal.SIGTERM, signal.SIGINT, *closed)
