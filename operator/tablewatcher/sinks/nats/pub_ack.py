"""What the server answered to a publish, as an outcome. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import TypeGuard

from ...errors import Reason, in_short
from ..base import DELIVERED, Outcome, Verdict

_NO_RESPONDERS = "503"
_STATUS = "Status"

# JetStream error codes (err_code of its API).
_STREAM_MISMATCH = 10060
# JetStream not enabled for the account, stream not found, JetStream not enabled, stream sealed.
_NO_SUCH_STREAM = frozenset({10039, 10059, 10076, 10109})
# Message over the stream's max_msg_size, headers over 64 KiB.
_TOO_LARGE = frozenset({10054, 10097})
# Out of resources, store failed or stream full, more at once than the server keeps waiting for a stream
# (max_buffered_msgs).
_BUSY = frozenset({10002, 10008, 10023, 10028, 10047, 10077, 10167})
# A plain publish of what is being stored, or was lost on the way to it; see `repeats.py`.
_IN_PROCESS = 10158
# Full for one subject only, in a stream with discard_new_per_subject.
_FULL, _OF_SUBJECT = 10077, "per subject"


# Seconds after which an event in process is worth another attempt.
_IN_PROCESS_SECONDS = 2.0


def unreachable(message: str) -> Outcome:
    """The connection is at fault; nothing is known of the message."""
    return Outcome(Verdict.RETRY, Reason.SINK_UNREACHABLE, message, endpoint=True)


def no_stream(message: str) -> Outcome:
    """No stream takes the message."""
    return Outcome(Verdict.RETRY, Reason.NO_STREAM_FOR_SUBJECT, message, endpoint=True)


FOREIGN = unreachable(
    "somebody who is no stream answers what is published on the subject, and no acknowledgement of JetStream has come:"
    " check that a stream takes the subject, and what replies there"
)


def outcome(data: bytes, headers: Mapping[str, str] | None, stream: str | None) -> Outcome:
    """The outcome that answer `data` stands for; `stream` is the one that must have stored it, None for any.

    FOREIGN: it is none of JetStream's. A service that replies to all it gets may listen on the subject too, and be
    faster than a stream that stores: the stream's own answer may follow. A duplicate is delivered, where it has a
    sequence: the stream has the event already.
    """
    if headers and headers.get(_STATUS) == _NO_RESPONDERS:
        return no_stream(
            "no stream answers on the subject: create one, or add the subject to one; a cluster that elects a leader "
            "answers again by itself"
        )
    try:
        answer = json.loads(data)
        error = answer.get("error")
        stored, sequence = answer.get("stream"), answer.get("seq")
    except (ValueError, AttributeError):
        return FOREIGN
    if error:
        return refused(error) if is_error(error) else FOREIGN
    if not isinstance(stored, str) or not stored:
        return FOREIGN
    if stream is not None and stored != stream:
        return no_stream(
            f"stream {in_short(stored)!r} stored the event, and not {stream!r}: check which stream has the subject, "
            "and spec.sink.nats.jetStream.stream"
        )
    if answer.get("duplicate") and not sequence:
        return _in_process("JetStream knows the event and has not stored it")  # nats-server 2.10
    return DELIVERED


def _in_process(text: str) -> Outcome:
    """An earlier attempt is noted, and not stored for good. It is not the event's fault, and others may go on."""
    message = (
        f"{text}: the cluster does not have it for good yet. Most of its servers must run; where they do and this goes"
        " on, have the stream's leader step down (nats stream cluster step-down), or wait for its duplicate window"
    )
    return Outcome(Verdict.RETRY, Reason.SINK_UNREACHABLE, message, retry_after=_IN_PROCESS_SECONDS)


def is_error(error: object) -> TypeGuard[Mapping[str, object]]:
    """Whether `error` of an answer is one of JetStream's."""
    return isinstance(error, Mapping) and isinstance(error.get("err_code"), int)


def refused(error: Mapping[str, object]) -> Outcome:
    """The outcome that `error` of a JetStream answer stands for."""
    code, status = error.get("err_code"), error.get("code")
    description = in_short(error.get("description", "no description"))
    text = f"JetStream refused the event: {description} (error {in_short(code)})"
    if code == _STREAM_MISMATCH:
        return no_stream(f"{text}: the subject belongs to another stream than spec.sink.nats.jetStream.stream")
    if code in _NO_SUCH_STREAM:
        return no_stream(text)
    if code == _IN_PROCESS:
        return _in_process(text)
    if code in _TOO_LARGE:
        return Outcome(Verdict.REJECTED, Reason.SINK_UNREACHABLE, text)
    at_endpoint = code in _BUSY or (isinstance(status, int) and status >= 500)
    if code == _FULL and _OF_SUBJECT in text:
        at_endpoint = False
    return Outcome(Verdict.RETRY, Reason.SINK_UNREACHABLE, text, endpoint=at_endpoint)


def good_answer(stream: str | None) -> bytes:
    """A pattern for the bytes of a PubAck that `outcome` would find good; it need look at the others only."""
    name = b'[^"\\\\]+' if stream is None else re.escape(stream.encode())
    return b'\\{"stream":"%b",(?:"domain":"[^"]*",)? ?"seq":[1-9][0-9]*(?:,[^\\r\\n{}]*)?\\}' % name
