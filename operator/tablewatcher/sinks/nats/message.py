"""An event as the bytes of a publish: the HPUB command of the NATS protocol. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable

from ...errors import Reason, SinkError
from ...event import ACTION_NAMES, DATA_CONTENT_TYPE, STRUCTURED_CONTENT_TYPE, Event, attributes
from ...naming import token
from ...spec.model import Format, NatsSink, Table
from ..binary_mode import ce_headers
from .subject import Subject, subject

_TOKEN = re.compile(r"[A-Za-z0-9_%,-]+\Z")
_STREAM = re.compile(r"[^\s.*>/\\\x00-\x1f\x7f]+\Z")


class MessageWriter:
    """Writes the events of one watcher. `subjects` maps an action's letter to where its events go."""

    def __init__(self, spec: NatsSink, *, format: Format, source: str, table: Table) -> None:  # noqa: A002
        self.subjects: dict[str, Subject] = {
            op: subject(spec.subject, table, name) for op, name in ACTION_NAMES.items()
        }
        self._fixed = {op: each.parts[0] for op, each in self.subjects.items() if len(each.parts) == 1}
        self._source = source
        self._table = f"{token(table.schema)}.{token(table.name)}"
        binary = format is Format.BINARY
        self._more: Callable[[Event], str] = self._ce_lines if binary else _nothing
        content_type = DATA_CONTENT_TYPE if binary else STRUCTURED_CONTENT_TYPE
        self._head = f"NATS/1.0\r\nContent-Type: {content_type}\r\n"
        if spec.stream is not None:
            if not _STREAM.match(spec.stream):
                raise SinkError(
                    Reason.SPEC_INVALID,
                    f"spec.sink.nats.jetStream.stream: {spec.stream!r} is no stream name: "
                    "leave out spaces, dots, slashes and wildcards",
                )
            # Only where the manifest names one: whoever runs NATS may move a subject between streams.
            self._head += f"Nats-Expected-Stream: {spec.stream}\r\n"
        self._head += "Nats-Msg-Id: "

    def send_gaps_as(self, op: str) -> None:
        """From now on gap events go to the subject of action `op`; their type still says what they are."""
        self.subjects["g"] = self.subjects[op]
        self._fixed = {op: each.parts[0] for op, each in self.subjects.items() if len(each.parts) == 1}

    def write(self, event: Event, reply: str) -> tuple[bytes, int]:
        """The command that publishes `event` with `reply`, and its size as the server counts it."""
        headers = f"{self._head}{event.event_id}{self._more(event)}\r\n\r\n".encode()
        body = event.body
        target = self._fixed.get(event.op) or self._keyed(event)
        size = len(headers) + len(body)
        line = f"HPUB {target} {reply} {len(headers)} {size}\r\n".encode()
        return b"%b%b%b\r\n" % (line, headers, body), size

    def _keyed(self, event: Event) -> str:
        # The key is a token by contract; what is not would break the line, and the connection with it.
        key = event.key if _TOKEN.match(event.key) else token(event.key)
        return self.subjects[event.op].of(key)

    def _ce_lines(self, event: Event) -> str:
        found = attributes(event, source=self._source, table=self._table)
        found["datacontenttype"] = DATA_CONTENT_TYPE
        return "".join(f"\r\n{name}: {value}" for name, value in ce_headers(found).items())


def _nothing(_: Event) -> str:
    return ""
