"""How much of a ring a replay of one key reads: there is no index on keys."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest

from tablewatcher.event import Event
from tablewatcher.listener.decide.delivery import Delivery
from tablewatcher.listener.relay.replaying import Replaying
from tablewatcher.listener.relay.searching import MOST, Search
from tablewatcher.postgres.requests import Kind, Request, State
from tablewatcher.postgres.ring.outbox import PAGE_BYTES
from tablewatcher.postgres.ring.position import Page, Position, Rest
from tablewatcher.postgres.ring.snapshot import Snapshot
from tablewatcher.spec.model import DeliveryPolicy

SEEN = Snapshot.parse("900:900:")
PAGES, EVENTS = 10, 100


def event(ring_id: int, key: str) -> Event:
    return Event(ring_id, f"{ring_id:032x}", "u", key, None, "", 0.0, "", None, b"{}")


class Ring:
    """Pages of a ring in which the keys of some ids are `hot`."""

    def __init__(self, hot: set[int]) -> None:
        self._hot = hot
        self.read: list[int] = []

    def for_replay(self, _: int) -> Ring:
        return self

    async def next_page(self, position: Position, _: int) -> Page:
        first = position.after_id + 1
        self.read.append(first)
        ids = range(first, first + EVENTS)
        events = tuple(event(each, "hot" if each in self._hot else str(each)) for each in ids)
        left = PAGES * EVENTS - ids[-1]
        rest = Rest(left, PAGES * EVENTS, 1) if left > 0 else None
        return Page(events, position.prev, cast(Snapshot, position.cur), rest)


async def pieces(ring: Ring, first: int, number: int) -> list[int]:
    """The ring ids of what is sent."""

    async def nothing() -> set[str]:
        return set()

    channels = SimpleNamespace(outbox=ring, requests=None, parked=SimpleNamespace(event_ids=nothing))
    others: Any = None
    flow = SimpleNamespace(channels=channels, delivery=Delivery[Page](DeliveryPolicy(), lambda: 0.0))
    replaying = Replaying(cast(Any, flow), others, others, others)
    asked = Request(1, Kind.REPLAY, None, "hot", None, None, State.RUNNING, number, 0, "")
    found = replaying._pieces(asked, first, Position(SEEN), number)
    return [each.ring_id async for _, piece in found for each in piece]


@pytest.mark.parametrize(
    ("hot", "read"),
    [
        ({1, 50}, [1]),
        ({50, 550}, [50, 150, 250, 350, 450, 550]),
        ({750, 849}, [750]),
    ],
)
async def test_nothing_is_read_behind_the_last_of_them(hot: set[int], read: list[int]) -> None:
    ring = Ring(hot)
    assert await pieces(ring, min(hot), len(hot)) == sorted(hot)
    assert ring.read == read


async def test_where_there_is_none_nothing_is_read() -> None:
    ring = Ring(set())
    assert await pieces(ring, 0, 0) == []
    assert ring.read == []


async def test_what_has_gone_meanwhile_is_looked_for_to_the_end() -> None:
    ring = Ring({1, 50})
    assert await pieces(ring, 1, 3) == [1, 50]
    assert len(ring.read) == PAGES


@pytest.mark.parametrize("size", [2, 1 << 20])
async def test_of_what_comes_meanwhile_no_more_is_kept_than_is_sent_at_once(size: int) -> None:
    """A key may change for as long as a ring of a gigabyte is searched for it."""
    search = Search(cast(Any, None), Request(1, Kind.REPLAY, None, "hot", None, None, State.RUNNING, 0, 0, ""), "hot")
    body = bytes(size)
    for ring_id in range(2000):
        search._note([replace(event(ring_id, "hot"), body=body), event(ring_id, "other")])
    noted = search._since_then
    assert 0 < len(noted) <= MOST + 1
    assert sum(len(each.body) for each in noted) <= PAGE_BYTES + size
