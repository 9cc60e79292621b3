"""The watchers of a trial: on one table and on one with partitions, over both sinks, with every option somewhere."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from .consumers import CORE, LISTENER
from .truth import Asked, Asking

NAMESPACE = "trial"
# Of several on a table the one that is destroyed and applied anew.
AGAIN = "again"
# All columns of the table that has odd ones, at all times.
WIDE = "wide"
# Stops at what is refused.
HALTS = "halts"
# The Secret that tells a listener which one it is.
WHO = "who"
# At most once.
CORE_WATCHER = "core"
SMALL = 3 << 20
# A few of the largest transactions, so that slots of the ring are turned while there is much to deliver.
MEDIUM = 100 << 20
LARGE = 1 << 30
ROWS = ["insert", "update", "delete"]


@dataclass(slots=True)
class Watcher:
    """name; table; http: whether the sink is; spec: as the manifest has it now; rerouted: its sink was another."""

    name: str
    table: str
    http: bool
    spec: dict[str, Any]
    asking: Asking
    rerouted: bool = False
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    def asked(self) -> Asked:
        where = self.spec.get("where")
        return Asked(
            frozenset(self.spec["actions"]),
            frozenset(where[0]["values"]) if where else None,
            self.spec.get("triggerColumns") == ["kind"],
        )

    def forgive(self, gaps: list[dict[str, Any]]) -> list[str]:
        """Changes may be missing where the sink was told so; the gaps that should not have been, in words."""
        wrong = []
        for gap in gaps:
            ended = gap.get("until") or datetime.max.replace(tzinfo=UTC).isoformat()
            if gap["reason"] == "overflow" and self.spec["delivery"]["overflow"]["maxBytes"] < LARGE:
                self.asking.forgiven.add((_seconds(gap["from"]), _seconds(ended)))
            elif self.name != AGAIN:
                wrong.append(f"gap: {gap}")
        return wrong

    def manifest(self) -> dict[str, Any]:
        """What its file holds."""
        return {
            "apiVersion": "tablewatcher.io/v1alpha1",
            "kind": "TableWatcher",
            "metadata": {"name": self.name, "namespace": NAMESPACE},
            "spec": {key: value for key, value in self.spec.items() if value is not None},
        }


def _seconds(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


class Makes:
    """Makes watchers whose sinks are at `nats`, a URL, and at an HTTP endpoint on `port`."""

    def __init__(self, nats: str, port: int, chance: random.Random) -> None:
        self._nats = nats
        self._port = port
        self._chance = chance

    def over_http(self, name: str, table: str, fields: dict[str, Any], **spec: Any) -> Watcher:
        """fields: of the sink."""
        url = f"http://127.0.0.1:{self._port}/{name}"
        who = {"name": LISTENER, "valueFrom": {"secretKeyRef": {"name": WHO, "key": "listener"}}}
        sink = {"url": url, "timeoutSeconds": 2, "headers": [who], **fields}
        return self._watcher(name, table, True, {"http": sink}, spec)

    def over_nats(self, name: str, table: str, subject: str = "", *, core: bool = False, **spec: Any) -> Watcher:
        """subject: what follows name and action. core: without JetStream."""
        sink: dict[str, Any] = {"servers": [self._nats], "subject": f"trial.{name}.{{action}}{subject}"}
        if core:
            sink |= {"subject": f"{CORE}.{name}.{{action}}{subject}", "jetStream": {"enabled": False}}
        return self._watcher(name, table, False, {"nats": sink}, spec)

    def _watcher(self, name: str, table: str, http: bool, sink: dict[str, Any], fields: dict[str, Any]) -> Watcher:
        more = fields.pop("delivery", {})
        delivery = {
            "backoff": {"initialMilliseconds": 50, "maxSeconds": 1},
            "retentionSeconds": self._chance.choice([0, 0, 5, 600]),
            "maxAttempts": 3,
            # A small one is turned often, and full after a while without a sink.
            "overflow": {"maxBytes": self._chance.choice([LARGE, SMALL])},
        } | more
        spec = {
            "database": {"secretRef": {"name": "unused"}},
            "table": {"name": table},
            "actions": [*ROWS, "truncate"],
            "sink": sink,
            "delivery": delivery,
        }
        asking = Asking(
            table,
            parks=http and delivery.get("onExhausted") != "Halt",
            ordered=delivery.get("ordering") != "Unordered",
            lossy="jetStream" in sink.get("nats", {}),
        )
        return Watcher(name, table, http, spec | fields, asking)

    def _loose(self, batch: dict[str, Any]) -> Watcher:
        delivery = {"ordering": "Unordered"}
        if self._chance.random() < 0.5:
            return self.over_nats("loose", "account", columns=["version"], delivery=delivery)
        return self.over_http("loose", "account", {"batch": batch}, columns=["version"], delivery=delivery)

    def _bulk(self, watcher: Watcher) -> Watcher:
        watcher.spec["delivery"]["overflow"] = {"maxBytes": self._chance.choice([LARGE, MEDIUM])}
        watcher.asking.parks = False  # no row of this table is refused
        return watcher

    def all(self) -> list[Watcher]:
        """One of each kind."""
        chance = self._chance
        batch = {"maxEvents": chance.choice([2, 50, 500]), "lingerMilliseconds": chance.choice([0, 5, 50])}
        some = {"where": [{"column": "kind", "operator": "In", "values": ["a", "b"]}], "columns": ["version", "kind"]}
        either = chance.choice(["Binary", "Structured"])
        row = {"granularity": "Row"}
        return [
            self.over_nats("whole", "account", columns=["*"], includeBefore=True),
            self.over_nats("keys", "account", ".{key}", capture=row),
            self.over_nats("some", "account", ".{column:kind}", format="Binary", **some),
            self.over_nats("kinds", "account", columns=["version"], triggerColumns=["kind"], actions=ROWS),
            self.over_nats("parts", "parted", columns=["version"], actions=ROWS, includeBefore=True),
            self.over_http("single", "account", {"concurrency": 8}, columns=["version"], format=either),
            self.over_http("batches", "account", {"batch": batch}, columns=["version", "note"], includeBefore=True),
            self.over_http("partsweb", "parted", {"batch": batch}, columns=["*"], actions=ROWS),
            self.over_http(HALTS, "account", {"batch": batch}, columns=["version"], delivery={"onExhausted": "Halt"}),
            self._loose(batch),
            self.over_nats(CORE_WATCHER, "account", columns=["version"], core=True),
            self._bulk(self.over_nats("bulk", "bulk", columns=["version"])),
            self._bulk(self.over_http("bulkweb", "bulk", {"batch": {"maxEvents": 1000}, "timeoutSeconds": 5})),
            self.over_nats(WIDE, "wide", columns=["*"]),
            self.over_http("wideweb", "wide", {"batch": batch}, columns=["version", "c0", "c1"], includeBefore=True),
            self.over_http(AGAIN, "account", {"batch": batch}, columns=["version"]),
        ]
