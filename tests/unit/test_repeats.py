"""When events for a stream with copies may go in batches: not while one of them may be a repeat."""

from __future__ import annotations

import re
from itertools import count

import pytest

from tablewatcher.errors import Reason
from tablewatcher.event import Event
from tablewatcher.sinks.base import DELIVERED, Outcome, Verdict
from tablewatcher.sinks.nats.order import HELD
from tablewatcher.sinks.nats.pub_ack import REPEATED, good_answer, outcome
from tablewatcher.sinks.nats.repeats import Repeats

LOST = Outcome(Verdict.RETRY, Reason.SINK_UNREACHABLE, "lost", endpoint=True)
REFUSED = Outcome(Verdict.RETRY, Reason.SINK_UNREACHABLE, "for this event", endpoint=False)
_ids = count(1)


def events(number: int) -> list[Event]:
    return [Event(at, f"e{at}", "i", "k", None, "", 0.0, "", None, b"{}") for at in (next(_ids) for _ in range(number))]


def after_a_start() -> Repeats:
    made = Repeats()
    while made.possible:
        some = events(1000)
        made.settled(some, [DELIVERED] * 1000)
    return made


def test_a_start_ends_when_enough_new_events_have_come_in_a_row() -> None:
    made = Repeats()
    for _ in range(8):
        made.settled(events(1000), [DELIVERED] * 1000)
    made.settled(events(1000), [DELIVERED] * 999 + [REPEATED])
    for _ in range(8):
        made.settled(events(1000), [DELIVERED] * 1000)
        assert made.possible
    made.settled(events(192), [DELIVERED] * 192)
    assert not made.possible


@pytest.mark.parametrize("told", [DELIVERED, REPEATED])
def test_what_was_sent_and_not_answered_may_be_a_repeat_until_it_is_told_as_stored(told: Outcome) -> None:
    made, (one, other) = after_a_start(), events(2)
    made.settled([one, other], [DELIVERED, LOST])
    assert made.possible
    made.settled(more := events(9000), [DELIVERED] * len(more))
    made.settled([other], [HELD])
    assert made.possible, "it has not been sent again"
    made.settled([other], [told])
    made.settled(more := events(9000), [DELIVERED] * len(more))
    assert not made.possible


def test_what_the_server_refuses_is_not_stored() -> None:
    made, (one,) = after_a_start(), events(1)
    made.settled([one], [LOST])
    made.settled([one], [REFUSED])
    assert not made.possible


def test_after_a_call_that_was_given_up_nothing_is_known() -> None:
    made = after_a_start()
    made.unknown()
    assert made.possible


@pytest.mark.parametrize("stream", ["SHOP", None])
@pytest.mark.parametrize("middle", [b"", b',"domain":"d"'])
def test_an_answer_to_a_repeat_is_never_taken_for_one_to_a_new_event(stream: str | None, middle: bytes) -> None:

    new, repeat = b'{"stream":"SHOP"%b,"seq":7}' % middle, b'{"stream":"SHOP"%b,"seq":7,"duplicate": true}' % middle
    assert re.fullmatch(good_answer(stream), new)
    assert re.fullmatch(good_answer(stream), b'{"stream":"SHOP"%b,"seq":7,"batch":"b","count":3}' % middle)
    assert not re.fullmatch(good_answer(stream), repeat)
    assert not re.fullmatch(good_answer(stream), b'{"stream":"SHOP","seq":7,"x":1,"duplicate":true}')
    assert outcome(new, None, stream) is DELIVERED
    assert outcome(repeat, None, stream) is REPEATED
    assert REPEATED.verdict is Verdict.DELIVERED
