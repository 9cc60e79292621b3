"""One look at an endpoint for all watchers of a process that send there, and look at about the same time.

Whether an idle endpoint has gone is to be known within seconds, so each watcher looks often. Two hundred that send to
one endpoint would connect to it, and shake hands, a hundred times a second.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Hashable
from dataclasses import dataclass

from ..tasks import heard

# What a look has found is passed on for so long. It adds to how late a fault is told.
FRESH_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class _Look:
    begun: float
    by: object
    task: asyncio.Task[None]


class SharedLooks:
    """Looks of one event loop, by the place that is looked at."""

    def __init__(self) -> None:
        self._latest: dict[Hashable, _Look] = {}

    async def at(self, place: Hashable, look: Callable[[], Coroutine[None, None, None]], *, by: object) -> None:
        """Does `look`, or waits for one at `place` that another than `by` has just begun. Raises what that raises."""
        now = asyncio.get_running_loop().time()
        for each, old in list(self._latest.items()):
            if old.task.done() and now - old.begun > FRESH_SECONDS:
                del self._latest[each]
        found = self._latest.get(place)
        if found is None or found.by is by:
            found = self._latest[place] = _Look(now, by, asyncio.create_task(look()))
            found.task.add_done_callback(heard)
        # Whoever is cancelled leaves the look to the others.
        await asyncio.shield(found.task)
