"""Events as the ring would give them, for sinks to send."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field

from tablewatcher.errors import Reason, SecretError
from tablewatcher.event import TYPES, Event
from tablewatcher.naming import token
from tablewatcher.spec.model import Format, Table

SOURCE = "/namespaces/shop/tablewatchers/orders"
TABLE = Table("public", "orders")
TIME = "2026-11-23T10:00:00.123456Z"


def event(
    ring_id: int, *, key: str | None = None, op: str = "i", form: Format = Format.STRUCTURED, note: str = ""
) -> Event:
    """Row `key` (its ring id where None) as one event of `form`; `note` makes the body longer."""
    name = token(key if key is not None else str(ring_id))
    event_id = hashlib.sha256(f"{ring_id}".encode()).hexdigest()[:32]
    content = {"action": "insert", "key": {"id": name}, "after": {"id": name, "note": note}}
    sequence = f"{1:06d}-{ring_id:020d}"
    whole = {
        "specversion": "1.0",
        "id": event_id,
        "source": SOURCE,
        "type": TYPES[op],
        "subject": f"public.orders/{name}",
        "time": TIME,
        "datacontenttype": "application/json",
        "sequence": sequence,
        "partitionkey": name,
        "data": content,
    }
    body = json.dumps(whole if form is Format.STRUCTURED else content, ensure_ascii=False).encode()
    return Event(
        ring_id=ring_id,
        event_id=event_id,
        op=op,
        key=name,
        old_key=None,
        time=TIME,
        captured_at=1_795_000_000.0,
        sequence=sequence,
        traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        body=body,
    )


def events(count: int, first: int = 1) -> list[Event]:
    return [event(ring_id) for ring_id in range(first, first + count)]


@dataclass
class MemorySecrets:
    """Secrets a test may change while a sink runs."""

    values: dict[str, dict[str, str]] = field(default_factory=dict)
    config_maps: dict[str, dict[str, str]] = field(default_factory=dict)

    def read(self, name: str) -> dict[str, str]:
        if name not in self.values:
            raise SecretError(Reason.SECRET_NOT_FOUND, f"Secret {name!r} does not exist")
        return self.values[name]

    def config_map(self, name: str) -> dict[str, str]:
        if name not in self.config_maps:
            raise SecretError(Reason.CONFIG_MAP_NOT_FOUND, f"ConfigMap {name!r} does not exist")
        return self.config_maps[name]
