"""What of a ring has been dropped by hand, or was never there in an earlier version, and is made again. Pure.

Made by the statements that make a whole ring, as far as they are about what is missing. What a dropped table held is
gone, which is told as a gap; a new sequence goes on where that can be known.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from ..naming import RING_SLOTS, SCHEMA, WatcherNames
from .catalog import Observed
from .chunks import IDS_A_ROW
from .gap_sql import insert_gap
from .quoting import literal, ours
from .sql import RING, RING_SKIPS, RING_SLOT

_OBJECT = re.compile(rf"\b{SCHEMA}\.(\w+)")
# The newest that a ring knows of its cursor: all that is in the ring is unseen.
_FROM_THE_BEGINNING = "1:1:"


def repair_steps(observed: Observed, names: WatcherNames) -> Iterator[tuple[str, str]]:
    """What to make again, for a person to read, and its SQL. Of a ring of which something is there."""
    missing = [name for name in (*names.sequences, *names.rings, *names.cursors) if name not in observed.objects]
    for name in missing:
        statements = [each for each in _statements(names) if name in _OBJECT.findall(each)]
        yield f"make {name} again", ";\n".join(statements)
    if set(missing) & set(names.cursors):
        yield "have a cursor in any case", _first_cursor(names)
    if names.ids in missing:
        # Nobody knows how far the ids had come: a sequence of events compares by its generation first.
        yield "go on behind the last id", _after_the_last_id(names)
        yield (
            "begin a generation",
            (f"UPDATE {SCHEMA}.watcher SET generation = generation + 1 WHERE hash = {literal(names.hash)}"),
        )
    if names.slot in missing:
        yield "write where the newest cursor is", _slot_of_cursor(names)
    if set(missing) & set(names.rings):
        told = literal('"reason":"ringRepaired","certain":false')
        yield "announce the gap", insert_gap(names, 0, told)


def _statements(names: WatcherNames) -> list[str]:
    """Those that make a whole ring, one by one."""
    fields = {"hash": names.hash, "identity": literal(names.identity), "ids_a_row": IDS_A_ROW}
    texts = [RING, RING_SKIPS, *[RING_SLOT] * RING_SLOTS]
    slots = [0, 0, *range(RING_SLOTS)]
    text = "".join(each.format(**fields, slot=slot) for each, slot in zip(texts, slots, strict=True))
    lines = [line for line in text.splitlines() if not line.startswith("--")]
    return [each.strip() for each in "\n".join(lines).split(";\n") if each.strip(" ;\n")]


def _first_cursor(names: WatcherNames) -> str:
    log = _union(f"SELECT epoch FROM {ours(name)}" for name in names.cursors)
    return (
        f"INSERT INTO {ours(names.cursors[0])} (epoch, n, holder, expires_at, prev, after_id)"
        f" SELECT 0, 0, '', '-infinity', '{_FROM_THE_BEGINNING}', 0 WHERE NOT EXISTS ({log})"
    )


def _after_the_last_id(names: WatcherNames) -> str:
    ids = _union(f"SELECT id FROM {ours(name)}" for name in names.rings)
    return f"SELECT pg_catalog.setval('{ours(names.ids)}', coalesce(max(id), 0) + {IDS_A_ROW}) FROM ({ids}) AS rows"


def _slot_of_cursor(names: WatcherNames) -> str:
    log = _union(f"SELECT {slot} AS slot, epoch, n FROM {ours(name)}" for slot, name in enumerate(names.cursors))
    newest = f"SELECT slot FROM ({log}) AS log ORDER BY epoch DESC, n DESC LIMIT 1"
    return f"SELECT pg_catalog.setval('{ours(names.slot)}', slot) FROM ({newest}) AS newest"


def _union(queries: Iterator[str]) -> str:
    return " UNION ALL ".join(queries)
