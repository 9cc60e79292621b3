"""What each HTTP answer means for the event, and for the endpoint."""

from __future__ import annotations

from email.utils import formatdate

import pytest

from tablewatcher.errors import Reason
from tablewatcher.sinks.base import Verdict
from tablewatcher.sinks.http.status import MAX_RETRY_AFTER_SECONDS, clocks_apart, outcome, retry_after, said_status

NOW = 1_800_000_000.0


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
def test_2xx_is_delivered(status: int) -> None:
    assert outcome(status, None, NOW).verdict is Verdict.DELIVERED


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (301, Reason.SINK_UNREACHABLE),
        (302, Reason.SINK_UNREACHABLE),
        (304, Reason.SINK_UNREACHABLE),
        (307, Reason.SINK_UNREACHABLE),
        (401, Reason.SINK_AUTH_FAILED),
        (403, Reason.SINK_AUTH_FAILED),
        (407, Reason.SINK_UNREACHABLE),
        (408, Reason.SINK_UNREACHABLE),
        (421, Reason.SINK_UNREACHABLE),
        (410, Reason.ENDPOINT_GONE),
        (425, Reason.SINK_UNREACHABLE),
        (429, Reason.SINK_UNREACHABLE),
        (500, Reason.SINK_UNREACHABLE),
        (502, Reason.SINK_UNREACHABLE),
        (503, Reason.SINK_UNREACHABLE),
        (504, Reason.SINK_UNREACHABLE),
        (599, Reason.SINK_UNREACHABLE),
    ],
)
def test_the_endpoint_is_at_fault(status: int, reason: Reason) -> None:
    found = outcome(status, "7", NOW)
    assert (found.verdict, found.reason, found.endpoint) == (Verdict.RETRY, reason, True)
    assert found.retry_after == 7.0
    assert str(status) in found.message


@pytest.mark.parametrize("status", [400, 402, 404, 405, 409, 411, 413, 415, 422, 451])
def test_the_event_is_at_fault(status: int) -> None:
    found = outcome(status, None, NOW)
    assert (found.verdict, found.endpoint) == (Verdict.REJECTED, False)
    assert ("the right path" in found.message) == (status in (404, 405))


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        ("0", None),
        ("000", None),
        ("120", 120.0),
        (" 5 ", 5.0),
        ("86400", MAX_RETRY_AFTER_SECONDS),
        ("9" * 400, MAX_RETRY_AFTER_SECONDS),
        ("-3", None),
        ("1.5", None),
        ("soon", None),
        ("", None),
        ("²", None),
        (formatdate(NOW + 30, usegmt=True), 30.0),
        (formatdate(NOW - 30, usegmt=True), None),
        (formatdate(NOW, usegmt=True), None),
        (formatdate(NOW + 1e6, usegmt=True), MAX_RETRY_AFTER_SECONDS),
        ("Mon, 99 Foo 2026 00:00:00 GMT", None),
    ],
)
def test_retry_after_in_both_forms(value: str | None, seconds: float | None) -> None:
    assert retry_after(value, NOW) == seconds


HINTS = b"HTTP/1.1 103 Early Hints\r\nLink: HTTP/1.1 200 OK\r\n\r\n"


@pytest.mark.parametrize(
    ("said", "status"),
    [
        (b"HTTP/1.1 200 OK\r\nX: \x00", 200),
        (b"HTTP/1.0 503\r\n", 503),
        (b"HTTP/2 204\n", 204),
        (b"\r\nHTTP/1.1 404 Not Found", 404),
        (HINTS + b"HTTP/1.1 100 Continue\n\nHTTP/1.1 400 Bad", 400),
        (HINTS, None),
        (b"HTTP/1.1 200", None),  # perhaps 2000
        (b"HTTP/1.1 2000 OK\r\n", None),
        (b"HTTP/1.1 20 OK\r\n", None),
        (b"SSH-2.0-OpenSSH\r\n\r\nHTTP/1.1 200 OK\r\n", None),
        (b"", None),
    ],
)
def test_the_status_is_in_the_first_line(said: bytes, status: int | None) -> None:
    assert said_status(said) == status


@pytest.mark.parametrize(
    ("date", "words"),
    [
        (formatdate(NOW + 400, usegmt=True), "some 7 minutes ahead of ours"),
        (formatdate(NOW - 7200, usegmt=True), "some 120 minutes behind ours"),
        (formatdate(NOW + 60, usegmt=True), ""),
        ("123456", ""),
        ("yesterday", ""),
        (None, ""),
    ],
)
def test_clocks_that_are_far_apart_are_told(date: str | None, words: str) -> None:
    found = clocks_apart(date, NOW)
    assert words in found
    assert bool(found) == bool(words)
    # The answer to the next attempt, its time cut off elsewhere, is no other news.
    assert clocks_apart(date, NOW + 0.9) == found
