"""Rings that do not fit in memory, at endpoints that refuse some rows: no order is broken, and all is judged."""

from __future__ import annotations

import random
from dataclasses import replace
from itertools import combinations

import pytest

from tablewatcher.event import Event
from tablewatcher.listener.decide.walk import Walk

from .deliveries import FAULT, REFUSED, Endpoint, Page, delivery, event

BARRIERS = "gt"
LOOK = 4


class Watcher:
    """A delivery that holds `most` events at a time, and reads on as the listener does."""

    def __init__(self, seed: int) -> None:
        self.chance = chance = random.Random(seed)
        self.most = chance.choice([3, 6, 10])
        keys = [f"k{nth}" for nth in range(chance.choice([2, 3, 5]))]
        self.ring = ring_of(chance, keys)
        self.machine = delivery(attempts=chance.choice([2, 3, 5]))
        refused = [*chance.sample(keys, chance.randint(1, len(keys))), *(["_"] if chance.random() < 0.4 else [])]
        self.endpoint = Endpoint(self.machine, **{key: chance.choice([REFUSED, FAULT]) for key in refused})
        self.aside: set[int] = set()
        self._room, self._read = True, 0
        self._walk: Walk | None = None

    @property
    def is_done(self) -> bool:
        return self._read >= len(self.ring) and not self.machine.waiting

    def step(self) -> None:
        """Reads where there is room, writes down what is aside, looks further on where that is wanted; one call."""
        while self._room and self._read < len(self.ring):
            self.machine.offer(Page(tuple(self.ring[self._read :][: self.most // 2])))
            self._read = min(self._read + self.most // 2, len(self.ring))
            self._room = self.machine.waiting < self.most
            self._walk = None
        if self.chance.random() < 0.5:
            self.aside |= {parking.event.ring_id for parking in self.machine.aside}
            self.machine.put_aside(list(self.machine.aside))
        self._room = self._room or self.machine.waiting < max(self.most // 2, 1)
        if not self._room and self.machine.witness.is_missing:
            self._look()
        self.endpoint.full = not self._room
        self.endpoint.run(1)

    def _look(self) -> None:
        if self._walk is None:
            self._walk, self._at = self.machine.witness.walk(), self._read
        walk = self._walk
        found = walk.find([replace(each) for each in self.ring[self._at : self._at + LOOK]], self.endpoint.now)
        self._at = found.ring_id if found else self._at + LOOK
        is_over = walk.is_over or (found is None and self._at >= len(self.ring))
        if is_over:
            self._walk, found = None, found or walk.last()
        if sent := found or (walk.spare if is_over else None):
            self.machine.witness.call_unread(sent, walk if found else None)


def ring_of(chance: random.Random, keys: list[str]) -> list[Event]:
    """Mostly of one key, with truncations and changes of keys among them; the event of ring id n is the n-th."""
    found, hot = list[Event](), chance.choice(keys)
    for ring_id in range(1, chance.choice([8, 20, 40])):
        kind = chance.random()
        if kind < 0.1:
            found.append(event(ring_id, "_", op=chance.choice(BARRIERS)))
        elif kind < 0.2:
            key, old_key = chance.sample(keys, 2)
            found.append(event(ring_id, key, old_key))
        else:
            found.append(event(ring_id, hot if chance.random() < 0.6 else chance.choice(keys)))
    return [*found, event(len(found) + 1, "good")]


def disorder(ring: list[Event], accepted: list[int]) -> list[tuple[int, int]]:
    """Pairs of events of one row, or of a barrier and anything, of which the later one was the first to arrive."""
    places = {ring_id: place for place, ring_id in reversed(list(enumerate(accepted)))}
    there = [each for each in ring if each.ring_id in places]
    return [
        (one.ring_id, other.ring_id)
        for one, other in combinations(there, 2)
        if places[one.ring_id] > places[other.ring_id]
        and (one.op in BARRIERS or other.op in BARRIERS or set(one.lane_keys) & set(other.lane_keys))
    ]


@pytest.mark.parametrize("mends", [False, True])
def test_whatever_is_refused_all_else_arrives_in_order(*, mends: bool) -> None:
    """mends: the endpoint takes one row after the other again. Else good events are written all the while."""
    for seed in range(150):
        watcher = Watcher(seed)
        ring, endpoint = watcher.ring, watcher.endpoint
        for step in range(3000):
            if watcher.is_done:
                break
            if mends and endpoint.bad and watcher.chance.random() < 0.02:
                endpoint.bad.pop(watcher.chance.choice(list(endpoint.bad)))
            if not mends and step % 50 == 49:
                ring.append(event(len(ring) + 1, "good"))
            watcher.step()
        assert watcher.is_done, f"ring {seed} is not judged: {endpoint.attempts[-5:]}"
        assert disorder(ring, endpoint.accepted) == [], f"ring {seed}"
        assert {each.ring_id for each in ring} == {*endpoint.accepted, *watcher.aside}, f"ring {seed}"
