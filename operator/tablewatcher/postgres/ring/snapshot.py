"""Snapshots as Postgres writes them, and the difference between two: what one batch delivers. Pure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Snapshot:
    """`xmin:xmax:xip`: transactions below xmax have ended, but for those in xip. From pg_current_snapshot()."""

    xmin: int
    xmax: int
    xip: frozenset[int]
    text: str

    @classmethod
    def parse(cls, text: str) -> Snapshot:
        """Raises ValueError for anything that pg_snapshot would not write."""
        xmin, xmax, xip = text.split(":")
        return cls(int(xmin), int(xmax), frozenset(map(int, xip.split(","))) if xip else frozenset(), text)

    def shows(self, xid: int) -> bool:
        """Whether what transaction `xid` wrote is visible (or was rolled back)."""
        return xid < self.xmax and xid not in self.xip


def late_commits(prev: Snapshot, cur: Snapshot | None = None) -> list[int]:
    """Transactions that were running at `prev`; with `cur`, only those that have ended by then.

    Their rows may have any id, however low: they are looked up one by one, all others by range.
    """
    return sorted(xid for xid in prev.xip if cur is None or cur.shows(xid))
