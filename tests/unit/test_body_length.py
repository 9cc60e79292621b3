"""How long the bodies of batches may be: learned from refusals, and tried again."""

from __future__ import annotations

from tablewatcher.sinks.http.body_length import AGAIN_SECONDS, BodyLength

MOST = 262_144


def post(length: BodyLength, now: float, takes: int) -> bool:
    """One full body to an endpoint that takes so many bytes; whether it was accepted."""
    size = length.begin(now)
    if size <= takes:
        length.accepted(size, now)
        return True
    assert length.refused(size, now, alone=False)
    assert length.begin(now) < size
    return False


def test_what_passed_bounds_what_follows_and_twice_as_much_is_tried_once_a_minute() -> None:
    length = BodyLength(MOST)
    assert not length.is_bounded
    answers = [post(length, at / 10, 60_000) for at in range(10 * 600)]
    assert answers[:4] == [False, False, False, True]
    assert length.is_bounded
    assert answers.count(False) == 3 + 9
    assert 30_000 <= length.most(599) <= 60_000


def test_a_raised_bound_is_found_at_once_when_it_is_tried() -> None:
    length = BodyLength(MOST)
    while not post(length, 0, 2_000):
        pass
    assert [post(length, AGAIN_SECONDS, MOST) for _ in range(8)] == [True] * 8
    assert not length.is_bounded


def test_a_bound_that_is_lowered_later_is_learned_too() -> None:
    length = BodyLength(MOST)
    assert post(length, 0, MOST)
    assert not length.refused(MOST, 1, alone=False), "as long a one has just passed"
    assert not post(length, AGAIN_SECONDS + 1, MOST // 2)
    assert post(length, AGAIN_SECONDS + 2, MOST // 2)


def test_what_is_said_of_an_event_bounds_nothing() -> None:
    length = BodyLength(MOST)
    length.accepted(100_000, 0)
    assert not length.refused(90_000, 1, alone=False)
    assert not length.refused(300_000, 1, alone=True)
    assert not length.is_bounded


def test_a_single_event_that_is_refused_may_have_been_all_there_was() -> None:
    """It was in the first batch ever, so nothing had passed: the ones without it may be as long as before."""
    length, size = BodyLength(MOST), MOST
    while size > 600:
        assert length.refused(size, 0, alone=False)
        size //= 2
    assert not length.refused(300, 0, alone=True)
    assert [post(length, 1, MOST) for _ in range(12)] == [True] * 12
    assert not length.is_bounded
