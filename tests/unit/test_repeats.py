"""When events for a stream with copies may go in batches: not while one of them may be a repeat."""

from __future__ import annotations

import re

import pytest

from tablewatcher.errors import Reason
from tablewatcher.event import Event
from tablewatcher.listener.decide.blame import Blame
from tablewatcher.sinks.base import DELIVERED, Outcome, Verdict
from tablewatcher.sinks.nats.order import HELD
from tablewatcher.sinks.nats.pub_ack import good_answer, outcome, refused
from tablewatcher.sinks.nats.repeats import Repeats
from tablewatcher.spec.model import DeliveryPolicy

LOST = Outcome(Verdict.RETRY, Reason.SINK_UNREACHABLE, "lost", endpoint=True)
REFUSED = Outcome(Verdict.RETRY, Reason.SINK_UNREACHABLE, "for this event", endpoint=False)
IN_PROCESS = refused({"code": 409, "err_code": 10158, "description": "duplicate message id is in process"})


def event(number: int) -> Event:
    return Event(number, f"e{number}", "i", "k", None, "", 0.0, "", None, b"{}")


def long_open() -> Repeats:
    return Repeats(-1000.0)


def test_what_was_sent_before_us_is_forgotten_after_the_streams_window() -> None:
    made = Repeats(100.0)
    made.window = 60.0
    assert made.possible(100.0)
    assert made.possible(164.0)
    assert not made.possible(166.0)


@pytest.mark.parametrize("came_of_it", [LOST, REFUSED, IN_PROCESS, HELD])
def test_what_is_not_acknowledged_may_be_a_repeat_until_it_is_told_as_stored(came_of_it: Outcome) -> None:
    made = long_open()
    made.settled([event(1), event(2)], [DELIVERED, came_of_it], 0.0)
    assert made.possible(1.0)
    made.settled([event(3)], [DELIVERED], 2.0)
    assert made.possible(3.0)
    made.settled([event(2)], [DELIVERED], 4.0)
    assert not made.possible(5.0)


def test_what_is_never_sent_again_is_forgotten_with_the_window() -> None:
    made = long_open()
    made.window = 60.0
    made.settled([event(1)], [LOST], 0.0)
    made.settled([event(2)], [LOST], 30.0)
    made.settled([event(1)], [LOST], 40.0)
    assert made.possible(96.0), "the one that was tried last is remembered the longest"
    made.settled([event(3)], [DELIVERED], 97.0)
    assert made.possible(104.0)
    assert not made.possible(106.0)


def test_what_is_forgotten_is_not_kept_though_nobody_asks() -> None:
    """As on a stream of one copy: it would grow with each event put aside, and every call would go through it."""
    made = long_open()
    made.settled([event(1)], [LOST], 0.0)
    made.settled([event(2)], [DELIVERED], 1000.0)
    assert not made._doubtful


@pytest.mark.parametrize("stream", ["SHOP", None])
@pytest.mark.parametrize("middle", [b"", b',"domain":"d"'])
def test_a_repeat_that_is_stored_is_delivered_and_one_that_is_only_noted_is_not(
    stream: str | None, middle: bytes
) -> None:
    stored = b'{"stream":"SHOP"%b,"seq":7,"duplicate": true}' % middle
    noted = b'{"stream":"SHOP"%b,"seq":0,"duplicate": true}' % middle
    assert re.fullmatch(good_answer(stream), stored)
    assert outcome(stored, None, stream) is DELIVERED
    assert not re.fullmatch(good_answer(stream), noted)
    assert outcome(noted, None, stream).verdict is Verdict.RETRY


def test_an_event_that_is_only_noted_is_never_given_up_and_holds_up_no_other() -> None:
    blame = Blame(DeliveryPolicy(), lambda: 0.5, lambda _: 0.0)
    for nth in range(100):
        blame.delivered([event(1000 + nth)])
        wait = blame.failed(event_in_process, IN_PROCESS, float(nth), company=1, first=True)
        assert wait is not None
        assert wait >= 2.0
    assert not blame.is_exhausted(event_in_process)
    assert blame.circuit.failures == 0


event_in_process = event(1)
