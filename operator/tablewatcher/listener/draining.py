"""Which backlogs are worth telling a person about, and in which words. Pure: the time is an argument."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

# Fewer events are no backlog, and neither is what is delivered within LEAST_SECONDS at the present rate.
LEAST_EVENTS = 100
LEAST_SECONDS = 1.0
# It is over when less than this is left: not at the first moment without an event, which may not come while rows do.
OVER_SECONDS = 0.5
# Rates are of the last seconds.
WINDOW_SECONDS = 5.0
# With more backlogs than this at once their sum is told.
TOLD_EACH = 2
_BAR = 20


@dataclass(frozen=True, slots=True)
class Figures:
    """Of one watcher: events that wait, and events delivered since the listener began."""

    name: str
    waiting: int
    delivered: int


@dataclass(frozen=True, slots=True)
class Backlog:
    """One that is being drained. rate: events delivered a second; left: seconds until it is gone, None where it does
    not shrink; done: the share that is delivered of all there was since it was first seen; age: seconds since then."""

    name: str
    waiting: int
    delivered: int
    rate: float
    left: float | None
    done: float
    age: float


@dataclass(slots=True)
class _Track:
    since: float
    delivered_before: int
    points: deque[tuple[float, int, int]] = field(default_factory=deque)


class Draining:
    """Follows what waits, look by look."""

    def __init__(self) -> None:
        self._tracks: dict[str, _Track] = {}

    def look(self, figures: Iterable[Figures], now: float) -> list[Backlog]:
        """The backlogs that are worth a word now: those that have been there for LEAST_SECONDS."""
        found, tracks = [], {}
        for each in figures:
            track = self._tracks.get(each.name)
            if track is None or each.delivered < track.points[-1][2]:  # it begins anew, with another manifest
                track = _Track(now, each.delivered)
            backlog = _measured(track, each, now)
            told = backlog.age >= LEAST_SECONDS
            over = each.waiting <= backlog.rate * (OVER_SECONDS if told else LEAST_SECONDS)
            if over or each.waiting < (1 if told else LEAST_EVENTS):
                continue
            tracks[each.name] = track
            if told:
                found.append(backlog)
        self._tracks = tracks
        return found


def _measured(track: _Track, figures: Figures, now: float) -> Backlog:
    points = track.points
    points.append((now, figures.waiting, figures.delivered))
    while now - points[0][0] > WINDOW_SECONDS:
        points.popleft()
    began, waiting, delivered = points[0]
    seconds = now - began
    rate = (figures.delivered - delivered) / seconds if seconds else 0.0
    shrinks = (waiting - figures.waiting) / seconds if seconds else 0.0
    # A look at the ring changes what is taken to wait by a little: that is no end in sight.
    left = figures.waiting / shrinks if shrinks > rate / 50 else None
    sent = figures.delivered - track.delivered_before
    done = sent / (sent + figures.waiting) if figures.waiting else 1.0
    return Backlog(figures.name, figures.waiting, figures.delivered, rate, left, done, now - track.since)


def summed(backlogs: list[Backlog]) -> list[Backlog]:
    """The same where they are few, else their sum."""
    if len(backlogs) <= TOLD_EACH:
        return backlogs
    waiting = sum(each.waiting for each in backlogs)
    lefts = [each.left for each in backlogs]
    # Together they end with the last of them.
    left = None if None in lefts else max(each for each in lefts if each is not None)
    done = sum(each.done * each.waiting for each in backlogs) / waiting if waiting else 1.0
    total = sum(each.delivered for each in backlogs), sum(each.rate for each in backlogs)
    age = max(each.age for each in backlogs)
    return [Backlog(f"{len(backlogs)} watchers", waiting, *total, left, done, age)]


def line(backlogs: list[Backlog]) -> str:
    """What is told of them, for a line of a terminal; "" where there is nothing to tell."""
    return "   ".join(map(_words, summed(backlogs)))


def _words(backlog: Backlog) -> str:
    filled = int(backlog.done * _BAR)
    bar = f"[{'#' * filled}{'.' * (_BAR - filled)}]"
    text = f"{bar} {backlog.name}: {backlog.waiting:,} wait, {backlog.delivered:,} delivered, {backlog.rate:,.0f}/s"
    return text if backlog.left is None else f"{text}, {_span(backlog.left)} left"


def _span(seconds: float) -> str:
    """A length of time for people."""
    for unit, length in (("h", 3_600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{max(seconds, 1.0):.0f} s"
