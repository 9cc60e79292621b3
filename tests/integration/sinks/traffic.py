"""Events without a break while the other end changes, each sent again until it is told to be delivered."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress

from tablewatcher.errors import Reason, SinkError
from tablewatcher.event import Event
from tablewatcher.sinks.base import Outcome, Verdict
from tablewatcher.sinks.nats import NatsSink
from tablewatcher.sinks.nats.order import HELD

from .events import event
from .servers import until

KEYS = 20
CALL = 1000


class Traffic:
    """Events 1 to `last`. told: ids told to be delivered; failed: calls that left some, for `reasons` and as `said`."""

    def __init__(self, sink: NatsSink, *, looks: bool) -> None:
        self._sink = sink
        self._looks = looks
        self.left: list[Event] = []
        self.last = self.failed = 0
        self.told: set[str] = set()
        self.reasons: set[Reason] = set()
        self.said: set[str] = set()

    def missing(self, stored: Iterable[str]) -> list[int]:
        """The ring ids of those that are not in a stream of these ids."""
        found = set(stored)
        return [ring_id for ring_id in range(1, self.last + 1) if event(ring_id).event_id not in found]

    async def run(self, stop: asyncio.Event) -> None:
        """Until `stop`, and then until all is delivered."""
        while self.left or not stop.is_set():
            if not stop.is_set():
                first, self.last = self.last + 1, self.last + CALL - len(self.left)
                self.left += [event(ring_id, key=f"k{ring_id % KEYS}") for ring_id in range(first, self.last + 1)]
            self._take(await self._sink.deliver(self.left))
            if self._looks:
                with suppress(SinkError):
                    await self._sink.check()
            await asyncio.sleep(0.05 if self.left else 0)

    def _take(self, outcomes: list[Outcome]) -> None:
        left = []
        for each, outcome in zip(self.left, outcomes, strict=True):
            if outcome.verdict is Verdict.DELIVERED:
                self.told.add(each.event_id)
                continue
            left.append(each)
            if outcome is not HELD:
                # One that waits before it is sent again is noted and not stored for good: nobody's fault.
                assert outcome.endpoint or outcome.retry_after, outcome
                self.reasons.add(outcome.reason)
                self.said.add(outcome.message)
        self.left = left
        self.failed += bool(left)

    def is_in_order(self, stored: Iterable[str]) -> bool:
        """Whether the events of each key are in order in a stream of these ids, repeats aside."""
        by_id = {event(ring_id).event_id: ring_id for ring_id in range(1, self.last + 1)}
        lines = defaultdict(list)
        for event_id in dict.fromkeys(stored):
            lines[by_id[event_id] % KEYS].append(by_id[event_id])
        return all(line == sorted(line) for line in lines.values())


@asynccontextmanager
async def traffic(sink: NatsSink, *, looks: bool = False) -> AsyncIterator[Traffic]:
    """It flows inside of the block; at its end all is delivered. looks: as the listener does every now and then."""
    made, stop = Traffic(sink, looks=looks), asyncio.Event()
    async with asyncio.TaskGroup() as group:
        flowing = group.create_task(made.run(stop))
        yield made
        stop.set()
        await until(flowing.done, 60, saying=lambda: f"{len(made.left)} events not delivered: {made.said}")
