"""Whether what is sent again comes as whole stretches: from some event of a row on, without holes. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

from .judging import EVERY_KEY, first_arrivals, lanes
from .truth import Arrival


def holes(attempts: Sequence[Arrival]) -> Iterable[str]:
    """What was sent again although what is before it in its row was not, in words.

    A replay may begin and end anywhere, and counts as sent. Truncations are left out: they belong to all rows.
    """
    attempts = [each for each in attempts if EVERY_KEY not in lanes(each)]
    ranks: dict[str, dict[str, int]] = defaultdict(dict)
    for each in first_arrivals(attempts):
        for key in lanes(each):
            ranks[key].setdefault(each.event_id, len(ranks[key]))
    last: dict[str, int] = {}
    # When each event of a row was last sent, as a number that rises.
    sent: dict[str, dict[int, int]] = defaultdict(dict)
    for nth, each in enumerate(attempts):
        for key in lanes(each):
            rank = ranks[key][each.event_id]
            before, times = sent[key].get(rank), sent[key]
            times[rank] = nth
            if each.replay:
                continue
            if before is not None and rank > last.get(key, -1) and rank and times[rank - 1] < before:
                yield f"key {key}: {each}, of rank {rank}, was sent again behind rank {last.get(key)}"
            last[key] = rank
