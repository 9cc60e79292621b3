"""How long a try for a lock may wait: from looks at who holds the table."""

from __future__ import annotations

from collections.abc import Callable, Set

import pytest

from tablewatcher.postgres.install.lock_outlook import LONGEST, SHORT, LockOutlook

EVERY = 0.025


def looked(outlook: LockOutlook, holders: Callable[[float], Set[str]], since: float, until: float) -> float:
    """Looks all the while; the time of the last look."""
    looks = round((until - since) / EVERY)
    for nth in range(looks + 1):
        outlook.saw(holders(since + nth * EVERY), since + nth * EVERY)
    return since + looks * EVERY


def back_to_back(length: float, clients: int = 1) -> Callable[[float], Set[str]]:
    """Each begins its next transaction of so many seconds when the last has ended, one after another."""
    return lambda now: {
        f"{client}/{int((now + 100 + client * length / clients) / length)}" for client in range(clients)
    }


def test_without_looks_a_try_is_short() -> None:
    outlook = LockOutlook()
    assert [outlook.next_try(now) for now in (0.0, 1.0, 20.0)] == [SHORT] * 3


@pytest.mark.parametrize("others", [0, 1, 8])
@pytest.mark.parametrize("length", [0.01, 0.2, 0.4])
def test_beside_one_that_stays_open_every_try_is_short(others: int, length: float) -> None:
    outlook = LockOutlook()
    others_at = back_to_back(length, others)
    now, tries = 0.0, []
    while now < 20:
        tries.append(outlook.next_try(now))
        now = looked(outlook, lambda now: {"open", *others_at(now)}, now + tries[-1], now + tries[-1] + 0.4)
        assert not outlook.promising(now)
    assert set(tries) == {SHORT}


@pytest.mark.parametrize("clients", [3, 8])
@pytest.mark.parametrize("length", [0.15, 0.2, 0.3])
def test_where_the_table_is_never_free_a_try_is_as_long_as_it_has_to_be(clients: int, length: float) -> None:
    outlook = LockOutlook()
    assert outlook.next_try(0.0) == SHORT
    now = looked(outlook, back_to_back(length, clients), SHORT, 0.6)
    assert outlook.promising(now)
    needed = length * (clients - 1) / clients
    assert needed <= outlook.next_try(now) <= length * 1.5


def test_a_try_that_failed_was_too_short() -> None:
    outlook = LockOutlook()
    now, tries = 0.0, []
    for _ in range(10):
        now = looked(outlook, back_to_back(0.1, 2), now, now + 0.3)
        tries.append(outlook.next_try(now))
        now += tries[-1]
    assert tries == sorted(tries)
    assert tries[-1] == LONGEST


def test_long_ones_are_met_near_their_end() -> None:
    """No try may be as long as they are: at most times, one would hold up writers for nothing."""
    outlook = LockOutlook()
    holders = back_to_back(2.0)
    promising = []
    for nth in range(400):
        outlook.saw(holders(nth * EVERY), nth * EVERY)
        promising += [nth * EVERY % 2] if outlook.promising(nth * EVERY) else []
    assert promising
    assert min(promising) > 2 - LONGEST
    now = looked(outlook, holders, 10.0, 11.0)
    assert outlook.next_try(now) == SHORT
    now = looked(outlook, holders, now + SHORT, 11.75)
    assert outlook.next_try(now) == LONGEST


def test_nobody_holds_it() -> None:
    outlook = LockOutlook()
    outlook.saw(set(), 0.0)
    assert outlook.promising(0.0)
    assert outlook.next_try(0.0) == SHORT
    looked(outlook, lambda _: {"open"}, 0.1, 5.0)
    outlook.saw(set(), 5.1)
    assert outlook.promising(5.1)
    assert outlook.next_try(5.1) == SHORT
