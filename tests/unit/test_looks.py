"""When a listener reads its manifests again."""

from __future__ import annotations

from tablewatcher.listener.files import RESTLESS_LOOKS, Looks


def test_at_first_they_are_read_at_once() -> None:
    assert Looks().is_due("one", None)


def test_a_change_has_to_stand_for_a_look() -> None:
    looks = Looks()
    assert [looks.is_due(seen, "one") for seen in ("one", "gone", "two", "two")] == [False, False, False, True]


def test_what_comes_back_as_it_was_is_no_change() -> None:
    looks = Looks()
    assert not any(looks.is_due(seen, "one") for seen in ("one", "gone", "one", "gone", "one"))


def test_what_never_rests_is_read_all_the_same() -> None:
    looks = Looks()
    due = [looks.is_due(nth, "one") for nth in range(RESTLESS_LOOKS + 1)]
    assert due == [False] * RESTLESS_LOOKS + [True]


def test_what_could_not_be_read_is_tried_again() -> None:
    looks = Looks()
    assert [looks.is_due("one", None) for _ in range(3)] == [True] * 3
