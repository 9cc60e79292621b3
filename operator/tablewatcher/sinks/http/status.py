"""What an HTTP answer means for the event that was sent. Pure: the clock is an argument."""

from __future__ import annotations

import re
from datetime import UTC
from email.utils import parsedate_to_datetime

from ...errors import Reason
from ..base import DELIVERED, Outcome, Verdict

MAX_RETRY_AFTER_SECONDS = 600.0
# From here on the server says of itself that it is not well.
SERVER_ERROR = 500
# Standard Webhooks has receivers refuse what is signed five minutes off; what comes on top is their own.
CLOCKS_APART_SECONDS = 120.0
# 407 Proxy Authentication Required, 408 Request Timeout, 421 Misdirected Request, 425 Too Early, 429 Too Many Requests:
# said of the way, or of the moment. The same request may pass later.
_LATER = frozenset({407, 408, 421, 425, 429})
_TOO_LONG = 413
# 404 Not Found, 405 Method Not Allowed: said of a wrong path, before anybody has looked at the event.
_NOT_HERE = frozenset({404, 405})
_BLANK_LINE = re.compile(rb"\r?\n\r?\n")
_STATUS_LINE = re.compile(rb"HTTP/[0-9](?:\.[0-9])? ([0-9]{3})[ \r\n]")


def retry_after(value: str | None, now: float) -> float | None:
    """Seconds to wait that a Retry-After header asks for, in either form; None where it asks for nothing.

    `now` is in epoch seconds. Above 0, for an endpoint that names no wait gets the one it would have had, and never
    above 600: it cannot stop a watcher for a day.
    """
    seconds = None if value is None else _seconds(value.strip(), now)
    return min(seconds, MAX_RETRY_AFTER_SECONDS) if seconds is not None and seconds > 0 else None


def _seconds(text: str, now: float) -> float | None:
    if text.isascii() and text.isdigit():
        # The length bound: a number of a thousand digits is not worth reading.
        return float(text[:12])
    return _until(text, now)


def clocks_apart(date: str | None, now: float) -> str:
    """What to add to a refusal of something signed, where the endpoint's clock (its Date) is far from ours."""
    ahead = None if date is None else _until(date, now)
    if ahead is None or abs(ahead) <= CLOCKS_APART_SECONDS:
        return ""
    # Minutes: seconds would make another message of each attempt, which is logged and written as news.
    return (
        f"; its clock is some {abs(ahead) / 60:.0f} minutes {'ahead of' if ahead > 0 else 'behind'} ours, and a"
        " signature that is five minutes old or early is refused: set the clocks"
    )


def _until(text: str, now: float) -> float | None:
    try:
        when = parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return None
    if when.tzinfo is None:
        when = when.replace(tzinfo=UTC)
    return when.timestamp() - now


def said_status(said: bytes) -> int | None:
    """The status that an answer beginning with `said` has, however it goes on; None where that is none (yet).

    What may come before it (1xx) is passed over.
    """
    for part in _BLANK_LINE.split(said.lstrip(b"\r\n")):
        found = _STATUS_LINE.match(part)
        if found is None:
            return None
        if (status := int(found[1])) >= 200:
            return status
    return None


def outcome(status: int, retry_after_value: str | None, now: float) -> Outcome:
    """The outcome of an answer with `status`. A redirect is a failure: it is never followed."""
    if 200 <= status < 300:
        return DELIVERED
    wait = retry_after(retry_after_value, now)
    if status == 410:
        return _endpoint(
            Reason.ENDPOINT_GONE, "the endpoint answered 410 Gone: set a new URL or delete the watcher", wait
        )
    if status in (401, 403):
        return _endpoint(
            Reason.SINK_AUTH_FAILED,
            f"the endpoint answered {status}: check what spec.sink.http.headers, signing and tls.clientCertSecretRef"
            " give it against what it knows",
            wait,
        )
    if 300 <= status < 400:
        text = f"the endpoint answered {status}; redirects are not followed: set the final URL"
        return _endpoint(Reason.SINK_UNREACHABLE, text, wait)
    if 400 <= status < 500 and status not in _LATER:
        text = f"the endpoint answered {status} to the event"
        if status in _NOT_HERE:
            text += "; see whether the URL has the right path"
        return Outcome(Verdict.REJECTED, Reason.SINK_UNREACHABLE, text, too_long=status == _TOO_LONG)
    return _endpoint(Reason.SINK_UNREACHABLE, f"the endpoint answered {status}", wait)


def _endpoint(reason: Reason, message: str, wait: float | None) -> Outcome:
    return Outcome(Verdict.RETRY, reason, message, endpoint=True, retry_after=wait, answered=True)
