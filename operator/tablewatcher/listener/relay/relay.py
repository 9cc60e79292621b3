"""Runs one watcher under its lease: reading, sending and keeping side by side, and an end without repeats."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Any

from .aside import Aside
from .flow import Flow
from .keeping import Keeping
from .reading import Reading
from .requesting import Requesting
from .sending import Sending

DRAIN_SECONDS = 5.0


class Relay:
    """One watcher's stream from ring to sink while its lease holds."""

    def __init__(self, flow: Flow) -> None:
        self._flow = flow
        self._reading = Reading(flow)
        self._sending = Sending(flow)
        self._aside = Aside(flow)
        self._keeping = Keeping(flow, self._aside)
        self._requesting = Requesting(flow, self._aside, self._keeping)

    async def run(self, stop: asyncio.Event) -> None:
        """Until `stop` is set, then drained, committed and the lease released. Raises LeaseLost or DatabaseError."""
        parts = {
            "read": self._reading.run,
            "send": self._sending.run,
            "check": self._sending.check,
            "cursor": self._keeping.cursor,
            "upkeep": self._keeping.upkeep,
            "requests": self._requesting.run,
        }
        await self._aside.begin()
        async with contextlib.AsyncExitStack() as stack:
            stack.push_async_callback(self._sending.abandon)
            tasks = [
                asyncio.create_task(part(), name=f"{self._flow.spec.qualified_name} {name}")
                for name, part in parts.items()
            ]
            stack.push_async_callback(_cancelled, tasks)
            stopper = asyncio.create_task(stop.wait())
            stack.push_async_callback(_cancelled, [stopper])
            await asyncio.wait([*tasks, stopper], return_when=asyncio.FIRST_COMPLETED)
            for task in tasks:
                if task.done():
                    task.result()
            await self._drain(tasks)

    async def _drain(self, tasks: Sequence[asyncio.Task[None]]) -> None:
        """Ends so that nothing need be repeated, and lets go of the lease in any case: a successor waits for it."""
        await _cancelled(tasks)
        settled = False
        try:
            await self._settle()
            settled = True
        finally:
            await self._keeping.release(settled=settled)

    async def _settle(self) -> None:
        """The cursor is one place: what was overtaken goes out before it."""
        await self._sending.ended()
        await self._aside.settle()
        if self._sending.busy or not self._flow.delivery.keep_overtaken():
            return
        parts = (self._sending.run, self._keeping.cursor, self._emptied)
        steps = [asyncio.create_task(part()) for part in parts]
        try:
            await asyncio.wait(steps, timeout=DRAIN_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        finally:
            await _cancelled(steps)
        await self._sending.ended()
        # What came back and went out by now must not be aside for the next owner: it would follow its successors.
        await self._aside.settle()

    async def _emptied(self) -> None:
        # Polled, not signalled: five seconds at the most, once in a listener's life.
        while self._flow.delivery.waiting:  # noqa: ASYNC110
            await asyncio.sleep(0.005)


async def _cancelled(tasks: Sequence[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
