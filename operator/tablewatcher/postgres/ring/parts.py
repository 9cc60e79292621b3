"""What a watcher's ring consists of, and the statements that make each part. Pure.

The parts are read from the SQL that makes a whole ring: what is added there is granted, and made again where somebody
has dropped it, by that alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from ...naming import RING_SLOTS, SCHEMA, WatcherNames
from ..quoting import literal
from ..sql import RING, RING_SKIPS, RING_SLOT
from .chunks import IDS_A_ROW

_CREATE = re.compile(rf"CREATE (TABLE|SEQUENCE) {SCHEMA}\.(\w+)")
_OBJECT = re.compile(rf"\b{SCHEMA}\.(\w+)")


@dataclass(frozen=True, slots=True)
class Part:
    """kind: TABLE or SEQUENCE; name: without schema; statements: all that makes it, in order."""

    kind: str
    name: str
    statements: tuple[str, ...]


def whole_ring(names: WatcherNames) -> Iterator[tuple[str, str]]:
    """What to do, for a person to read, and its SQL, for a ring without a cursor."""
    fields = {"hash": names.hash, "identity": literal(names.identity)}
    yield "create the ring's sequences", RING.format(**fields, ids_a_row=IDS_A_ROW)
    yield "add to the ring's sequences", RING_SKIPS.format(**fields)
    for slot in range(RING_SLOTS):
        yield f"create slot {slot} of the ring", RING_SLOT.format(**fields, slot=slot)


def parts(names: WatcherNames) -> list[Part]:
    """Every table and sequence of a ring, in the order they are made in."""
    lines = [line for _, text in whole_ring(names) for line in text.splitlines() if not line.startswith("--")]
    statements = [each.strip() for each in "\n".join(lines).split(";\n") if each.strip(" ;\n")]
    made = [found.groups() for each in statements if (found := _CREATE.match(each))]
    return [
        Part(kind, name, tuple(each for each in statements if name in _OBJECT.findall(each))) for kind, name in made
    ]
