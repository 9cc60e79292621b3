"""Where events of a trial went: what leads elsewhere than their row is found, and nothing else."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ..acceptance.trial.routes import misrouted
from ..acceptance.trial.truth import Arrival, Change

MADE = [
    Change(1, "t", "insert", "a", None, "x y", None, "1", 1.0, 1.0),
    Change(2, "t", "update", "a", None, "z", "x y", "2", 2.0, 2.0),
    Change(3, "t", "delete", "a", None, None, "z", "3", 3.0, 3.0),
    Change(4, "t", "truncate", "", None, None, None, "4", 4.0, 4.0),
]


def went(of: Change, last: str, *, watcher: str = "w", changed: bool = False) -> list[str]:
    version = of.n if of.action in ("insert", "update") else None
    each = Arrival(str(of.n), of.action, of.key, None, of.xid, version, None, 0, True, source="t", token="k")
    found = replace(each, subject=f"trial.{watcher}.{of.action}{last}")
    return list(misrouted("w", MADE, [found], changed=changed))


@pytest.mark.parametrize("last", ["", ".t", ".k"])
@pytest.mark.parametrize("of", MADE)
def test_table_and_key_are_in_place_everywhere(of: Change, last: str) -> None:
    assert went(of, last) == []


OF_ROW = [(0, ".x%20y"), (0, ".1"), (1, ".z"), (1, ".2"), (2, ".z"), (2, ".7"), (3, "._")]


@pytest.mark.parametrize(("at", "last"), OF_ROW)
def test_columns_of_the_row_are_in_place(at: int, last: str) -> None:
    assert went(MADE[at], last) == []


@pytest.mark.parametrize(("at", "last"), [(0, ".z"), (1, ".x%20y"), (1, ".1"), (2, ".x"), (3, ".z"), (0, ".other")])
def test_those_of_another_row_are_not(at: int, last: str) -> None:
    assert len(went(MADE[at], last)) == 1


def test_what_an_event_does_not_have_is_in_place_once_the_subject_was_another() -> None:
    assert len(went(MADE[0], "._")) == 1
    assert went(MADE[0], "._", changed=True) == []


def test_subjects_of_other_watchers_and_actions_are_not() -> None:
    assert len(went(MADE[0], "", watcher="other")) == 1
    assert len(went(MADE[0], "", watcher="w.update")) == 1
