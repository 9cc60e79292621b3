"""What people ask of the owner of the lease: begun as it comes; what gets nowhere keeps nothing else waiting."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import structlog

from ...postgres.requests import LOOK_SECONDS, SUSPENDED, Kind, Request
from .aside import Aside
from .bringing import Bringing
from .flow import Flow
from .keeping import Keeping
from .replaying import Replaying
from .turns import Turns

log = structlog.get_logger("tablewatcher.listener")


class Requesting:
    """A task for each open request. Those that send have one turn between them: see `Turns`."""

    def __init__(self, flow: Flow, aside: Aside, keeping: Keeping) -> None:
        self._flow = flow
        self._requests = flow.channels.requests
        turns = Turns()
        self._bringing = Bringing(flow, aside, turns)
        self._replaying = Replaying(flow, aside, keeping, turns)
        self._tasks: dict[int, asyncio.Task[None]] = {}

    async def run(self) -> None:
        """Until cancelled. Raises DatabaseError or LeaseLost."""
        channels = self._flow.channels
        try:
            while True:
                if await channels.open_requests.has(channels.names):
                    for asked in await self._requests.open():
                        await self._begin(asked)
                if not self._tasks:
                    await asyncio.sleep(LOOK_SECONDS)
                    continue
                # A fault of one must show at once.
                await asyncio.wait(self._tasks.values(), timeout=LOOK_SECONDS, return_when=asyncio.FIRST_COMPLETED)
                for number, task in list(self._tasks.items()):
                    if task.done():
                        del self._tasks[number]
                        task.result()
        finally:
            for task in self._tasks.values():
                task.cancel()
            await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    async def _begin(self, asked: Request) -> None:
        if asked.id in self._tasks:
            return
        # Nothing is sent while the watcher is suspended; to drop something is another matter.
        waits = self._flow.spec.suspend and asked.kind is not Kind.SKIP
        message = SUSPENDED if waits else ""
        if asked.message != message:
            asked = replace(asked, message=message)
            await self._requests.note(asked)
        if waits:
            return
        log.info("request", watcher=self._flow.spec.qualified_name, kind=str(asked.kind), number=asked.id)
        do = {
            Kind.SKIP: self._bringing.skip,
            Kind.PARKED: self._bringing.send,
            Kind.REPLAY: self._replaying.send,
        }[asked.kind]
        self._tasks[asked.id] = asyncio.create_task(do(asked))
