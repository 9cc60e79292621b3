"""Ends what the client library does when it is told to.

The library waits with `asyncio.wait_for`, which before Python 3.12 swallows a cancellation that comes together with
what it waits for. Whoever cancelled us then waits for ever: a listener told to stop would not end.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

_AGAIN_SECONDS = 0.1


async def cancellable(work: Coroutine[Any, Any, T]) -> T:
    """What `work` yields or raises; cancelled, it ends with that, whatever `work` makes of it."""
    task = asyncio.ensure_future(work)
    try:
        await asyncio.wait({task})
    except asyncio.CancelledError:
        await cancelled(task)
        raise
    return task.result()


async def cancelled(task: asyncio.Future[Any]) -> None:
    """Cancels `task` until it has ended."""
    while not task.done():
        task.cancel()
        await asyncio.wait({task}, timeout=_AGAIN_SECONDS)
    await asyncio.gather(task, return_exceptions=True)
