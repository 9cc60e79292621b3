"""Whether what is sent again comes as whole stretches: from some event of a row on, without holes. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from .judging import EVERY_KEY, first_arrivals, lanes
from .truth import Arrival


def holes(attempts: Sequence[Arrival]) -> Iterable[str]:
    """What was sent again although what is before it in its row was not, in words.

    A replay may begin and end anywhere, and counts as sent. Truncations are left out: they belong to all rows. A
    request that a listener had on its way when it was killed may arrive in the midst of what the next one sends: so
    what has been left out may still come, but before anything that is newer.
    """
    attempts = [each for each in attempts if EVERY_KEY not in lanes(each)]
    ranks: dict[str, dict[str, int]] = defaultdict(dict)
    for each in first_arrivals(attempts):
        for key in lanes(each):
            ranks[key].setdefault(each.event_id, len(ranks[key]))
    rows: dict[str, _Row] = defaultdict(_Row)
    for nth, each in enumerate(attempts):
        for key in lanes(each):
            yield from rows[key].sent(ranks[key][each.event_id], nth, f"key {key}: {each}", replay=bool(each.replay))
    for row in rows.values():
        yield from row.owed.values()


@dataclass(slots=True)
class _Row:
    """times: when each event was last sent, as a number that rises. owed: events that were left out, by rank."""

    last: int = -1
    times: dict[int, int] = field(default_factory=dict)
    owed: dict[int, str] = field(default_factory=dict)

    def sent(self, rank: int, nth: int, what: str, *, replay: bool) -> Iterable[str]:
        before, self.times[rank] = self.times.get(rank), nth
        self.owed.pop(rank, None)
        if replay:
            self.last = max(self.last, rank)
            return
        newest = before is None
        if newest:
            yield from self.owed.values()
            self.owed.clear()
        elif rank > max(self.last, 0) and self.times[rank - 1] < before:
            self.owed[self.last + 1] = f"{what}, of rank {rank}, was sent again behind rank {self.last}"
        self.last = rank
