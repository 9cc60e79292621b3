"""Rows of a statement past the first few, made into chunks a block at a time. Pure.

A block is gathered by one query and cut into chunks by another, so that no row costs a step of the function. Each
block is looked for from the beginning of the transition table, so blocks grow, and after so many rows the rest is left
to the loop that gathers row by row. So it is from the first event on that does not fit into a chunk: what a block takes
of memory is known.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..ring.chunks import CHUNK_BYTES, IDS_A_ROW, ring_row

# Rows: the first block is short, as it is made in vain where events do not fit.
_FIRST = 64
_GROWTH = 8
_LARGEST = 2048
_ROWS_IN_BLOCKS = 20_000
# Chunks are cut from pieces of so many: an element of an array is found by passing those before it.
_CHUNKS_A_PIECE = 16


@dataclass(frozen=True, slots=True)
class Block:
    """The two queries. keys: names of the texts in alias `r`; routes: texts of it.

    rows: relation `r` of those and `body` for the rows from tw.done on, tw.size at the most. fits: whether one of them
    is an event as it is; note: false, and notes that a row was left out.
    """

    rows: str
    keys: Sequence[str]
    routes: Sequence[str]
    fits: str
    note: str

    def pieces(self) -> dict[str, object]:
        """Bounds and the first query, by their names in `sql/capture_set.sql`."""
        sizes = " + ".join(f"pg_column_size({array})" for array in self._arrays)
        return {
            "gathered": self._gathered(),
            "unfit": f"octets > {CHUNK_BYTES}",
            "unfit_blocks": "",
            "average": f"({sizes}) / cardinality(bodies) + 1",
            "together": self._together(),
            "block_first": _FIRST,
            "block_most": _ROWS_IN_BLOCKS,
            "next_size": f"least(size * {_GROWTH}, {_LARGEST})",
        }

    def _gathered(self) -> str:
        kept = f"CASE WHEN {self.fits} THEN octet_length(r.body) <= {CHUNK_BYTES} ELSE {self.note} END"
        arrays = ", ".join(f"array_agg({value}) FILTER (WHERE {kept})" for value in self._arrays.values())
        into = f"INTO written, octets, {', '.join(self._arrays)}"
        return f"SELECT count(*), max(octet_length(r.body)), {arrays}\n            {into}\n            FROM {self.rows}"

    @property
    def _arrays(self) -> dict[str, str]:
        """What a block is gathered in: variables of the function, and what of a row is an element."""
        arrays = {"bodies": "r.body", "keys": element([f"r.{key}" for key in self.keys])}
        return {**arrays, "all_routes": element(self.routes)} if self.routes else arrays

    def _together(self) -> str:
        """How many events a chunk has: as many as fit where one is the largest and the others are as most are.

        Where more are large, or few are that much larger, the row of the ring is compressed.
        """
        larger = "octets - pg_column_size(bodies) / cardinality(bodies)"
        room = f"greatest({CHUNK_BYTES} - ({larger}), {CHUNK_BYTES // 2})"
        return f"greatest(least({room} / average, {IDS_A_ROW - 1}), 1)"

    def chunks(self, ids: object, traceparent: str) -> str:
        """The second: a row of the ring a chunk, of `together` events each."""
        arrays = dict(zip("bkp", self._arrays, strict=False))
        values = {
            "id": f"nextval({ids})",
            "at": "'infinity'::timestamptz",
            "key": cut("w.k", self.keys),
            "data": "''::text",
            **({"routing": cut("w.p", self.routes)} if self.routes else {}),
            "taken_at": "clock_timestamp()",
            "bodies": cut("w.b"),
        }
        joined = {name: f"{value} || '{{}}'::text[]" for name, value in arrays.items()}
        return f"SELECT {ring_row(values, traceparent)}\n        FROM {pieces_of(joined, _CHUNKS_A_PIECE)}"


def pieces_of(arrays: Mapping[str, str], chunks: int) -> str:
    """What a query of a row a chunk is FROM: `w`, a piece of so many chunks of the arrays, and `i`, the chunk in it.

    arrays: of the block, by name, all as long as the first. Each joined with nothing: an array of the function's own is
    put together anew at every look, and so it is once.
    """
    first = next(iter(arrays))
    whole = ", ".join(f"{value} AS {name}" for name, value in arrays.items())
    piece = ", ".join(f"v.{name}[g : g + tw.together * {chunks} - 1] AS {name}" for name in arrays)
    last = f"(least(cardinality(v.{first}) - g + 1, tw.together * {chunks}) - 1) / tw.together AS last"
    return (
        f"(SELECT {whole} OFFSET 0) AS v,\n"
        f"          generate_series(1, cardinality(v.{first}), tw.together * {chunks}) AS g,\n"
        f"          LATERAL (SELECT {piece}, {last} OFFSET 0) AS w,\n"
        # For each piece, so that these come one after the other. There are no more: the LIMIT tells the planner.
        f"          LATERAL (SELECT i FROM generate_series(0, w.last) AS i LIMIT {chunks}) AS n"
    )


def element(texts: Sequence[str]) -> str:
    """The texts of a row as one element of an array."""
    return texts[0] if len(texts) == 1 else f"ARRAY[{', '.join(texts)}]"


def cut(array: str, texts: Sequence[str] = ("",)) -> str:
    """What chunk `i` has of an array of such elements, one after the other: of several texts it has two dimensions."""
    cut = f"{array}[i * tw.together + 1 : (i + 1) * tw.together]"
    return cut if len(texts) == 1 else f"ARRAY(SELECT unnest({cut}))"
