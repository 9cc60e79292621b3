"""When to try for a lock and how long the try may wait, judged by those who hold the table. Pure.

A try that must wait keeps everybody waiting who comes after it. To look at who holds the table keeps nobody, and tells
as much: a try at that moment would have had the lock once the last of them had ended. So tries are short, and longer
ones are made only where looks say that these would come to something. Beside a transaction that stays open none would
(decision 0022).
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Set

# Seconds. Far below deadlock_timeout (1 s by default): whoever holds what we want and waits for what we have is never
# made a victim, since we have given up by then.
SHORT = 0.1
LONGEST = 0.5
# Of looks at one that lasts longer than any try may, only those of its last half second say that one would do: a third.
_LOOKS_KEPT = 60
# What was enough for half of the looks is by its nature not enough for many, and a try that failed was too short.
_MARGIN = 1.25
_GROWTH = 1.25
# A try is set up in the meantime, and a life is known to two looks only.
_NEARLY = 0.8 * LONGEST


class LockOutlook:
    """Looks at those who hold a table, each by a word for one transaction, and what follows from them.

    `now`: seconds on any clock that only rises.
    """

    def __init__(self) -> None:
        self._wait = SHORT
        # Since the last look: of who has gone meanwhile nobody knows when.
        self._tried = False
        self._first_seen: dict[str, float] = {}
        self._longest_life = 0.0
        self._looks: list[tuple[float, Set[str]]] = []
        self._waits: deque[float] = deque(maxlen=_LOOKS_KEPT)

    def saw(self, holders: Set[str], now: float) -> None:
        """Takes note of who holds it."""
        for holder in self._first_seen.keys() - holders:
            life = now - self._first_seen.pop(holder)
            if not self._tried:
                self._longest_life = max(self._longest_life, life)
        self._first_seen |= dict.fromkeys(holders - self._first_seen.keys(), now)
        undecided = []
        for began, held in self._looks:
            left = held & holders
            if left and now - began <= LONGEST:
                undecided.append((began, left))
            elif left:
                self._waits.append(math.inf)
            elif not self._tried:
                self._waits.append(now - began)
        self._looks, self._tried = [*undecided, (now, holders)], False

    def promising(self, now: float) -> bool:
        """Whether a try would be likely to get the lock, as far as is known."""
        ages = [now - since for since in self._first_seen.values()]
        enough = self._enough()
        if not ages or enough is None:
            return not ages
        if enough == math.inf:
            # They last longer than a try may: only near the end of all of them.
            return all(self._longest_life - _NEARLY <= age < self._longest_life for age in ages)
        return max(ages) < max(self._longest_life, LONGEST)

    def next_try(self, now: float) -> float:
        """Seconds that a try may wait which begins now: SHORT to LONGEST."""
        self._tried = True
        enough = self._enough()
        if enough is None or not self._first_seen or not self.promising(now):
            return SHORT
        self._wait = min(max(enough * _MARGIN, self._wait * _GROWTH), LONGEST)
        return self._wait

    def _enough(self) -> float | None:
        """Seconds that would have been enough for half of the looks."""
        return sorted(self._waits)[len(self._waits) // 2] if self._waits else None
