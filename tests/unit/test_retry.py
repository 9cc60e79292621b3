"""How long is waited before the next attempt."""

from __future__ import annotations

import pytest

from tablewatcher.listener.decide.retry import delay
from tablewatcher.spec.model import Backoff

BACKOFF = Backoff(initial_milliseconds=200, max_seconds=300)


@pytest.mark.parametrize(
    ("attempt", "seconds"), [(1, 0.2), (2, 0.4), (3, 0.8), (11, 204.8), (12, 300), (13, 300), (10_000, 300)]
)
def test_waits_double_up_to_the_longest(attempt: int, seconds: float) -> None:
    """Each is drawn from all between nothing and that: those who failed together do not come back together."""
    assert delay(BACKOFF, attempt, 1.0) == pytest.approx(seconds)
    assert delay(BACKOFF, attempt, 0.25) == pytest.approx(seconds / 4)
    assert delay(BACKOFF, attempt, 0.0) == 0


def test_what_the_endpoint_asks_for_wins() -> None:
    assert delay(BACKOFF, 1, 0.5, 77.0) == 77.0
    assert delay(BACKOFF, 20, 0.5, 0.01) == 0.01
