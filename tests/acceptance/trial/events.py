"""CloudEvents as they come in a trial, over either sink. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .truth import Arrival
from .wide import loads

_TABLES = ("account", "parted", "bulk", "wide")
_ACTIONS = {"inserted": "insert", "updated": "update", "deleted": "delete", "truncated": "truncate", "gap": "gap"}


def parsed(event: Mapping[str, Any], *, accepted: bool) -> tuple[str, Arrival, dict[str, Any]]:
    """The watcher of a structured event, what it tells, and its data."""
    data = event["data"]
    action = _ACTIONS[event["type"].rpartition(".")[2]]
    watcher = event["source"].rpartition("/")[2]
    key = _key(data.get("key"))
    old = None
    if action == "update" and "before" in data:
        names = data["key"].keys()
        old = _key({name: data["before"].get(name) for name in names})
    table = data["source"]["table"]
    if table not in _TABLES:
        raise ValueError(f"no watcher has table {table}")
    version = (data.get("after") or {}).get("version")
    part = data.get("partition")
    return (
        watcher,
        Arrival(
            event["id"],
            action,
            key if part is None else part["table"],
            None if old == key else old,
            str(data["source"]["txId"]),
            version,
            data.get("filter"),
            int(event.get("replay", 0)),
            accepted,
            data.get("after") if table == "wide" else None,
            table,
            event["partitionkey"],
        ),
        data,
    )


def _key(key: Mapping[str, Any] | None) -> str:
    if not key:
        return ""
    return ",".join(str(key[name]) for name in ("part", "key") if name in key)


def binary(headers: Mapping[str, str], body: bytes) -> dict[str, Any]:
    """An event whose attributes are headers, as a structured one."""
    found: dict[str, Any] = {name[3:]: text for name, text in headers.items() if name.startswith("ce-")}
    return {**found, "data": loads(body)}
