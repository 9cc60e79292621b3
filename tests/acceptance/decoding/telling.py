"""What events tell, and what they should: the rules of docs/events.md, written once more over decoded changes."""

from __future__ import annotations

import json
import random
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .pgoutput import Decoded, Row
from .tables import Sample

# The JSON of a value's text, by type.
Values = Mapping[tuple[str, str], Any]


@dataclass(frozen=True, slots=True)
class Told:
    """A change as an event tells it. Rows are JSON with sorted names, its numbers as they are written."""

    action: str
    key: str | None
    after: str | None
    before: str | None
    changed: frozenset[str] | None
    filter: str | None
    transaction: int
    old_key: str | None

    @property
    def keys(self) -> set[str]:
        """Of the rows among whose events it has its place; none: of all."""
        return {key for key in (self.key, self.old_key) if key is not None}


@dataclass(frozen=True, slots=True)
class Watcher:
    """One table, and the spec of who watches it."""

    name: str
    table: Sample
    spec: Mapping[str, Any]

    def told(self, change: Decoded, values: Values) -> Told | None:
        """What its event tells of a decoded change; None where there is none."""
        if change.table != self.table.name or change.action not in self.spec["actions"]:
            return None
        if change.action == "truncate":
            return Told("truncate", None, None, None, None, None, change.transaction, None)
        return _Rules(self, change, values).told()

    def arrived(self, event: Mapping[str, Any]) -> Told:
        """What an event told."""
        data = event["data"]
        assert "truncated" not in data, data
        assert event["source"] == f"/namespaces/faults/tablewatchers/{self.name}"
        before = data.get("before")
        old_key = None
        if data["action"] == "update" and before is not None:
            old_key = _text({name: before[name] for name in data["key"]})
        return Told(
            data["action"],
            _text(data.get("key")),
            _text(data.get("after")),
            _text(before),
            frozenset(data["changed"]) if "changed" in data else None,
            data.get("filter"),
            int(data["source"]["txId"]),
            old_key if old_key != _text(data.get("key")) else None,
        )


class _Rules:
    def __init__(self, watcher: Watcher, change: Decoded, values: Values) -> None:
        self._spec = watcher.spec
        self._types = watcher.table.types
        self._values = values
        self._change = change
        row = change.new if change.new is not None else change.old
        assert row is not None
        self._all = set(row)
        self._key = set(watcher.table.key or row)
        sent = self._spec.get("columns", [])
        self._sent = self._all if sent == ["*"] else self._key | set(sent)

    def told(self) -> Told | None:
        change, spec = self._change, self._spec
        key, old_key = self._json(change.new or change.old, self._key), None
        word, before, changed = self._filter(), None, None
        if "where" in spec and word is None:
            return None
        if change.action == "update":
            assert change.old is not None
            assert change.new is not None
            differ = {name for name in self._all if change.old[name] != change.new[name]}
            if not differ & set(spec.get("triggerColumns", self._all)):
                return None
            changed = frozenset(differ & self._sent)
            old_key = self._json(change.old, self._key)
            old_key = old_key if old_key != key else None
            before = self._json(change.old, self._sent) if spec["includeBefore"] else old_key
        elif change.action == "delete":
            before = self._json(change.old, self._sent if spec["includeBefore"] else self._key)
        after = self._json(change.new, self._sent)
        told_word = word if change.action == "update" else None
        return Told(change.action, key, after, before, changed, told_word, change.transaction, old_key)

    def _filter(self) -> str | None:
        """How the row stands to the conditions, all of which ask for NULL or not."""

        def holds(row: Row | None) -> bool:
            return row is not None and all(
                (row[each["column"]] is None) == (each["operator"] == "IsNull") for each in self._spec.get("where", [])
            )

        old, new = holds(self._change.old), holds(self._change.new)
        if "where" not in self._spec:
            return None
        return "stayed" if old and new else "entered" if new else "left" if old else None

    def _json(self, row: Row | None, names: set[str]) -> str | None:
        if row is None:
            return None
        found = {}
        for name in names:
            text = row[name]
            found[name] = None if text is None else self._values[self._types[name], text]
        return _text(found)


def watchers(tables: Iterable[Sample], chance: random.Random, sink: Mapping[str, Any]) -> list[Watcher]:
    """Two of each table, with what they ask for drawn by chance."""
    return [
        Watcher(f"w{nth}{twin}", table, _spec(table, chance, sink)) for nth, table in enumerate(tables) for twin in "ab"
    ]


def _spec(table: Sample, chance: random.Random, sink: Mapping[str, Any]) -> dict[str, Any]:
    columns = list(table.columns)
    actions = chance.choice([["insert", "update", "delete"], ["insert", "update", "delete"], ["update"], ["delete"]])
    spec: dict[str, Any] = {
        "table": {"name": table.name},
        "actions": actions + ["truncate"] * table.truncated,
        "includeBefore": chance.random() < 0.5,
        "capture": {"granularity": chance.choice(["Auto", "Auto", "Row"])},
        "sink": sink,
    }
    if sent := chance.choice([None, ["*"], chance.sample(columns, 3)]):
        spec["columns"] = sent
    if "update" in actions and chance.random() < 0.4:
        spec["triggerColumns"] = chance.sample(columns, 3)
    if chance.random() < 0.3:
        spec["where"] = [{"column": chance.choice(columns), "operator": chance.choice(["IsNull", "IsNotNull"])}]
    return spec


def by_key(told: Sequence[Told]) -> dict[str, list[Told]]:
    """The events of each row, in their order; those about the whole table stand among all of them."""
    keys = {key for each in told for key in each.keys}
    found = defaultdict(list)
    for each in told:
        for key in each.keys or keys:
            found[key].append(each)
    return found


def _text(row: Mapping[str, Any] | None) -> str | None:
    return None if row is None else json.dumps(row, sort_keys=True)
