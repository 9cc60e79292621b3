"""When a sink is looked at that may have nothing to do."""

from __future__ import annotations

import pytest

from tablewatcher.listener.decide.looks import LOOK_SECONDS, Looks


def looked(looks: Looks, until: float, *, begin: float = 0.0) -> list[float]:
    """When it was looked at, all being well, by one who asks every LOOK_SECONDS."""
    found, now = [], begin
    while now < until:
        if looks.due(now):
            looks.well(now)
            found.append(now)
        now += LOOK_SECONDS
    return found


def test_ever_more_seldom_while_all_is_well() -> None:
    assert looked(Looks(30.0), 100.0) == [0.0, 4.0, 12.0, 28.0, 58.0, 88.0]


@pytest.mark.parametrize("longest", [0.0, LOOK_SECONDS])
def test_as_often_as_the_sink_wants_it(longest: float) -> None:
    assert looked(Looks(longest), 7.0) == [0.0, 2.0, 4.0, 6.0]


def test_at_once_in_doubt_and_from_the_beginning_again() -> None:
    looks = Looks(30.0)
    looked(looks, 60.0)
    assert not looks.due(60.0)
    looks.doubt()
    assert looks.due(60.0)
    # A look that meets a fault is no look that all is well: the next one is due as soon.
    assert looks.due(62.0)
    assert looked(looks, 75.0, begin=64.0) == [64.0, 68.0]
