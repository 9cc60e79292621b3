"""Tasks that go on when whoever waited for them has gone."""

from __future__ import annotations

import asyncio
from typing import Any


def heard(task: asyncio.Task[Any]) -> None:
    """Takes note of how `task` has ended, or else, where nobody waits any more, asyncio complains of its fault."""
    if not task.cancelled():
        task.exception()
