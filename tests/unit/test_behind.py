"""How many events wait, as a listener knows between two looks at the ring."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tablewatcher.listener.decide.behind import Behind
from tablewatcher.postgres.ring.chunks import IDS_A_ROW
from tablewatcher.postgres.ring.position import Rest

from .deliveries import event

PAGE = [event(nth * IDS_A_ROW, str(nth)) for nth in range(1, 11)]
HELD = 4
SINGLE = 1 / IDS_A_ROW


@pytest.fixture
def behind() -> Iterator[Behind]:
    """Of a listener that delivers, and has four events in memory."""
    found = Behind()
    with found.delivering(lambda: HELD):
        yield found


@pytest.mark.parametrize(
    ("rest", "drawn", "unread"),
    [
        # Rows of the ring: so many behind the page, of which the last id, and so many drawn by then.
        pytest.param(Rest(90, 100, SINGLE), 100, 90, id="single rows, nothing since"),
        pytest.param(Rest(90, 100, SINGLE), 150, 140, id="single rows, and more since"),
        pytest.param(Rest(90, 1_000_000, SINGLE), 1_000_000, 90, id="what was rolled back has drawn ids"),
        pytest.param(Rest(5_000, 100, 20 / IDS_A_ROW), 100, 5_000, id="of many rows at first, then of fewer"),
        pytest.param(Rest(5_000, 100, 20 / IDS_A_ROW), 200, 7_000, id="and more since, like the last"),
        pytest.param(Rest(5_000, 100, SINGLE), 200, 5_100, id="a statement of many rows, then single rows"),
        pytest.param(Rest(90, 100, SINGLE), 50, 90, id="ids looked at before the batch"),
    ],
)
def test_the_rest_of_a_batch_is_known_and_what_came_since_is_like_its_end(
    behind: Behind, rest: Rest, drawn: int, unread: int
) -> None:
    behind.drawn(drawn * IDS_A_ROW)
    behind.read(PAGE, Rest(rest.events, rest.last_id * IDS_A_ROW, rest.events_an_id))
    assert behind.unread == unread
    assert behind.waiting == unread + HELD


def test_where_a_page_is_all_what_came_since_is_like_it(behind: Behind) -> None:
    """For somebody who knows that there is more: reading waits for room."""
    behind.read([event(IDS_A_ROW + nth, str(nth)) for nth in range(2 * IDS_A_ROW)], None)
    behind.drawn(103 * IDS_A_ROW - 1)
    assert 60 * IDS_A_ROW < behind.unread <= 100 * IDS_A_ROW


def test_ids_of_transactions_that_rolled_back_do_not_wait(behind: Behind) -> None:
    behind.drawn(1_000_000 * IDS_A_ROW)
    behind.read(PAGE, None)
    assert behind.waiting == HELD
    behind.read(PAGE, Rest(1, 11 * IDS_A_ROW, SINGLE))
    behind.caught_up()
    assert behind.waiting == HELD


def test_nothing_waits_for_a_listener_without_the_lease() -> None:
    behind = Behind()
    with behind.delivering(lambda: 9):
        behind.drawn(100 * IDS_A_ROW)
        behind.read(PAGE, Rest(90, 100 * IDS_A_ROW, SINGLE))
    assert (behind.waiting, behind.held) == (0, 0)
    with behind.delivering(lambda: 0):
        assert behind.waiting == 0, "of the lease before nothing is known any more"
        assert behind.unread == 0
