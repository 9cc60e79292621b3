"""Which backlogs a listener tells of, and in which words."""

from __future__ import annotations

from collections.abc import Callable

from tablewatcher.listener.draining import LEAST_EVENTS, Backlog, Draining, Figures, line

STEP = 0.25


def told(waiting: Callable[[float], float], rate: float, seconds: float = 12.0) -> list[Backlog | None]:
    """What is told at each look while so many wait at each time and so many are delivered a second."""
    draining = Draining()
    found: list[Backlog | None] = []
    for nth in range(int(seconds / STEP)):
        now = nth * STEP
        looked = draining.look([Figures("shop/orders", max(round(waiting(now)), 0), round(rate * now))], 1000 + now)
        found.append(looked[0] if looked else None)
    return found


def test_a_backlog_is_told_from_its_first_second_until_it_is_nearly_gone() -> None:
    found = told(lambda now: 10_000 - 1_000 * now, 1_000)
    shown = [nth * STEP for nth, each in enumerate(found) if each]
    assert (shown[0], shown[-1]) == (1.0, 9.25)
    assert len(shown) == (shown[-1] - shown[0]) / STEP + 1, "without a break"
    middle = found[int(5 / STEP)]
    assert middle is not None
    assert (middle.waiting, middle.delivered, middle.rate, middle.left) == (5_000, 5_000, 1_000, 5)
    assert (middle.done, middle.age) == (0.5, 5)


def test_what_is_under_way_while_rows_come_fast_is_no_backlog() -> None:
    assert not any(told(lambda _: 15_000, 20_000))


def test_a_few_events_are_none_and_neither_is_what_is_gone_within_a_second() -> None:
    assert not any(told(lambda _: LEAST_EVENTS - 1, 0))
    assert not any(told(lambda now: 900 - 1_000 * now, 1_000))


def test_where_nothing_is_delivered_no_end_is_promised() -> None:
    last = told(lambda _: 500, 0)[-1]
    assert last is not None
    assert (last.rate, last.left) == (0, None)


def test_where_writers_are_as_fast_no_end_is_promised() -> None:
    last = told(lambda _: 50_000, 1_000)[-1]
    assert last is not None
    assert (last.rate, last.left) == (1_000, None)


def test_a_watcher_that_begins_anew_counts_what_is_delivered_from_then_on() -> None:
    """With another manifest, in the middle of a backlog that is told."""
    draining = Draining()
    before = [(8_000 - 500 * nth, 4_000 + 500 * nth) for nth in range(8)]
    anew = [(4_000 - 500 * nth, 500 * nth) for nth in range(6)]
    for nth, counted in enumerate([*before, *anew]):
        found = draining.look([Figures("shop/orders", *counted)], 1000 + nth * STEP)
    assert [(each.delivered, each.rate, each.done) for each in found] == [(2_500, 2_000, 0.625)]


def backlog(name: str, left: float | None, done: float = 0.5) -> Backlog:
    return Backlog(name, 1_234_567, 1_000, 2_500.4, left, done, 3)


def test_the_line() -> None:
    assert line([]) == ""
    assert line([backlog("shop/a", 90)]) == (
        "[##########..........] shop/a: 1,234,567 wait, 1,000 delivered, 2,500/s, 90 s left"
    )
    assert line([backlog("shop/a", None, 1.0), backlog("shop/b", 7_300)]) == (
        "[####################] shop/a: 1,234,567 wait, 1,000 delivered, 2,500/s"
        "   [##########..........] shop/b: 1,234,567 wait, 1,000 delivered, 2,500/s, 2 h left"
    )


def test_many_are_told_as_one() -> None:
    many = [backlog(f"shop/{nth}", 10.0 * nth) for nth in range(4)]
    assert line(many) == "[##########..........] 4 watchers: 4,938,268 wait, 4,000 delivered, 10,002/s, 30 s left"
    assert line([*many, backlog("shop/x", None)]).endswith("12,502/s")
