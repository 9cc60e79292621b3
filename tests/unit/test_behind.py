"""How many events wait, as a listener knows between two looks at the ring."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tablewatcher.listener.decide.behind import Behind
from tablewatcher.postgres.ring.chunks import IDS_A_ROW

from .deliveries import event

PAGE = [event(nth * IDS_A_ROW, str(nth)) for nth in range(1, 11)]


@pytest.fixture
def behind() -> Iterator[Behind]:
    """Of a listener that delivers, and has four events in memory."""
    found = Behind()
    with found.delivering(lambda: 4):
        yield found


def test_what_is_unread_and_what_is_held_wait(behind: Behind) -> None:
    behind.drawn(100 * IDS_A_ROW)
    behind.read(PAGE, last=False)
    assert behind.waiting == 90 + 4


def test_many_events_of_a_row_are_counted_as_such(behind: Behind) -> None:
    behind.drawn(100 * IDS_A_ROW)
    behind.read([event(IDS_A_ROW + nth, str(nth)) for nth in range(2 * IDS_A_ROW)], last=False)
    assert behind.waiting > 60 * IDS_A_ROW


def test_ids_of_transactions_that_rolled_back_do_not_wait(behind: Behind) -> None:
    behind.drawn(1_000_000 * IDS_A_ROW)
    behind.read(PAGE, last=True)
    assert behind.waiting == 4
    behind.read(PAGE, last=False)
    behind.caught_up()
    assert behind.waiting == 4


def test_nothing_waits_for_a_listener_without_the_lease() -> None:
    behind = Behind()
    with behind.delivering(lambda: 9):
        behind.drawn(100 * IDS_A_ROW)
        behind.read(PAGE, last=False)
    assert behind.waiting == 0
    with behind.delivering(lambda: 0):
        assert behind.waiting == 0, "of the lease before nothing is known any more"
