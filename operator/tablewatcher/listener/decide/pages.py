"""Which events of the pages read are not delivered yet, and with that how far delivery has come. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from ...event import Event


class PageLike(Protocol):
    """A run of events that ends at a known place."""

    @property
    def events(self) -> tuple[Event, ...]: ...


P = TypeVar("P", bound=PageLike)


@dataclass(slots=True, eq=False)
class _OpenPage(Generic[P]):
    """A page and the place of its first event that may be undelivered."""

    page: P
    at: int = 0


class Pages(Generic[P]):
    """Pages in order of delivery. `outstanding`: their events, and others that were added, until they are settled."""

    __slots__ = ("_open", "outstanding")

    def __init__(self) -> None:
        self._open: deque[_OpenPage[P]] = deque()
        self.outstanding: set[Event] = set()

    def offer(self, page: P) -> None:
        """Takes in the next page."""
        self._open.append(_OpenPage(page))
        self.outstanding.update(page.events)

    def events(self) -> Iterable[Event]:
        """Of the pages that are not known to be delivered, delivered ones among them."""
        return (event for opened in self._open for event in opened.page.events)

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
                if opened.at:
                    return opened.page, opened.page.events[opened.at].ring_id
                break
            done = self._open.popleft().page
        return None if done is None else (done, None)

    def tail(self) -> Iterable[Event]:
        """The events after the last one delivered, last first."""
        for opened in reversed(self._open):
            for event in reversed(opened.page.events):
                if event not in self.outstanding:
                    return
                yield event

    def _advance(self, opened: _OpenPage[P]) -> None:
        events, at, outstanding = opened.page.events, opened.at, self.outstanding
        while at < len(events) and events[at] not in outstanding:
            at += 1
        opened.at = at
