"""Which events of the pages read are not delivered yet, and with that how far delivery has come. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Generic, Protocol, Self, TypeVar

from ...event import Event


class PageLike(Protocol):
    """A run of events that ends at a known place."""

    @property
    def events(self) -> tuple[Event, ...]: ...

    def with_events(self, events: tuple[Event, ...]) -> Self:
        """The same run, of whose events only these are still of interest, its last one among them."""
        ...


# Bytes: what is delivered is forgotten from here on, each event taken to be so much larger than its body.
_MOST = 16 << 20
_EVENT = 1000

P = TypeVar("P", bound=PageLike)


@dataclass(slots=True, eq=False)
class _OpenPage(Generic[P]):
    """A page and the place of its first event that may be undelivered. begun: what came before that is forgotten."""

    page: P
    size: int
    at: int = 0
    begun: bool = False


class Pages(Generic[P]):
    """Pages in order of delivery. `outstanding`: their events, and others that were added, until they are settled.

    One event that waits for long has all pages after it wait to be finished, however much of them is delivered. So
    delivered events are forgotten when they have become many. most: bytes, from which on that is.
    """

    __slots__ = ("_enough", "_most", "_open", "_size", "outstanding")

    def __init__(self, most: int = _MOST) -> None:
        self._open: deque[_OpenPage[P]] = deque()
        self._size, self._most, self._enough = 0, most, most
        self.outstanding: set[Event] = set()

    def offer(self, page: P) -> None:
        """Takes in the next page."""
        self.outstanding.update(page.events)
        opened = _OpenPage(page, _size(page.events))
        self._open.append(opened)
        self._size += opened.size
        if self._size > self._enough:
            self._forget_delivered()

    @property
    def newest(self) -> P | None:
        """The last page that was taken in, if it is not finished; some of its events may be forgotten."""
        return self._open[-1].page if self._open else None

    @property
    def oldest(self) -> Event | None:
        """The first event of a page that is not delivered."""
        for opened in self._open:
            self._advance(opened)
            if opened.at < len(opened.page.events):
                return opened.page.events[opened.at]
        return None

    def finished(self) -> tuple[P, int | None] | None:
        """The page up to which all is delivered: (page, None), or within it all before a ring id; None: no news.

        Pages delivered to their end are forgotten by this call.
        """
        done: P | None = None
        while self._open:
            opened = self._open[0]
            self._advance(opened)
            if opened.at < len(opened.page.events):
                if opened.at or opened.begun:
                    return opened.page, opened.page.events[opened.at].ring_id
                break
            done = self._open.popleft().page
            self._size -= opened.size
        return None if done is None else (done, None)

    def tail(self) -> Iterable[Event]:
        """The events after the last one delivered, last first."""
        for opened in reversed(self._open):
            for event in reversed(opened.page.events):
                if event not in self.outstanding:
                    return
                yield event

    def _forget_delivered(self) -> None:
        """But for the last of each page, which `tail` asks for, and the last of pages that are delivered one by one."""
        before, self._open = self._open, deque()
        for opened in before:
            events = opened.page.events
            while self._is_delivered(opened) and self._open and self._adds_nothing(self._open[-1], opened):
                self._open.pop()
            begun = opened.begun or (bool(events) and events[0] not in self.outstanding)
            left = self._left_of(events)
            self._open.append(_OpenPage(opened.page.with_events(left), _size(left), begun=begun))
        self._size = sum(opened.size for opened in self._open)
        # Twice as much has to come before it is worth while again.
        self._enough = max(self._most, 2 * self._size)

    def _left_of(self, events: tuple[Event, ...]) -> tuple[Event, ...]:
        last = next((event for event in reversed(events) if event not in self.outstanding), None)
        return tuple(event for event in events if event is last or event in self.outstanding)

    def _adds_nothing(self, before: _OpenPage[P], delivered: _OpenPage[P]) -> bool:
        """Of two pages in turn, where a page without events cannot stand for the last event that is delivered."""
        return self._is_delivered(before) and (bool(delivered.page.events) or not before.page.events)

    def _is_delivered(self, opened: _OpenPage[P]) -> bool:
        return self.outstanding.isdisjoint(opened.page.events)

    def _advance(self, opened: _OpenPage[P]) -> None:
        events, at, outstanding = opened.page.events, opened.at, self.outstanding
        while at < len(events) and events[at] not in outstanding:
            at += 1
        opened.at = at


def _size(events: Iterable[Event]) -> int:
    return sum([len(event.body) + _EVENT for event in events])
