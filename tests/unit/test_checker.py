"""The loss checker against seeded bad histories: each broken invariant must be named, and nothing else."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from ..acceptance.checker import Arrival, History, Kind, Outcome, check, repeats

KEYS = tuple("abcdefgh")


def arrival(key: str, version: int, event_id: str | None = None, body: bytes | None = None) -> Arrival:
    return Arrival(key, version, event_id or f"id-{key}-{version}", body or f"{key}{version}".encode())


def good(seed: int) -> tuple[History, list[Arrival]]:
    """A history of all outcomes, and what a right reader makes of it: keys mixed, each in order, a suffix again."""
    chance = random.Random(seed)
    history = History()
    lines: dict[str, list[Arrival]] = {key: [] for key in KEYS}
    for version in range(200):
        change = (chance.choice(KEYS), version)
        history.invoke(change)
        outcome = chance.choices([Outcome.OK, Outcome.FAIL, Outcome.INFO], [8, 1, 1])[0]
        history.settle([change], outcome)
        if outcome is Outcome.OK or (outcome is Outcome.INFO and chance.random() < 0.5):
            lines[change[0]].append(arrival(*change))
    arrivals = []
    while any(lines.values()):
        arrivals.append(lines[chance.choice([key for key in KEYS if lines[key]])].pop(0))
    restart = chance.randrange(20, len(arrivals))
    arrivals[restart:restart] = arrivals[restart - 15 : restart]
    return history, arrivals


def committed(history: History, arrivals: list[Arrival]) -> set[tuple[str, int]]:
    return history.ok | {found.change for found in arrivals}


def lose(history: History, arrivals: list[Arrival], chance: random.Random) -> list[Arrival]:
    gone = chance.choice(sorted(history.ok))
    return [found for found in arrivals if found.change != gone]


def reorder(_: History, arrivals: list[Arrival], chance: random.Random) -> list[Arrival]:
    key = chance.choice(KEYS)
    places = [place for place, found in enumerate(arrivals) if found.key == key]
    first = chance.choice([place for place in places if arrivals[place].version != arrivals[places[-1]].version])
    later = next(place for place in places if arrivals[place].version > arrivals[first].version)
    changed = arrivals.copy()
    # All of the earlier one's arrivals come after the later one now.
    early = [found for found in changed if found.change == arrivals[first].change]
    after = arrivals[later]
    changed = [found for found in changed if found.change != arrivals[first].change]
    at = changed.index(after) + 1
    return changed[:at] + early + changed[at:]


def window(history: History, arrivals: list[Arrival], chance: random.Random) -> tuple[int, int]:
    """A change that must arrive and does so once, and a later place of its window, where the next of its key is."""
    once = [found.change for found in arrivals]
    pairs = [
        (first, then)
        for first, found in enumerate(arrivals)
        if found.change in history.ok
        for then in range(first + 1, min(first + 40, len(arrivals)))
        if arrivals[then].key == found.key and once.count(found.change) == once.count(arrivals[then].change) == 1
    ]
    return chance.choice(pairs)


def forget_the_middle(history: History, arrivals: list[Arrival], chance: random.Random) -> list[Arrival]:
    """A connection breaks with a window under way, and whoever waits for one acknowledgement is never told."""
    first, _then = window(history, arrivals, chance)
    return arrivals[:first] + arrivals[first + 1 :]


def send_the_middle_again(history: History, arrivals: list[Arrival], chance: random.Random) -> list[Arrival]:
    """The same, and only what was lost is sent again, after what had arrived behind it."""
    first, then = window(history, arrivals, chance)
    return [*arrivals[:first], *arrivals[first + 1 : then + 1], arrivals[first], *arrivals[then + 1 :]]


def invent(_: History, arrivals: list[Arrival], chance: random.Random) -> list[Arrival]:
    return [*arrivals, arrival(chance.choice(KEYS), 10_000)]


def show_rolled_back(history: History, arrivals: list[Arrival], chance: random.Random) -> list[Arrival]:
    key, version = chance.choice([change for change, outcome in history.outcomes.items() if outcome is Outcome.FAIL])
    after = [place for place, found in enumerate(arrivals) if found.key == key and found.version < version]
    at = min(after, default=-1) + 1
    while at < len(arrivals) and not (arrivals[at].key == key and arrivals[at].version > version):
        at += 1
    return [*arrivals[:at], arrival(key, version), *arrivals[at:]]


def rename_repeat(_: History, arrivals: list[Arrival], chance: random.Random) -> list[Arrival]:
    found = chance.choice(arrivals)
    return [*arrivals, Arrival(found.key, found.version, "another", found.body)]


def rewrite_repeat(_: History, arrivals: list[Arrival], chance: random.Random) -> list[Arrival]:
    found = chance.choice(arrivals)
    return [*arrivals, Arrival(found.key, found.version, found.event_id, found.body + b" ")]


BUGS: list[tuple[Callable[[History, list[Arrival], random.Random], list[Arrival]], Kind]] = [
    (lose, Kind.LOSS),
    (reorder, Kind.ORDER),
    (forget_the_middle, Kind.LOSS),
    (send_the_middle_again, Kind.ORDER),
    (invent, Kind.PHANTOM),
    (show_rolled_back, Kind.PHANTOM),
    (rename_repeat, Kind.IDENTITY),
    (rewrite_repeat, Kind.IDENTITY),
]


@pytest.mark.parametrize("seed", range(10))
def test_a_right_reader_passes(seed: int) -> None:
    history, arrivals = good(seed)
    assert check(history, arrivals) == []
    assert len(repeats(arrivals)) == 15
    history.resolve(committed(history, arrivals))
    assert check(history, arrivals) == []


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize(("bug", "kind"), BUGS, ids=[bug.__name__ for bug, _ in BUGS])
def test_a_bug_is_caught(bug: Callable[..., list[Arrival]], kind: Kind, seed: int) -> None:
    history, arrivals = good(seed)
    spoiled = bug(history, arrivals, random.Random(seed))
    assert {found.kind for found in check(history, spoiled)} == {kind}


def test_one_id_for_two_changes_is_caught() -> None:
    history = History()
    for change in (("a", 1), ("b", 2)):
        history.invoke(change)
        history.settle([change], Outcome.OK)
    arrivals = [arrival("a", 1, "same"), arrival("b", 2, "same")]
    assert [found.kind for found in check(history, arrivals)] == [Kind.IDENTITY]


def test_what_is_missing_is_no_loss_before_the_end() -> None:
    history, arrivals = good(1)
    assert check(history, arrivals[:50], complete=False) == []
    assert {found.kind for found in check(history, arrivals[:50])} == {Kind.LOSS}


def test_an_unknown_commit_must_arrive_once_the_database_shows_it() -> None:
    history = History()
    history.invoke(("a", 1))
    history.settle([("a", 1)], Outcome.INFO)
    assert check(history, []) == []
    history.resolve([("a", 1)])
    assert [found.kind for found in check(history, [])] == [Kind.LOSS]


def test_an_unknown_commit_must_not_arrive_once_the_database_denies_it() -> None:
    history = History()
    history.invoke(("a", 1))
    history.resolve([])
    assert [found.kind for found in check(history, [arrival("a", 1)])] == [Kind.PHANTOM]


@pytest.mark.parametrize(
    ("outcome", "truth"), [(Outcome.OK, []), (Outcome.FAIL, [("a", 1)]), (Outcome.OK, [("a", 1), ("b", 2)])]
)
def test_a_history_that_the_database_contradicts_is_refused(outcome: Outcome, truth: list[tuple[str, int]]) -> None:
    history = History()
    history.invoke(("a", 1))
    history.settle([("a", 1)], outcome)
    with pytest.raises(ValueError):
        history.resolve(truth)


def test_a_version_is_used_once_and_settled_once() -> None:
    history = History()
    history.invoke(("a", 1))
    with pytest.raises(ValueError):
        history.invoke(("a", 1))
    history.settle([("a", 1)], Outcome.OK)
    with pytest.raises(ValueError):
        history.settle([("a", 1)], Outcome.FAIL)


def test_what_is_missing_within_an_announced_gap_is_no_loss() -> None:
    history, arrivals = good(1)
    missing = arrivals[0].change
    left = [found for found in arrivals if found.change != missing]
    assert {found.kind for found in check(history, left)} == {Kind.LOSS}
    assert check(history, left, announced={missing}) == []
    other = next(found.change for found in arrivals if found.change != missing)
    assert {found.kind for found in check(history, left, announced={other})} == {Kind.LOSS}
