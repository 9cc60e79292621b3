"""What of a ring has been dropped by hand, or was never there in an earlier version, and is made again. Pure.

Made by the statements that make a whole ring, as far as they are about what is missing. What a dropped table held is
gone, which is told as a gap; a new sequence goes on where that can be known.
"""

from __future__ import annotations

from collections.abc import Iterator

from ...naming import SCHEMA, WatcherNames
from ..quoting import literal, ours
from ..ring.chunks import IDS_A_ROW
from ..ring.cursor_sql import free_cursor, log
from ..ring.gap_sql import insert_repaired
from ..ring.parts import parts
from .catalog import Observed

# The snapshot of a cursor that nobody knows any more: all that is in the ring is unseen.
_FROM_THE_BEGINNING = "1:1:"


def repair_steps(observed: Observed, names: WatcherNames) -> Iterator[tuple[str, str]]:
    """What to make again, for a person to read, and its SQL. Of a ring of which something is there."""
    lost = [part for part in parts(names) if part.name not in observed.objects]
    for part in lost:
        yield f"make {part.name} again", ";\n".join(part.statements)
    missing = {part.name for part in lost}
    if missing & set(names.cursors):
        first = free_cursor(names, literal(_FROM_THE_BEGINNING), n=1)
        yield "have a cursor in any case", f"{first} WHERE NOT EXISTS ({log(names)})"
    if names.ids in missing:
        # Nobody knows how far the ids had come: a sequence of events compares by its generation first.
        yield "go on behind the last id", _after_the_last_id(names)
        yield (
            "begin a generation",
            (f"UPDATE {SCHEMA}.watcher SET generation = generation + 1 WHERE hash = {literal(names.hash)}"),
        )
    if names.slot in missing:
        yield "write where the newest cursor is", _slot_of_cursor(names)
    if missing & set(names.rings):
        yield "announce the gap", insert_repaired(names)


def _after_the_last_id(names: WatcherNames) -> str:
    ids = _union(f"SELECT id FROM {ours(name)}" for name in names.rings)
    name = ours(names.ids)
    begun = f"(SELECT last_value FROM {name})"
    return f"SELECT pg_catalog.setval('{name}', greatest(max(id) + {IDS_A_ROW}, {begun})) FROM ({ids}) AS rows"


def _slot_of_cursor(names: WatcherNames) -> str:
    rows = _union(f"SELECT {slot} AS slot, epoch, n FROM {ours(name)}" for slot, name in enumerate(names.cursors))
    newest = f"SELECT slot FROM ({rows}) AS log ORDER BY epoch DESC, n DESC LIMIT 1"
    return f"SELECT pg_catalog.setval('{ours(names.slot)}', slot) FROM ({newest}) AS newest"


def _union(queries: Iterator[str]) -> str:
    return " UNION ALL ".join(queries)
