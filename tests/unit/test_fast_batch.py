"""What a batch of fast ingest learns from the server's answers, and which events of a call may go."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tablewatcher.errors import Reason
from tablewatcher.event import Event
from tablewatcher.sinks.base import DELIVERED, Outcome, Verdict
from tablewatcher.sinks.nats.fast_batch import FLOW, FastBatch
from tablewatcher.sinks.nats.order import HELD, Parts, distinct, sendable

REJECTED = Outcome(Verdict.REJECTED)


def ack(seq: int, msgs: int = 10) -> bytes:
    return json.dumps({"type": "ack", "seq": seq, "msgs": msgs}).encode()


def err(seq: int, code: int) -> bytes:
    return json.dumps(
        {"type": "err", "seq": seq, "error": {"code": 400, "err_code": code, "description": "d"}}
    ).encode()


def gap(last: int, seq: int) -> bytes:
    return json.dumps({"type": "gap", "last_seq": last, "seq": seq}).encode()


def done(count: int, stream: str = "SHOP") -> bytes:
    return json.dumps({"stream": stream, "seq": 77, "batch": "b", "count": count}).encode()


def refusal(code: int, status: int = 400) -> bytes:
    return json.dumps(
        {"error": {"code": status, "err_code": code, "description": "d"}, "stream": "SHOP", "seq": 0}
    ).encode()


def batch(size: int = 100) -> FastBatch:
    return FastBatch(size, "SHOP")


def test_one_message_goes_until_the_server_says_how_many_may_follow() -> None:
    made = batch(100)
    assert made.room == 1
    made.answer(1, ack(0, 10))
    assert (made.room, made.stored) == (20, 0)
    made.answer(10, ack(10, 30))
    assert (made.room, made.stored) == (70, 10)
    made.answer(40, ack(40, 30))
    assert made.room == 100


def test_an_acknowledgement_that_comes_late_takes_nothing_back() -> None:
    made = batch(100)
    made.answer(20, ack(20))
    made.answer(10, ack(10))
    assert made.stored == 20


def test_the_last_acknowledgement_ends_the_batch() -> None:
    made = batch(30)
    made.answer(1, ack(0))
    made.answer(30, done(30))
    assert (made.over, made.stored, made.room) == (True, 30, 0)


@pytest.mark.parametrize(
    ("answers", "stored", "verdict", "reason", "endpoint"),
    [
        ([(8, err(8, 10054)), (8, done(7))], 7, Verdict.REJECTED, Reason.SINK_UNREACHABLE, False),
        ([(8, err(8, 10077)), (8, done(7))], 7, Verdict.RETRY, Reason.SINK_UNREACHABLE, True),
        ([(8, err(8, 10060)), (8, done(7))], 7, Verdict.RETRY, Reason.NO_STREAM_FOR_SUBJECT, True),
        # What the error says of message 8 is no news of message 6.
        ([(8, err(8, 10054)), (8, done(5))], 5, Verdict.RETRY, Reason.SINK_UNREACHABLE, True),
        ([(9, gap(8, 9)), (9, done(7))], 7, Verdict.RETRY, Reason.SINK_UNREACHABLE, True),
        ([(5, ack(5)), (9, refusal(10208))], 5, Verdict.RETRY, Reason.SINK_UNREACHABLE, True),
        ([(1, refusal(10054))], 0, Verdict.REJECTED, Reason.SINK_UNREACHABLE, False),
        ([(8, refusal(10054)), (9, gap(8, 9)), (9, done(7))], 7, Verdict.REJECTED, Reason.SINK_UNREACHABLE, False),
        ([(5, ack(5)), (9, done(9, "OTHER"))], 0, Verdict.RETRY, Reason.NO_STREAM_FOR_SUBJECT, True),
    ],
)
def test_how_a_batch_ends_early(
    answers: list[tuple[int, bytes]], stored: int, verdict: Verdict, reason: Reason, endpoint: bool
) -> None:
    made = batch(30)
    made.answer(1, ack(0))
    for number, content in answers:
        made.answer(number, content)
    assert (made.over, made.stored) == (True, stored)
    assert made.fault is not None
    assert (made.fault.verdict, made.fault.reason, made.fault.endpoint) == (verdict, reason, endpoint)


@pytest.mark.parametrize(
    "content", [b"what?", b"", b"[]", b'{"error": "no"}', b'{"error": {"code": 400}}', b'{"ok": true}']
)
def test_whoever_is_no_stream_ends_no_batch(content: bytes) -> None:
    made = batch(30)
    made.answer(1, content)
    made.answer(1, ack(0))
    made.answer(6, content)
    assert made.doubt is not None
    assert not made.over
    made.answer(30, done(30))
    assert (made.over, made.stored) == (True, 30)


def test_nobody_listening_ends_the_batch() -> None:
    made = batch(30)
    made.answer(1, b"", {"Status": "503"})
    assert made.over
    assert made.fault is not None
    assert made.fault.reason is Reason.NO_STREAM_FOR_SUBJECT


def test_a_message_turned_away_at_the_door_leaves_a_question() -> None:
    made = batch(30)
    made.answer(1, ack(0))
    made.answer(8, refusal(10054))
    assert (made.over, made.unfinished, made.room) == (False, True, 0)


@pytest.mark.parametrize("code", [10205, 10206, 10211])
def test_a_stream_without_fast_ingest_says_so(code: int) -> None:
    made = batch(30)
    made.answer(1, refusal(code))
    assert (made.over, made.unusable, made.stored) == (True, True, 0)


def test_a_server_without_fast_ingest_has_stored_one_message() -> None:
    made = batch(30)
    made.answer(1, b'{"stream":"SHOP","seq":1}')
    assert (made.over, made.unusable) == (True, True)


def test_what_ends_a_connection_keeps_what_is_known() -> None:
    made = batch(30)
    made.answer(10, ack(10))
    lost = Outcome(Verdict.RETRY, Reason.SINK_UNREACHABLE, "lost", endpoint=True)
    made.end(lost)
    made.answer(30, done(30))
    assert (made.stored, made.fault) == (10, lost)


@given(
    contents=st.lists(
        st.one_of(
            st.binary(max_size=40),
            st.just(b'{"type": "err", "error": "no"}'),
            st.builds(ack, st.integers(0, 200), st.integers(0, FLOW)),
            st.builds(err, st.integers(0, 200), st.integers(10000, 10300)),
            st.builds(done, st.integers(0, 200)),
            st.builds(refusal, st.integers(10000, 10300)),
        ),
        max_size=12,
    )
)
def test_no_answers_make_an_exception_or_more_than_all(contents: list[bytes]) -> None:
    made = batch(100)
    for number, content in enumerate(contents, 1):
        made.answer(number, content)
        assert 0 <= made.stored <= made.size
        assert made.room <= made.size
        assert not made.over or made.fault is not None


def _event(ring_id: int, key: str, old_key: str | None = None) -> Event:
    return Event(ring_id, f"{ring_id:032x}", "u", key, old_key, "", 0.0, "", None, b"{}")


def test_no_event_overtakes_one_of_its_key() -> None:
    events = [_event(1, "a"), _event(2, "b"), _event(3, "a"), _event(4, "c", "b"), _event(5, "c"), _event(6, "d")]
    assert sendable(events, [None] * 6) == [0, 1, 2, 3, 4, 5]
    assert sendable(events, [None] * 6, one_a_key=True) == [0, 1, 5]
    assert sendable(events, [DELIVERED, REJECTED, None, None, None, None]) == [2, 5]
    # One that is held holds the next of its other key too.
    assert sendable(events, [REJECTED, None, None, None, None, DELIVERED], one_a_key=True) == [1]


def test_a_call_in_parts_has_an_outcome_for_every_event() -> None:
    events = [_event(1, "a"), _event(2, "b"), _event(3, "a"), _event(4, "c")]
    parts = Parts(events)
    assert parts.sendable() == events
    parts.settle([DELIVERED, REJECTED])
    assert parts.sendable() == events[2:]
    parts.settle([DELIVERED, DELIVERED])
    assert parts.sendable() == []
    assert parts.outcomes == [DELIVERED, REJECTED, DELIVERED, DELIVERED]


def test_what_is_refused_beforehand_holds_what_follows_it() -> None:
    events = [_event(1, "a"), _event(2, "b"), _event(3, "a")]
    parts = Parts(events, {0: REJECTED})
    assert parts.sendable() == [events[1]]
    parts.settle([DELIVERED])
    assert parts.sendable() == []
    assert parts.outcomes == [REJECTED, DELIVERED, HELD]


def test_keys_are_distinct_only_where_no_event_has_two() -> None:
    assert distinct([_event(1, "a"), _event(2, "b")])
    assert not distinct([_event(1, "a"), _event(2, "a")])
    assert not distinct([_event(1, "a"), _event(2, "c", "b")])
