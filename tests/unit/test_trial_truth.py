"""What arrived in a trial, held against what was written: every kind of fault is found, and nothing else."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ..acceptance.trial.judging import faults, missing
from ..acceptance.trial.replays import unsent
from ..acceptance.trial.stretches import holes
from ..acceptance.trial.truth import Arrival, Asked, Asking, Change
from ..acceptance.trial.wide import loads, unlike

ASKED = Asked(frozenset({"insert", "update", "delete", "truncate"}))


def change(n: int, action: str = "update", key: str = "a", old_key: str | None = None, **more: str) -> Change:
    kinds = {"kind": "x", "old_kind": "x", **more}
    return Change(n, "t", action, key, old_key, kinds["kind"], kinds["old_kind"], str(n), float(n), float(n))


def arrival(of: Change, number: int = 1) -> Arrival:
    version = None if of.action == "delete" else of.n
    return Arrival(f"{of.n}/{number}", of.action, of.key, of.old_key, of.xid, version, None, 0, True)


def asking(*, parks: bool = False) -> Asking:
    found = Asking("t", parks=parks)
    found.begin(0.0, ASKED)
    return found


WRITTEN = [
    change(1, "insert"),
    change(2),
    change(3, "insert", "b"),
    change(4, key="c", old_key="a"),
    change(5, "truncate", ""),
    change(6, "insert"),
]
CAME = [arrival(each) for each in WRITTEN]


@pytest.mark.parametrize("came", [CAME, [*CAME[:3], *CAME], [CAME[2], *CAME[:2], *CAME[3:], CAME[0]]])
def test_all_is_well(came: list[Arrival]) -> None:
    """Repeats are free, and so is the order of different keys."""
    assert faults(asking(), WRITTEN, came) == []
    assert missing(asking(), WRITTEN, came) == 0


@pytest.mark.parametrize(
    ("came", "words"),
    [
        (CAME[:-1], "1 never arrived"),
        ([CAME[1], CAME[0], *CAME[2:]], "came before"),
        ([*CAME, arrival(change(7))], "was never made"),
        ([*CAME, arrival(WRITTEN[-1], 2)], "came late, or twice"),
        ([*CAME[:2], CAME[4], CAME[2], CAME[3], CAME[5]], "came before"),
        ([*CAME[:3], replace(CAME[3], old_key=None), *CAME[4:]], "came before"),
        ([*CAME, replace(CAME[2], key="d")], "id 3/1 is of"),
    ],
    ids=["lost", "order", "phantom", "two ids", "past a truncation", "old key", "one id of two"],
)
def test_a_fault_is_found(came: list[Arrival], words: str) -> None:
    found = faults(asking(), WRITTEN, came)
    assert any(words in text for text in found), found


def test_what_is_put_aside_is_passed_by_a_truncation() -> None:
    came = [CAME[4], *CAME[:4], CAME[5]]
    assert faults(asking(parks=True), WRITTEN, came) == []
    assert faults(asking(), WRITTEN, came)


def test_while_a_manifest_changes_either_may_hold() -> None:
    found, only_b = asking(), Asked(ASKED.actions, kinds=frozenset("b"))
    found.begin(2.0, only_b)
    found.settled(4.0)
    rows = [change(n, kind="x", old_kind="b" if n == 6 else "x") for n in range(1, 8)]
    assert [found.expects(each) for each in rows] == [True, None, None, None, False, True, False]


def test_by_kind_an_update_counts_where_that_has_changed() -> None:
    asked = Asked(ASKED.actions, by_kind=True)
    assert not asked.wants(change(1))
    assert asked.wants(change(1, kind="y"))
    assert asked.wants(change(1, "insert"))


@pytest.mark.parametrize(
    ("came", "words"),
    [
        (CAME, ""),
        (CAME[::-1], ""),
        ([*CAME, *CAME[2:]], ""),
        (CAME[1:], "1 never arrived"),
        ([*CAME, arrival(WRITTEN[1], 2)], "was never made, or came twice"),
        ([*CAME, arrival(change(7))], "was never made, or came twice"),
        ([replace(each, version=None) for each in CAME[1:]], "1 never arrived"),
    ],
    ids=["well", "any order", "repeats", "lost", "two ids", "phantom", "lost, without versions"],
)
def test_what_has_no_order_is_there_once(came: list[Arrival], words: str) -> None:
    unordered = asking()
    unordered.ordered = False
    found = faults(unordered, WRITTEN, came)
    assert any(words in text for text in found) if words else not found, found


def test_where_anything_may_be_lost_the_order_counts_all_the_same() -> None:
    lossy = asking()
    lossy.lossy = True
    assert missing(lossy, WRITTEN, []) == 0
    assert faults(lossy, WRITTEN, [CAME[1], CAME[3], CAME[5]]) == []
    assert faults(lossy, WRITTEN, [CAME[3], CAME[1]])
    assert faults(lossy, WRITTEN, [CAME[3], replace(CAME[1], replay=7)]) == []


@pytest.mark.parametrize("came", [CAME[1:], [*CAME[1:], CAME[0]], CAME], ids=["gone", "late", "nevertheless"])
def test_what_was_dropped_may_come_at_any_time_or_never(came: list[Arrival]) -> None:
    by_id, by_key = asking(), asking()
    by_id.dropped.add(("1", "a"))
    by_key.dropped_keys["a"] = 1.5
    for each in (by_id, by_key):
        assert faults(each, WRITTEN, came) == []
        assert missing(each, WRITTEN, came) == 0
        assert any("never arrived" in text for text in faults(each, WRITTEN, came[:1]))


ROW = [arrival(change(n)) for n in range(1, 6)]


def again(*numbers: int, replay: int = 0) -> list[Arrival]:
    return [replace(ROW[n - 1], replay=replay) for n in numbers]


@pytest.mark.parametrize(
    ("came", "well"),
    [
        ([*ROW], True),
        ([*ROW, *again(2, 3, 4, 5)], True),
        ([*ROW, *again(2, 3, 2, 3, 4)], True),
        ([*ROW[:3], *again(3, 2, 3), *ROW[3:]], True),
        ([*ROW, *again(2, 4, replay=7)], True),
        ([*ROW, *again(2), *again(3, 4, replay=7), *again(5)], True),
        ([*ROW, *again(2, 5, 3, 4, 5)], True),
        ([*ROW[:3], *again(4, 5, replay=7), *again(4, 5)], True),
        ([*ROW, *again(2, 4)], False),
        ([*ROW, *again(1, 2, 5)], False),
        ([*ROW[:4], *again(1, 3), ROW[4]], False),
    ],
    ids=[
        "once",
        "from a point",
        "twice",
        "the last",
        "replay",
        "aside",
        "a late one",
        "after a replay",
        "one left out",
        "two left out",
        "then new",
    ],
)
def test_what_is_sent_again_has_no_holes(came: list[Arrival], well: bool) -> None:
    assert (not list(holes(came))) is well


IMAGE = '{"key": "a", "version": 1, "c0": 1.50}'


@pytest.mark.parametrize(
    ("row", "every", "words"),
    [
        (IMAGE, True, []),
        ('{"key": "a", "version": 1, "c0": 1.51}', False, ["c0"]),
        ('{"key": "a", "version": 1}', False, []),
        ('{"key": "a", "version": 1}', True, ["c0"]),
        ('{"key": "a", "version": 1, "c0": 1.50, "of_another_name": null}', False, []),
        ('{"key": "a", "version": 1, "c0": null}', False, ["c0"]),
        (None, False, []),
        (None, True, ["has no row"]),
    ],
)
def test_what_an_event_holds_is_what_its_row_did(row: str | None, every: bool, words: list[str]) -> None:
    made = replace(change(1, "insert"), image=IMAGE)
    event = replace(arrival(made), after=row and loads(row))
    told = list(unlike([made], [event], every=every))
    assert len(told) == len(words)
    assert all(each in text for each, text in zip(words, told, strict=True))


def test_what_a_replay_has_not_sent() -> None:
    """What came twice counts once, and what came as it was written not at all."""
    came = [replace(arrival(WRITTEN[0]), replay=7), replace(arrival(WRITTEN[0]), replay=7), arrival(WRITTEN[1])]
    came.append(replace(arrival(WRITTEN[2]), replay=8))
    well = [(7, "1 sent again"), (8, "2 sent again; 1 of them was refused and is put aside"), (9, "0 sent again")]
    assert list(unsent(well, came)) == []
    wrong = [(7, "2 sent again"), (8, "3 sent again; 1 of them was refused and is put aside"), (9, "done")]
    assert len(list(unsent(wrong, came))) == 3
