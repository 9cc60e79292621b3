"""The event as a sink gets it: bytes made in SQL, and the few attributes a sink needs beside them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace

TYPES = {
    "i": "io.tablewatcher.row.inserted",
    "u": "io.tablewatcher.row.updated",
    "d": "io.tablewatcher.row.deleted",
    "t": "io.tablewatcher.row.truncated",
    "g": "io.tablewatcher.gap",
}
ACTION_NAMES = {"i": "insert", "u": "update", "d": "delete", "t": "truncate", "g": "gap"}

STRUCTURED_CONTENT_TYPE = "application/cloudevents+json"
DATA_CONTENT_TYPE = "application/json"
_DATA = b',"data":'


@dataclass(slots=True, eq=False)
class Event:
    """One outbox row, ready to send. Compared by identity: the ring id is its name inside one watcher.

    ring_id: place in the watcher's ring; rises with every change of a row.
    event_id: stable over attempts, restarts and failover; 32 hexadecimal digits.
    op: one of `i u d t g`; key: the key as a token; old_key: the key before, where an update changed it.
    time: RFC 3339, UTC, of the capture; captured_at: the same in epoch seconds.
    sequence: `<generation>-<ring id>`, comparable as text. Both texts are empty in format Structured.
    body: the whole CloudEvent as JSON (format Structured), or only its `data` (format Binary).
    routing: the tokens of the columns that the subject names, in the order of `WatcherSpec.routing_columns`.
    replay: the number of the replay that sends it again, 0: it is sent as it comes.
    """

    ring_id: int
    event_id: str
    op: str
    key: str
    old_key: str | None
    time: str
    captured_at: float
    sequence: str
    traceparent: str | None
    body: bytes
    routing: Sequence[str] | None = None
    replay: int = 0

    @property
    def type(self) -> str:
        return TYPES[self.op]

    @property
    def message_id(self) -> str:
        """The id under which a broker drops repeats: a replay is none, though its event has the same id."""
        return f"{self.event_id}/r{self.replay}" if self.replay else self.event_id

    @property
    def lane_keys(self) -> tuple[str, ...]:
        """The keys whose order this event takes part in: both, when an update changed the key."""
        if self.old_key is None or self.old_key == self.key:
            return (self.key,)
        return (self.key, self.old_key)


def attributes(event: Event, *, source: str, table: str) -> dict[str, str]:
    """CloudEvents context attributes of `event` (for headers in Binary mode); `table` as `schema.table` tokens."""
    found = {
        "specversion": "1.0",
        "id": event.event_id,
        "source": source,
        "type": event.type,
        "subject": f"{table}/{event.key}",
        "time": event.time,
        "sequence": event.sequence,
        "partitionkey": event.key,
    }
    if event.traceparent:
        found["traceparent"] = event.traceparent
    if event.replay:
        found["replay"] = str(event.replay)
    return found


def parts_of(event: Event, *, structured: bool) -> tuple[str, str, bytes]:
    """`time`, `sequence` and `data` of an event, wherever its format has them."""
    if not structured:
        return event.time, event.sequence, event.body
    # Quotes inside of a JSON text are escaped: the first of these is the attribute itself, and it is the last one.
    head, _, rest = event.body.partition(_DATA)
    found = json.loads(head + b"}")
    return found["time"], found["sequence"], rest[:-1]


def again(event: Event, number: int, *, structured: bool) -> Event:
    """An event as replay `number` sends it: what the database makes of the same row, byte by byte."""
    head, data, rest = event.body.partition(_DATA)
    body = b'%b,"replay":%d%b%b' % (head, number, data, rest) if structured else event.body
    return replace(event, body=body, replay=number)


def body_of(event: Event, data: bytes, *, structured: bool, source: str, table: str) -> bytes:
    """The body of `event` around its `data`: what the database makes of the same row, byte by byte."""
    if not structured:
        return data
    found: dict[str, str | int] = {}
    for name, text in attributes(event, source=source, table=table).items():
        found[name] = event.replay if name == "replay" else text
        if name == "time":
            found["datacontenttype"] = DATA_CONTENT_TYPE
    head = json.dumps(found, ensure_ascii=False, separators=(",", ":")).encode()
    return b"%b%b%b}" % (head[:-1], _DATA, data)
