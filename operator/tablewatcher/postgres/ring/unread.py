"""What waits in a ring that nobody reads, at a cost that does not grow with it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ...naming import WatcherNames
from ..connection.session import Connection
from ..quoting import ours
from .chunks import EVENTS, LAST_ID, TAKEN_AT
from .position import GIVEN, Position
from .snapshot import late_commits

# Rows of each table that are counted one by one, and blocks that stand for all where there are more.
COUNTED = 100
SAMPLED = 64


@dataclass(frozen=True, slots=True)
class Unread:
    """events: how many wait; oldest_seconds: since the capture of the first, on the database's clock."""

    events: int = 0
    oldest_seconds: float = 0.0


async def unread(connection: Connection, names: WatcherNames, position: Position) -> Unread:
    """What waits behind `position`: counted by index where it is little, else estimated from some of the blocks.

    Of a batch that was delivered in part, the first row stands for the oldest.
    """
    late = late_commits(position.prev)
    conditions = ["xid >= %(xmax)s::text::xid8", *(["xid = ANY (%(late)s::text[]::xid8[])"] if late else [])]
    first = [_FIRST.format(ring=ours(ring), where=where) for ring in names.rings for where in conditions]
    parameters: dict[str, Any] = {
        "xmax": str(position.prev.xmax),
        "late": [str(xid) for xid in late],
        **position.parameters,
        "counted": COUNTED,
        "sampled": SAMPLED,
    }
    counted = await connection.one(_COUNTED.format(rows=" UNION ALL ".join(first)), parameters)
    events = counted["waiting"]
    if counted["more"]:
        sampled = " UNION ALL ".join(_SAMPLED.format(ring=ours(ring)) for ring in names.rings)
        query = f"SELECT sum(waiting)::bigint AS waiting FROM ({sampled}) AS s"
        events = max(events, (await connection.one(query, parameters))["waiting"])
    return Unread(events, max(counted["seconds"], 0.0)) if events else Unread()


_WAITS = f"NOT {GIVEN.delivered('xid', 'last')}"
_FIRST = f"""
SELECT *, count(*) OVER () = %(counted)s::bigint AS cut
FROM (SELECT xid, {TAKEN_AT} AS at, {EVENTS} AS number, {LAST_ID} AS last FROM {{ring}} WHERE {{where}}
      ORDER BY xid LIMIT %(counted)s::bigint) AS s
"""
_COUNTED = f"""
SELECT coalesce(bool_or(cut), false) AS more, coalesce(sum(number) FILTER (WHERE {_WAITS}), 0)::bigint AS waiting,
       coalesce(extract(epoch FROM pg_catalog.clock_timestamp() - min(at)), 0)::float8 AS seconds
FROM ({{rows}}) AS u
"""
# Which blocks are looked at stays the same from one look to the next.
_SAMPLED = f"""
SELECT coalesce(sum(number) FILTER (WHERE {_WAITS}) * min(blocks) / count(DISTINCT block), 0) AS waiting
FROM (SELECT xid, {EVENTS} AS number, {LAST_ID} AS last, (ctid::text::point)[0] AS block,
             pg_catalog.pg_relation_size('{{ring}}') / pg_catalog.current_setting('block_size')::bigint AS blocks
      FROM {{ring}} TABLESAMPLE SYSTEM (
          least(100, 100.0 * %(sampled)s::integer * pg_catalog.current_setting('block_size')::integer
                     / greatest(pg_catalog.pg_relation_size('{{ring}}'), 1))) REPEATABLE (0)) AS s
"""
