"""Delivered events of one key, looked for in the ring while live delivery goes on."""

from __future__ import annotations

from ...event import Event, again
from ...postgres.requests import Request
from ...postgres.ring.outbox import PAGE_BYTES
from ...spec.model import Format
from .flow import Flow, Noting
from .keeping import Keeping

# So many are kept in memory, of no more bytes than a page has.
MOST = 1000


class Search:
    """What a request means of one key. Keys have no index, so all of the ring is read for it, a stretch at a time.

    It is what was delivered when the search began, and what came through since: that is noted as it is read.
    """

    def __init__(self, flow: Flow, asked: Request, key: str) -> None:
        self._flow = flow
        self._asked = asked
        self._key = key
        self._noting = Noting(key)
        self._found: list[Event] | None = None

    async def run(self, keeping: Keeping) -> None:
        """Looks for them. Raises DatabaseError."""
        flow, asked, channels = self._flow, self._asked, self._flow.channels
        # At one moment: what is read and not behind this position is noted, and so is all that is read from now on.
        position = keeping.position()
        self._noting.see(flow.delivery.pages.events())
        flow.noting = self._noting
        outbox = channels.outbox.for_replay(asked.id)
        self._found = await channels.history.events(
            outbox, asked.since, self._key, position, most=MOST, most_bytes=PAGE_BYTES
        )

    def delivered(self) -> list[Event] | None:
        """All that is delivered by now, in order; None: they are too many. To be asked when live delivery stands."""
        if self._found is None:
            return None
        flow, number, since = self._flow, self._asked.id, self._asked.since
        structured, waiting = flow.spec.format is Format.STRUCTURED, flow.delivery.pages.outstanding
        found = {event.ring_id: event for event in self._found}
        for event in self._found:
            event.replay = number
        for event in self._noting.events:
            if event not in waiting and (since is None or event.captured_at >= since.timestamp()):
                found.setdefault(event.ring_id, again(event, number, structured=structured))
        return [found[ring_id] for ring_id in sorted(found)] if len(found) <= MOST else None

    def end(self) -> None:
        """Notes nothing more."""
        self._flow.noting = None
