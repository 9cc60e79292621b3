"""When a ring turns because of the time alone."""

from __future__ import annotations

import pytest

from tablewatcher.listener.decide.turning import LEAST_TURN_SECONDS, MOST_TURN_SECONDS, Turning
from tablewatcher.naming import RING_SLOTS


@pytest.mark.parametrize(("retention", "every"), [(0, LEAST_TURN_SECONDS), (100, 50.0), (86_400, MOST_TURN_SECONDS)])
def test_after_half_of_the_retention_within_bounds(retention: float, every: float) -> None:
    turning = Turning(retention, 5.0)
    assert not turning.due(5.0 + every - 0.1, 1)
    assert turning.due(5.0 + every, 1)
    turning.turned(7.0, 1)
    assert not turning.due(7.0 + every - 0.1, 2)
    assert turning.due(7.0 + every, 2)


def test_an_idle_ring_turns_until_all_of_it_has_been_emptied() -> None:
    turning, now, turns = Turning(0, 0.0), 0.0, 0
    while turning.due(now := now + MOST_TURN_SECONDS, 64):
        turning.turned(now, 64)
        turns += 1
    # With the first one the slot that was written is known; each of the others empties one.
    assert turns == 1 + RING_SLOTS
    assert turning.due(now, 128)
    turning.turned(now, 128)
    assert turning.due(now + MOST_TURN_SECONDS, 128)


def test_one_that_is_written_all_the_time_turns_all_the_time() -> None:
    turning = Turning(0, 0.0)
    for turn in range(1, 10):
        assert turning.due(turn * MOST_TURN_SECONDS, turn)
        turning.turned(turn * MOST_TURN_SECONDS, turn)
