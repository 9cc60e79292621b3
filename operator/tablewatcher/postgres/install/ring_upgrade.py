"""What a ring of an earlier version lacks, or somebody has changed, read from the ring itself. Pure.

Each step takes a lock that writers of the ring wait behind, like that on the watched table, and as short. Writers that
run the earlier function meanwhile and afterwards fit the new ring as well: no column is renamed, and ids go on rising.
"""

from __future__ import annotations

from collections.abc import Iterator

from ...naming import WatcherNames
from ..quoting import ours
from ..ring.chunks import IDS_A_ROW
from .catalog import Observed


def locking_steps(observed: Observed, names: WatcherNames) -> Iterator[tuple[str, str]]:
    """What to do, for a person to read, and its SQL."""
    for ring in observed.rings_without_routing:
        yield f"add routing to {ring}", f"ALTER TABLE {ours(ring)} ADD COLUMN routing text[]"
    for ring in observed.rings_without_chunks:
        columns = f"ALTER TABLE {ours(ring)} ADD COLUMN taken_at timestamptz, ADD COLUMN bodies text[]"
        yield f"let a row of {ring} hold many events", columns
    apart, ahead = observed.ids
    if apart not in (0, IDS_A_ROW):
        yield "leave room between ids", f"ALTER SEQUENCE {ours(names.ids)} INCREMENT BY {IDS_A_ROW}"
    if ahead != 1:
        # Of two sessions that write the same row, the second could have drawn its id long before the first.
        yield "have ids drawn one by one", f"ALTER SEQUENCE {ours(names.ids)} CACHE 1"
