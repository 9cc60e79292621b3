"""Generations of what a watcher sends, by the timelines of its server."""

from __future__ import annotations

import pytest

from tablewatcher.postgres.ring.home import Home


@pytest.mark.parametrize(
    ("generation", "timeline", "following"),
    [(1, 2, 2), (4, 2, 5), (1, 3, 3)],
    ids=["a failover", "after moves", "set back to before a failover that took the next number"],
)
def test_a_generation_is_one_that_was_never_sent(generation: int, timeline: int, following: int) -> None:
    assert Home("7", 1, timeline).next_generation(generation) == following
