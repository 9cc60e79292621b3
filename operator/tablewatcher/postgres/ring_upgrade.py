"""What a ring of an earlier version lacks, read from the ring itself: nothing to get out of step with. Pure.

New sequences need no lock. Every other step takes one that writers of the ring wait
behind, like that on the watched table, and as short. Writers that run the earlier function meanwhile and afterwards fit
the new ring as well: no column is renamed, and ids go on rising.
"""

from __future__ import annotations

from collections.abc import Iterator

from ..naming import WatcherNames
from .catalog import Observed
from .chunks import IDS_A_ROW
from .quoting import literal, ours
from .sql import RING_LASTVAL, RING_SKIPS


def further_sequences(observed: Observed, names: WatcherNames) -> Iterator[tuple[str, str]]:
    """Those that the first version of rings lacked: what to do, for a person to read, and its SQL."""
    for name, text in ((names.skips, RING_SKIPS), (names.lastval, RING_LASTVAL)):
        if name not in observed.objects:
            yield "add to the ring's sequences", text.format(hash=names.hash, identity=literal(names.identity))


def locking_steps(observed: Observed, names: WatcherNames) -> Iterator[tuple[str, str]]:
    """What to do, for a person to read, and its SQL."""
    for ring in observed.rings_without_routing:
        yield f"add routing to {ring}", f"ALTER TABLE {ours(ring)} ADD COLUMN routing text[]"
    for ring in observed.rings_without_chunks:
        columns = f"ALTER TABLE {ours(ring)} ADD COLUMN taken_at timestamptz, ADD COLUMN bodies text[]"
        yield f"let a row of {ring} hold many events", columns
    if observed.ids_apart != IDS_A_ROW:
        yield "leave room between ids", f"ALTER SEQUENCE {ours(names.ids)} INCREMENT BY {IDS_A_ROW}"
