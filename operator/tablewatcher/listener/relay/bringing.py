"""Events that were put aside, when a person asks: they come back in order, or are dropped."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import structlog

from ...event import Event
from ...postgres.requests import Request, State, named
from .aside import Aside, Wanted
from .flow import Flow
from .turns import Stall, Turns

log = structlog.get_logger("tablewatcher.listener")

_STEP = 0.02


class Bringing:
    """Requests for what is aside. turns: of all requests that send."""

    def __init__(self, flow: Flow, aside: Aside, turns: Turns) -> None:
        self._flow = flow
        self._aside = aside
        self._requests = flow.channels.requests
        self._turns = turns
        # Nothing may be dropped while it is in delivery: refused, it would be written down once more, as the last.
        self._out = Turns()

    async def skip(self, asked: Request) -> None:
        """Drops what is meant: at once, whoever waits for the endpoint."""
        async with self._out:
            dropped = await self._aside.drop(asked)
        log.info("dropped", watcher=self._flow.spec.qualified_name, number=asked.id, events=dropped.number)

    async def send(self, asked: Request) -> None:
        """Sends what is aside of some keys, in order and piece by piece; a key that fails again stays aside."""
        async with self._turns:
            keys = asked.keys if asked.keys is not None else await self._requests.selected(asked)
            wanted = Wanted(set(await self._flow.channels.parked.lanes_of(keys)))
            asked = replace(asked, keys=sorted(wanted.keys), state=State.RUNNING)
            await self._requests.note(asked)
            while wanted.keys:
                async with self._out:
                    events = await self._aside.bring_back(wanted, asked.id)
                    withdrawn = await self._settled(events)
                    wanted.failed(self._aside.failed)
                if not events:
                    break
                if withdrawn:
                    await self._turns.pass_on()
        await self._finish(asked, wanted.again)

    async def _settled(self, events: Sequence[Event]) -> set[Event]:
        """Until all that came back is delivered or put aside once more; what is taken back since others wait."""
        delivery, stall = self._flow.delivery, Stall(self._flow.now())
        while left := delivery.unsettled(events):
            if self._out.wanted or (stall.lasts(left, self._flow.now()) and self._turns.wanted):
                return await self._aside.take_back(events)
            # Polled: it is seldom, and what it waits for takes a sink's answer at least.
            await asyncio.sleep(_STEP)
        await self._aside.settle()
        return set()

    async def _finish(self, asked: Request, again: set[str]) -> None:
        number, state = await self._requests.note(asked), State.DONE
        message = f"{number} sent{'' if number or again else ': nothing is parked'}"
        if again:
            message, state = f"{message}; parked again: {named(sorted(again))}", State.FAILED
        await self._requests.note(replace(asked, state=state, message=message))
        log.info(message, watcher=self._flow.spec.qualified_name, number=asked.id)
