"""What an HTTP answer means for the event that was sent. Pure: the clock is an argument."""

from __future__ import annotations

from datetime import UTC
from email.utils import parsedate_to_datetime

from ...errors import Reason
from ..base import DELIVERED, Outcome, Verdict

MAX_RETRY_AFTER_SECONDS = 600.0
# 408 Request Timeout, 425 Too Early, 429 Too Many Requests: the same request may pass later.
_LATER = frozenset({408, 425, 429})


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
    try:
        when = parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return None
    if when.tzinfo is None:
        when = when.replace(tzinfo=UTC)
    return when.timestamp() - now


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
        return Outcome(Verdict.REJECTED, Reason.SINK_UNREACHABLE, f"the endpoint answered {status} to the event")
    return _endpoint(Reason.SINK_UNREACHABLE, f"the endpoint answered {status}", wait)


def _endpoint(reason: Reason, message: str, wait: float | None) -> Outcome:
    return Outcome(Verdict.RETRY, reason, message, endpoint=True, retry_after=wait)
