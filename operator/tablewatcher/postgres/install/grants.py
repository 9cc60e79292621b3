"""The least that a role needs in order to capture, or to read and deliver what another role captures. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import groupby

from ...naming import SCHEMA, WatcherNames
from ..quoting import identifier
from ..ring.parts import parts
from ..shared import SHARED_FUNCTIONS, SHARED_TABLES

# What all watchers share, where a listener need not do everything.
_SHARED = {"migration": ("SELECT",), "watcher": ("SELECT", "UPDATE"), "progress": ("SELECT", "INSERT", "UPDATE")}
_EVERYTHING = ("SELECT", "INSERT", "UPDATE", "DELETE")
# A gap event is inserted by the listener; a slot is locked and emptied by it, which TRUNCATE allows.
_RING = {"TABLE": ("SELECT", "INSERT", "TRUNCATE"), "SEQUENCE": ("USAGE", "SELECT", "UPDATE")}


@dataclass(frozen=True, slots=True)
class Right:
    """One privilege on one object: `kind` SCHEMA, TABLE, SEQUENCE or FUNCTION; `name` as in GRANT, without schema."""

    kind: str
    name: str
    privilege: str


@dataclass(frozen=True, slots=True)
class Grantee:
    """A role, and which of the rights that it was asked for it holds."""

    role: str
    held: frozenset[Right]


def needed(names: WatcherNames) -> tuple[Right, ...]:
    """All rights of a listener of one watcher."""
    return tuple(_needed(names))


def to_capture(names: WatcherNames) -> tuple[Right, ...]:
    """All rights of the capture function's owner, as which it runs: without one of them writes fail, or the ring is not
    looked after."""
    sequences = {
        names.ids: ("USAGE",),
        names.slot: ("SELECT",),
        names.wake: ("SELECT",),
        names.stop: ("SELECT", "UPDATE"),
        names.skips: ("USAGE",),
    }
    return (
        Right("SCHEMA", SCHEMA, "USAGE"),
        *(Right("TABLE", ring, "INSERT") for ring in names.rings),
        *(Right("SEQUENCE", name, each) for name, privileges in sequences.items() for each in privileges),
    )


def in_place_of(right: Right) -> Right | None:
    """The one right that the function is content with where it lacks `right`: the server asks for either."""
    others = {"USAGE": "UPDATE", "SELECT": "USAGE"} if right.kind == "SEQUENCE" else {}
    return replace(right, privilege=others[right.privilege]) if right.privilege in others else None


def missing(rights: Iterable[Right], grantee: Grantee) -> str:
    """The GRANT statements for what `grantee` lacks of `rights`; "" where it lacks nothing."""
    lacking = [right for right in rights if right not in grantee.held]
    return ";\n".join(_statements(lacking, grantee.role))


def _needed(names: WatcherNames) -> Iterator[Right]:
    yield Right("SCHEMA", SCHEMA, "USAGE")
    for table in SHARED_TABLES:
        yield from (Right("TABLE", table, each) for each in _SHARED.get(table, _EVERYTHING))
    for function in SHARED_FUNCTIONS:
        yield Right("FUNCTION", function, "EXECUTE")
    for part in parts(names):
        yield from (Right(part.kind, part.name, each) for each in _RING[part.kind])


def _statements(lacking: Iterable[Right], role: str) -> Iterator[str]:
    def what(right: Right) -> tuple[str, str]:
        return right.kind, right.name

    privileges = {name: [right.privilege for right in rights] for name, rights in groupby(lacking, key=what)}
    by_privileges: dict[tuple[str, str], list[str]] = {}
    for (kind, name), found in privileges.items():
        qualified = name if kind == "SCHEMA" else f"{SCHEMA}.{name}"
        by_privileges.setdefault((kind, ", ".join(found)), []).append(qualified)
    for (kind, granted), objects in by_privileges.items():
        yield f"GRANT {granted} ON {kind} {', '.join(objects)} TO {identifier(role)}"
