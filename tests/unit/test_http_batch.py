"""Dividing a refused batch: exactly the guilty are refused, in order, whatever the batch looks like."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tablewatcher.errors import Reason
from tablewatcher.event import Event
from tablewatcher.sinks.base import DELIVERED, Outcome, Verdict
from tablewatcher.sinks.http.batch import HELD, LATE, Call, batch_body, batch_id

REFUSED = Outcome(Verdict.REJECTED, Reason.SINK_UNREACHABLE, "the endpoint answered 400 to the event")
DOWN = Outcome(Verdict.RETRY, Reason.SINK_UNREACHABLE, "the endpoint answered 503", endpoint=True)


def _event(ring_id: int, key: str | None = None, old_key: str | None = None, size: int = 10) -> Event:
    name = str(ring_id) if key is None else key
    return Event(ring_id, f"{ring_id:032x}", "u", name, old_key, "", 0.0, "", None, b"x" * size)


def _run(call: Call, answer: Callable[[list[Event]], Outcome]) -> list[list[Event]]:
    """The requests of `call`, each answered with `answer`."""
    requests = []
    while sent := call.request():
        assert len(requests) < 10_000, "it does not end"
        requests.append(list(sent))
        call.settle(answer(sent))
    return requests


def _endpoint(guilty: set[int]) -> Callable[[list[Event]], Outcome]:
    return lambda sent: REFUSED if any(event.ring_id in guilty for event in sent) else DELIVERED


KEYS = st.sampled_from("abc")
ROWS = st.lists(st.tuples(KEYS, st.none() | KEYS, st.integers(1, 60)), min_size=1, max_size=30)


@given(ROWS, st.sets(st.integers(0, 29)), st.integers(1, 30), st.integers(1, 40), st.integers(20, 300))
def test_only_the_guilty_are_refused_and_nothing_is_overtaken(
    rows: list[tuple[str, str | None, int]], guilty: set[int], size: int, largest: int, max_bytes: int
) -> None:
    events = [_event(place, *row) for place, row in enumerate(rows)]
    call = Call(events, size=min(size, largest), max_events=largest, max_bytes=max_bytes)
    requests = _run(call, _endpoint(guilty))
    accepted = [event for request in requests for event in request if _endpoint(guilty)(request) is DELIVERED]
    assert len(call.outcomes) == len(events)
    for event, outcome in zip(events, call.outcomes, strict=True):
        assert (outcome is DELIVERED) == (event in accepted)
        assert (outcome is REFUSED) <= (event.ring_id in guilty)
    assert len(accepted) == len(set(accepted)), "an accepted event was sent again"
    assert [event.ring_id for event in accepted] == sorted(event.ring_id for event in accepted)
    for place, (event, outcome) in enumerate(zip(events, call.outcomes, strict=True)):
        earlier = [
            other
            for other, before in zip(events[:place], call.outcomes[:place], strict=True)
            if before is not DELIVERED and not set(other.lane_keys).isdisjoint(event.lane_keys)
        ]
        # Held behind a refused event of its row, never for another reason, and never sent in spite of it.
        assert (outcome is HELD) == bool(earlier) or event.ring_id in guilty
        assert not (earlier and outcome is DELIVERED)
    for request in requests:
        assert len(request) <= largest
        assert len(request) == 1 or len(batch_body(request)) <= max_bytes


def test_what_is_sent_once_more_is_not_held_by_what_was_behind_it() -> None:
    """The last changes its key from one that is held: it was passed over while the ones before it were on their way."""
    events = [_event(0, "b"), *(_event(place, "a") for place in range(1, 6)), _event(6, "a", "b")]
    call = Call(events, size=1, max_events=3, max_bytes=1 << 20)
    _run(call, _endpoint({0, 5}))
    assert call.outcomes == [REFUSED, *[DELIVERED] * 4, REFUSED, HELD]


def test_one_guilty_of_many_takes_few_requests() -> None:
    events = [_event(ring_id) for ring_id in range(500)]
    for guilty in random.Random(7).sample(range(500), 20):
        call = Call(events, size=500, max_events=500, max_bytes=1 << 20)
        requests = _run(call, _endpoint({guilty}))
        assert [place for place, outcome in enumerate(call.outcomes) if outcome is not DELIVERED] == [guilty]
        assert len(requests) <= 60


@pytest.mark.parametrize("after", [1, 2])
def test_a_fault_of_the_endpoint_ends_the_call(after: int) -> None:
    events = [_event(ring_id) for ring_id in range(8)]
    call = Call(events, size=2, max_events=2, max_bytes=1 << 20)
    answers: list[Outcome] = [DELIVERED] * (after - 1) + [DOWN]
    requests = _run(call, lambda _: answers.pop(0))
    assert len(requests) == after
    assert call.outcomes == [DELIVERED] * 2 * (after - 1) + [DOWN] * (8 - 2 * (after - 1))


def test_what_there_is_no_time_for_is_neither_refused_nor_the_endpoints_fault() -> None:
    events = [_event(ring_id) for ring_id in range(8)]
    call = Call(events, size=8, max_events=8, max_bytes=1 << 20)
    call.request()
    call.settle(REFUSED)
    call.give_up()
    assert call.request() == []
    assert call.outcomes == [LATE] * 8
    assert LATE.verdict is Verdict.RETRY
    assert not LATE.endpoint
    assert call.size == 4, "the next call would only find the same"


def test_the_id_of_a_batch_is_that_of_its_events() -> None:
    events: Sequence[Event] = [_event(ring_id) for ring_id in range(3)]
    assert batch_id(events) == batch_id(list(events))
    others = [events[:2], events[1:], [events[1], events[0], events[2]], events[:1]]
    assert len({batch_id(each) for each in [events, *others]}) == 5
    assert len(batch_id(events)) == 32
