"""When to look again, and how much to read."""

from __future__ import annotations

import pytest

from tablewatcher.listener.decide.pace import (
    ARMED_SECONDS,
    BUSY_STEP,
    ENOUGH,
    HOT_SECONDS,
    LARGEST_PAGE,
    LONGEST_BUSY_STEP,
    PAGE_BYTES,
    SMALLEST_PAGE,
    Pace,
)


def test_a_page_stays_near_its_bytes() -> None:
    pace = Pace()
    pace.read(10, 10 * 262_144, 1.0)
    assert pace.page * 262_144 <= PAGE_BYTES
    pace.read(1, PAGE_BYTES, 2.0)
    assert pace.page == SMALLEST_PAGE
    for second in range(3, 40):
        pace.read(100, 100 * 300, float(second))
    assert pace.page == LARGEST_PAGE
    assert pace.high_water >= pace.page


def test_rows_that_come_fast_are_gathered() -> None:
    pace = Pace()
    for tick in range(50):
        pace.read(1, 300, tick * 0.1)
    assert not pace.busy
    for tick in range(200):
        pace.read(5, 1_500, 5.0 + tick * 0.01)
    assert pace.busy
    assert pace.hot(7.0) == BUSY_STEP


@pytest.mark.parametrize(
    ("rate", "gathered"), [(300, BUSY_STEP), (2_000, 0.02), (5_000, LONGEST_BUSY_STEP), (16_000, ENOUGH / 16_000)]
)
def test_gathered_for_longer_the_faster_they_come_but_no_more_than_enough(rate: int, gathered: float) -> None:
    pace, every = Pace(), 0.02
    for tick in range(200):
        pace.read(int(rate * every), 300, tick * every)
    assert pace.hot(200 * every) == pytest.approx(gathered, rel=0.05)


def test_pages_that_are_full_anyhow_are_not_waited_for() -> None:
    pace = Pace()
    for tick in range(200):
        pace.read(1_000, 300_000, tick * 0.015)
    assert pace.hot(3.0) == BUSY_STEP


def test_hot_after_a_row_then_asleep() -> None:
    pace = Pace()
    assert pace.hot(0.0) is None
    pace.read(1, 300, 5.0)
    assert pace.hot(5.0 + HOT_SECONDS / 2) is not None
    assert pace.hot(5.0 + HOT_SECONDS * 2) is None


def test_armed_until_disarmed_or_old() -> None:
    pace = Pace()
    assert not pace.armed(0.0)
    pace.arm(1.0)
    assert pace.armed(1.0 + ARMED_SECONDS / 2)
    assert not pace.armed(1.0 + ARMED_SECONDS)
    pace.arm(20.0)
    pace.disarm()
    assert not pace.armed(20.0)
