"""How far a watcher has delivered, what it has read, and the condition that tells what of a ring is delivered. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from ...event import Event
from .snapshot import Snapshot


@dataclass(frozen=True, slots=True)
class Position:
    """How far a watcher has delivered: all that `prev` shows, and of the batch up to `cur` the ids to `after_id`."""

    prev: Snapshot
    cur: Snapshot | None = None
    after_id: int = 0

    @property
    def parameters(self) -> dict[str, Any]:
        """The parameters of a query that a position is given to as GIVEN."""
        return {"prev": self.prev.text, "cur": None if self.cur is None else self.cur.text, "after": self.after_id}


@dataclass(frozen=True, slots=True)
class Rest:
    """What a batch has behind a page: how many events, the last one's id, and how many there are an id at its end."""

    events: int
    last_id: int
    events_an_id: float


@dataclass(frozen=True, slots=True)
class Page:
    """Events in order of id, of the batch between `prev` and `cur`. rest: what this has behind them, if anything."""

    events: tuple[Event, ...]
    prev: Snapshot
    cur: Snapshot
    rest: Rest | None = None

    @property
    def last(self) -> bool:
        """Whether the batch ends here."""
        return self.rest is None

    def with_events(self, events: tuple[Event, ...]) -> Page:
        """The same page, with only these of its events; its last one is among them."""
        return replace(self, events=events)

    def position(self, undelivered: int | None) -> Position:
        """The position when every event before ring id `undelivered` is delivered (None: all of the page)."""
        if undelivered is None and self.last:
            return Position(self.cur)
        after = self.events[-1].ring_id if undelivered is None else undelivered - 1
        return Position(self.prev, self.cur, after)


@dataclass(frozen=True, slots=True)
class PositionSql:
    """A position as it stands in a query: SQL of its snapshots, and of its id."""

    prev: str
    cur: str
    after_id: str

    def delivered(self, xid: str, last: str) -> str:
        """Whether a row is delivered, all of it: a condition on the transaction that wrote it and its last event's id.

        NULL only where there is no `prev`.
        """
        before = f"pg_catalog.pg_visible_in_snapshot({xid}, {self.prev})"
        since_then = f"pg_catalog.pg_visible_in_snapshot({xid}, {self.cur})"
        return f"({before} OR coalesce({since_then} AND {last} <= {self.after_id}, false))"


GIVEN = PositionSql("%(prev)s::text::pg_snapshot", "%(cur)s::text::pg_snapshot", "%(after)s")


def of_cursor(row: str) -> PositionSql:
    """The position in a row of a cursor table, by its name in the query."""
    return PositionSql(f"{row}.prev", f"{row}.cur", f"{row}.after_id")
