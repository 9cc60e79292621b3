"""Snapshots as Postgres writes them, and what lies between two."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tablewatcher.postgres.ring.snapshot import Snapshot, late_commits


def snapshot(xmax: int, running: frozenset[int]) -> Snapshot:
    listed = ",".join(map(str, sorted(running)))
    return Snapshot.parse(f"{min(running, default=xmax)}:{xmax}:{listed}")


@pytest.mark.parametrize(("xid", "shown"), [(9, True), (10, False), (11, True), (14, False), (15, False), (99, False)])
def test_shows(xid: int, shown: bool) -> None:
    assert Snapshot.parse("10:15:10,14").shows(xid) is shown


@pytest.mark.parametrize("text", ["", "1:2", "a:b:", "1:2:x", "1:2:3:4"])
def test_refuses_what_postgres_would_not_write(text: str) -> None:
    with pytest.raises(ValueError):
        Snapshot.parse(text)


@given(data=st.data())
def test_batches_partition_all_transactions(data: st.DataObject) -> None:
    """Every transaction that has ended is in exactly one difference of a row of snapshots."""
    xmax, running, snapshots = 3, frozenset[int](), [snapshot(3, frozenset())]
    for _ in range(data.draw(st.integers(1, 6))):
        started = data.draw(st.integers(0, 4))
        alive = sorted(running | set(range(xmax, xmax + started)))
        running = frozenset(data.draw(st.sets(st.sampled_from(alive)))) if alive else running
        xmax += started
        snapshots.append(snapshot(xmax, running))
    for xid in range(3, xmax):
        batches = 0
        for prev, cur in itertools.pairwise(snapshots):
            by_range = xid >= prev.xmax and cur.shows(xid)
            batches += by_range + (xid in late_commits(prev, cur))
        assert batches == (xid not in running)
