"""Events as the bytes of publishes: HPUB commands of the NATS protocol. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from ...errors import Reason
from ...event import ACTION_NAMES, DATA_CONTENT_TYPE, STRUCTURED_CONTENT_TYPE, TYPES, Event
from ...naming import token
from ...spec.model import Format, NatsSink, Table
from ..base import Outcome, Verdict
from ..binary_mode import header_value
from .subject import MAX_BYTES, Subject, subject

_TOKEN = re.compile(r"[A-Za-z0-9_%,-]+\Z")
# More than the headers of a message ever take: only bodies this near to a bound are looked at closely.
_HEADERS_BYTES = 32 << 10


class MessageWriter:
    """Writes the events of one watcher. `subjects` maps an action's letter to where its events go.

    routing_columns: those of the watcher, see `Event.routing`.
    """

    def __init__(
        self,
        spec: NatsSink,
        *,
        format: Format,  # noqa: A002 - the word of the manifest
        source: str,
        table: Table,
        routing_columns: Sequence[str] = (),
    ) -> None:
        self.subjects: dict[str, Subject] = {
            op: subject(spec.subject, table, name, routing_columns) for op, name in ACTION_NAMES.items()
        }
        self._fixed = self._without_slots()
        # Words of a row no longer than this cannot make its subject too long, even with every sign as four times %XX.
        self._short = min(MAX_BYTES - each.least for each in self.subjects.values()) // 12
        self._short //= max(1, *(len(each.slots) for each in self.subjects.values()))
        subject_of_event = header_value(f"{token(table.schema)}.{token(table.name)}/")
        self._ce_of = {
            op: f"\r\nce-specversion: 1.0\r\nce-source: {header_value(source)}\r\nce-type: {kind}"
            f"\r\nce-datacontenttype: {DATA_CONTENT_TYPE}\r\nce-subject: {subject_of_event}"
            for op, kind in TYPES.items()
        }
        self._binary = format is Format.BINARY
        content_type = DATA_CONTENT_TYPE if self._binary else STRUCTURED_CONTENT_TYPE
        self._head = f"NATS/1.0\r\nContent-Type: {content_type}\r\n"
        if spec.jet_stream and spec.stream is not None:
            # Only where the manifest names one: whoever runs NATS may move a subject between streams.
            self._head += f"Nats-Expected-Stream: {spec.stream}\r\n"
        self._head += "Nats-Msg-Id: "
        # What follows in a header is ASCII: its length in characters and this are its length in bytes.
        self._surplus = len(self._head.encode()) - len(self._head)

    def send_gaps_as(self, op: str) -> None:
        """From now on gap events go to the subject of action `op`; their type still says what they are."""
        self.subjects["g"] = self.subjects[op]
        self._fixed = self._without_slots()

    def commands(self, events: Iterable[Event], reply: str, first: int = 0, tail: str = "") -> bytes:
        """The commands that publish `events`; the answer to event `i` comes to `<reply><first + i><tail>`.

        An empty `reply` asks for no answers. None of `events` may be one that `refused` names.
        """
        parts: list[bytes] = []
        add, fixed, head, surplus = parts.append, self._fixed, self._head, self._surplus
        binary, lines = self._binary, self._ce_lines
        # One format, one encoding and three appends an event: this loop is most of what a delivery costs here.
        for number, event in enumerate(events, first):
            body = event.body
            name = event.message_id if event.replay else event.event_id
            headers = f"{head}{name}{lines(event)}" if binary else f"{head}{name}"
            length = len(headers) + surplus + 4
            target = fixed.get(event.op) or self._of_row(event)
            answer = f"{reply}{number}{tail} " if reply else ""
            add(f"HPUB {target} {answer}{length} {length + len(body)}\r\n{headers}\r\n\r\n".encode())
            add(body)
            add(b"\r\n")
        return b"".join(parts)

    def empty(self, event: Event, reply: str) -> bytes:
        """A publish without content to the subject of `event`: for messages that only ask the server something."""
        target = self._fixed.get(event.op) or self._of_row(event)
        return f"PUB {target} {reply} 0\r\n\r\n".encode()

    def refused(self, events: Sequence[Event], max_payload: int, max_stored: int | None) -> dict[int, Outcome]:
        """The places of those of `events` that must not be sent, and why: the server would cut the connection.

        max_payload: the server's bound in bytes for headers and body; max_stored: the stream's, None: no bound.
        """
        largest = max_payload if max_stored is None else min(max_payload, max_stored)
        near = largest - _HEADERS_BYTES
        found = {
            place: _too_large(size, max_payload, max_stored)
            for place, event in enumerate(events)
            if len(event.body) > near and (size := self._size(event)) > largest
        }
        if len(self._fixed) < len(self.subjects):
            short = self._short
            found |= {
                place: _TOO_LONG
                for place, event in enumerate(events)
                if (len(event.key) > short or (event.routing and max(map(len, event.routing)) > short))
                and len((self._fixed.get(event.op) or self._of_row(event)).encode()) > MAX_BYTES
            }
        return found

    def _size(self, event: Event) -> int:
        more = self._ce_lines(event) if self._binary else ""
        return len(self._head) + self._surplus + len(event.message_id) + len(more) + 4 + len(event.body)

    def _without_slots(self) -> dict[str, str]:
        return {op: each.texts[0] for op, each in self.subjects.items() if not each.slots}

    def _of_row(self, event: Event) -> str:
        routing = event.routing
        return self.subjects[event.op].of(_safe(event.key), routing and [_safe(word) for word in routing])

    def _ce_lines(self, event: Event) -> str:
        """The `ce-*` headers, as `binary_mode.ce_headers` gives them: eight of them, in one format."""
        key = header_value(event.key)
        more = f"\r\nce-traceparent: {header_value(event.traceparent)}" if event.traceparent else ""
        if event.replay:
            more += f"\r\nce-replay: {event.replay}"
        return (
            f"\r\nce-id: {event.event_id}{self._ce_of[event.op]}{key}\r\nce-time: {event.time}"
            f"\r\nce-sequence: {event.sequence}\r\nce-partitionkey: {key}{more}"
        )


def _safe(word: str) -> str:
    # A token by contract; what is not would break the line, and the connection with it.
    return word if (word.isalnum() and word.isascii()) or _TOKEN.match(word) else token(word)


_TOO_LONG = Outcome(
    Verdict.REJECTED,
    Reason.SINK_UNREACHABLE,
    f"the event's subject is longer than {MAX_BYTES} bytes: leave {{key}} or {{column:NAME}} out of "
    "spec.sink.nats.subject, or use a column with shorter values",
)


def _too_large(size: int, max_payload: int, max_stored: int | None) -> Outcome:
    stream = max_stored is not None and max_stored < max_payload
    whose = f"the stream takes {max_stored}" if stream else f"the NATS server takes {max_payload}"
    bound = "max_msg_size of the stream" if stream else "max_payload on the server, or this user's limit"
    return Outcome(
        Verdict.REJECTED,
        Reason.SINK_UNREACHABLE,
        f"the event has {size} bytes and {whose}: send fewer columns, or raise {bound}",
    )
