"""Delivered events of one key, looked for in the ring while live delivery goes on."""

from __future__ import annotations

from collections.abc import Sequence

from ...event import Event, again
from ...postgres.requests import Request
from ...postgres.ring.outbox import PAGE_BYTES
from ...postgres.ring.position import Position
from ...spec.model import Format
from .flow import Flow
from .keeping import Keeping

# So many are kept in memory, of no more bytes than a page has.
MOST = 1000


class Search:
    """What a request means of one key. Keys have no index, so all of the ring is read for it, a stretch at a time.

    It is what had been read when the search began, and what has been since: that is noted. What of both is delivered is
    known at the end.
    """

    def __init__(self, flow: Flow, asked: Request, key: str) -> None:
        self._flow = flow
        self._asked = asked
        self._key = key
        self._since_then: list[Event] = []
        self._found: list[Event] | None = None

    async def run(self, keeping: Keeping) -> None:
        """Looks for them. Raises DatabaseError."""
        flow, asked, channels = self._flow, self._asked, self._flow.channels
        # At one moment: what is read from now on is noted.
        position = read_so_far(flow, keeping)
        # Another's search may be stuck behind the endpoint meanwhile.
        flow.on_read.add(self._note)
        outbox = channels.outbox.for_replay(asked.id)
        self._found = await channels.history.events(
            outbox, asked.since, self._key, position, most=MOST, most_bytes=PAGE_BYTES
        )

    def delivered(self) -> list[Event] | None:
        """All that is delivered by now, in order; None: they are too many. To be asked when live delivery stands."""
        if self._found is None or self._is_over:
            return None
        flow, number, since = self._flow, self._asked.id, self._asked.since
        structured = flow.spec.format is Format.STRUCTURED
        waiting = undelivered(flow)
        found = {event.ring_id: event for event in self._found if event.ring_id not in waiting}
        for event in found.values():
            event.replay = number
        for event in self._since_then:
            if event.ring_id not in waiting and (since is None or event.captured_at >= since.timestamp()):
                found.setdefault(event.ring_id, again(event, number, structured=structured))
        return [found[ring_id] for ring_id in sorted(found)] if len(found) <= MOST else None

    def end(self) -> None:
        """Notes nothing more."""
        self._flow.on_read.discard(self._note)

    @property
    def _is_over(self) -> bool:
        noted = self._since_then
        return len(noted) > MOST or sum(len(event.body) for event in noted) > PAGE_BYTES

    def _note(self, events: Sequence[Event]) -> None:
        if not self._is_over:
            self._since_then += [event for event in events if self._key in (event.key, event.old_key)]


def read_so_far(flow: Flow, keeping: Keeping) -> Position:
    """Up to where everything is read, whatever of it is delivered."""
    position, newest = keeping.position(), flow.delivery.pages.newest
    return position if newest is None else newest.position(None)


def undelivered(flow: Flow) -> set[int]:
    """The ring ids of what is read and not delivered; what is sent again was."""
    return {event.ring_id for event in flow.delivery.pages.outstanding if not event.replay}
