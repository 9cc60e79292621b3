"""The set-based form of an insert trigger for statements: from the transition table into the ring. Pure.

It stands in no exception block, which would write inside a subtransaction (decision 0007), so nothing in it may raise:

*Parsing.* A column that the application dropped or renamed must not be missed. The columns are read by bare name in a
subquery whose outer query offers a NULL of an odd type under each of those names: what the table has no more is
found there. Only what is written for any type is asked of a column: to_json, a cast to text, pg_typeof.

*Values.* A row is formatted only where every column has the type it had when the function was written, and that
type's text can neither fail nor outgrow memory. All other rows are left out, noted in a setting, and formatted one by
one afterwards as a row trigger does it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from ...naming import LONGEST_SUBJECT
from ..quoting import identifier, literal
from ..ring.chunks import CHUNK_BYTES, IDS_A_ROW, ring_row
from ..routing import sign
from ..shape import Column
from .block_source import Block
from .columnar_source import Columnar, fits_by_column, guards, value_names
from .conditions import Filter, as_they_were
from .json_text import is_plain, object_of_set, text_of

TRANSITION_TABLE = "tablewatcher_new"
# So many rows of a statement are written one by one: gathering costs a statement of fewer more than it saves.
FEW = 32
# What may be long, taken together, as stored: a byte stored is at most 255 once decompressed, and six of those in JSON.
_MAX_STORED = 200_000
# A number of a jsonb takes 12 bytes at the least and reads as 147,456 digits at the most: of these, a hundred million.
_MAX_STORED_JSONB = 8_000
# The bound on the ring is looked at where the last id of a statement of n rows is among the first n * _LOOK_AT of so
# many: whatever ids others draw in between, hardly a stretch goes by without a look.
LOOK_EVERY = 1024 * IDS_A_ROW
_LOOK_AT = 8 * IDS_A_ROW
ROW = "tablewatcher_row"
# With its star it is the row, also when the application calls a column so later.
_WHOLE = f'("{ROW}".*)::pg_catalog.record'
ALL_ROWS = f'SELECT {_WHOLE} AS whole FROM {TRANSITION_TABLE} AS "{ROW}"'
# Of an event in the arrays of its chunk: lengths and alignment.
_OVERHEAD = 14
_LEAST = CHUNK_BYTES // IDS_A_ROW + 1
_MANY = "cardinality(bodies) > 1"
_BLOCK = "OFFSET tw.done LIMIT tw.size"
_NOTE = "set_config('tablewatcher.one_by_one', 'on', true) IS NULL"


@dataclass(frozen=True, slots=True)
class Selection:
    """The pieces of the SELECT. columns: all that is sent, the key among it; compared: those that `where` names.

    key, routes: names of columns whose texts become arrays. key_bound: bytes a key may have, None: it is short anyhow.
    width: how many columns the table had, where all are sent, else 0.
    """

    columns: tuple[Column, ...]
    key: tuple[str, ...]
    routes: tuple[str, ...]
    key_bound: int | None
    max_event: int
    where: Filter
    compared: tuple[Column, ...]
    width: int

    def counting(self) -> str:
        """A statement that says whether the table has the columns it had and no more; where not all are sent, none.

        A set that names its columns would miss those added since. The query is written anew with the table, as every
        plan of a session is, so that it sees them whatever snapshot the transaction has of the catalog.
        """
        if not self.width:
            return ""
        # Of a row of NULLs this has nothing but the number of its columns and their types. Without a backslash, which
        # a session may read in two ways.
        width = f"substr(record_send(row({ROW}.*)), 1, 4) = decode('{self.width:08x}', 'hex')"
        none = f"(SELECT * FROM {TRANSITION_TABLE} LIMIT 0)"
        # An assignment: SELECT INTO would set FOUND, by which the function knows whether it has written anything.
        return f"\n    as_wide := (SELECT {width} FROM (SELECT) AS one LEFT JOIN {none} AS {ROW} ON true);"

    def few(self, ids: object, traceparent: str) -> str:
        """The rows of the ring for the first rows of the statement, but for those left to `rest`. ids: the sequence."""
        values = {
            "id": "r.id",
            "at": "clock_timestamp()",
            "key": self._array(self._keys),
            "data": "r.body",
            **({"routing": f"ARRAY[{', '.join(self._words(map(self._text, self._routes)))}]"} if self.routes else {}),
        }
        return (
            f"SELECT {ring_row(values, traceparent)}\n"
            f"        FROM {self._rows(f'nextval({ids}) AS id, ', f'LIMIT {FEW}')}\n        WHERE {self._left_out()}"
        )

    def _many(self) -> str:
        """The events of the rows after those, but for those left to `rest`: texts, data, how much it is, about."""
        parts = [*self._keys, *self._routes]
        texts = [f"{self._text(part)} AS {part}" for part in parts]
        long = [f" + coalesce(octet_length({self._text(part)}), 0)" for part in parts]
        octets = f"greatest(octet_length(r.body){''.join(long)} + {_OVERHEAD}, {_LEAST})"
        return (
            f"SELECT {', '.join(texts)}, r.body, {octets} AS octets\n"
            f"        FROM {self._rows('', 'OFFSET tw.done')}\n        WHERE {self._left_out()}"
        )

    def block(self) -> Block | Columnar:
        """The same rows, as long as they are small, a block at a time."""
        key = [self._column(name) for name in self.key]
        return self._columnar(key) if fits_by_column(self.columns, key, self.max_event) else self._block()

    def _columnar(self, key: Sequence[Column]) -> Columnar:
        values = {name: f"c.{identifier(column.name)}" for column, name in value_names(key, self.columns).items()}
        values |= {route: self._source(route) for route in self._routes}
        fits = " AND ".join([self._safe(), *guards(self.columns, key)])
        selected = ", ".join([f"{fits} AS fits", *(f"{value} AS {name}" for name, value in values.items())])
        return Columnar(
            rows=f"(SELECT {selected}\n            FROM {self._piece(_BLOCK)} AS c OFFSET 0) AS r",
            as_were=f"EXISTS (SELECT FROM {self._piece('LIMIT 1')} AS c WHERE {as_they_were('c', self.columns)})",
            columns=self.columns,
            key=key,
            routes=self._words(map(self._text, self._routes)),
        )

    def _piece(self, which: str) -> str:
        """Some of the rows, as they are."""
        return f"(SELECT {', '.join(f'c.{name}' for name in self._known)}\n{self._from} {which})"

    def _block(self) -> Block:
        parts = [*self._keys, *self._routes]
        # Made here, where the types are known to be what they were, and not wherever they are looked at.
        made = {part: self._as_text(part, self._source(part)) for part in parts}
        made["body"] = self._body()
        safe = self._safe()
        values = ",\n              ".join(
            f"CASE WHEN {safe} THEN {value} END AS {name}" for name, value in made.items()
        )
        return Block(
            rows=f"(SELECT {values}\n            FROM {self._piece(_BLOCK)} AS c OFFSET 0) AS r",
            keys=self._keys,
            routes=self._words(f"r.{route}" for route in self._routes),
            fits=self._fits(),
            note=_NOTE,
        )

    def gathering(self) -> dict[str, object]:
        """What puts the events of the rows after the first few into chunks, by its names in `sql/capture_set.sql`."""
        keys = "".join(f" keys := keys || picked.{part};" for part in self._keys)
        words = self._words(f"picked.{part}" for part in self._routes)
        routes = "".join(f" all_routes := all_routes || {word};" for word in words)
        begin = " keys := NULL;" + (" all_routes := NULL;" if self.routes else "")
        bounds = {"number_of_few": FEW, "chunk_bytes": CHUNK_BYTES, "look_every": LOOK_EVERY, "look_at": _LOOK_AT}
        return {"many": self._many(), "gather": keys + routes, "begin": begin, **bounds}

    def chunk(self, traceparent: str) -> dict[str, str]:
        """The row of the ring of a chunk, by column; that of a single event is as a row trigger writes it."""
        return {
            "id": "ring_id",
            "xid": "pg_current_xact_id()",
            "at": f"CASE WHEN {_MANY} THEN 'infinity' ELSE clock_timestamp() END",
            "op": "'i'",
            "key": "keys",
            "data": f"CASE WHEN {_MANY} THEN '' ELSE bodies[1] END",
            "context": "context",
            "traceparent": traceparent,
            **({"routing": "all_routes"} if self.routes else {}),
            "taken_at": f"CASE WHEN {_MANY} THEN clock_timestamp() END",
            "bodies": f"CASE WHEN {_MANY} THEN bodies END",
        }

    @property
    def _keys(self) -> list[str]:
        return [f"k{nth}" for nth in range(len(self.key))]

    @property
    def _routes(self) -> list[str]:
        return [f"p{nth}" for nth in range(len(self.routes))]

    def _words(self, texts: Iterable[str]) -> list[str]:
        """Those of the routes, and the sign of which columns they are of; none where there are none."""
        return [*texts, f"{literal(sign(self.routes))}::text"] if self.routes else []

    def rest(self) -> str:
        """The rows that were left out, whole."""
        whole = f'c."{ROW}" AS whole, '
        return f"SELECT r.whole FROM {self._rows(whole, 'OFFSET 0')} WHERE ({self._fits()}) IS NOT TRUE"

    def _left_out(self) -> str:
        """What keeps back rows that do not fit, and notes that there are some."""
        return f"CASE WHEN {self._fits()} THEN true ELSE {_NOTE} END"

    def _fits(self) -> str:
        fits = f"octet_length(r.body) <= {self.max_event}"
        if self.key_bound is None:
            return fits
        # Where the body was not made, the key is not looked at either.
        length = f"octet_length(array_to_string({self._array(self._keys)}, ''))"
        return f"CASE WHEN {fits} THEN {length} <= {self.key_bound} END"

    def _source(self, part: str) -> str:
        """The column of `k<n>`, a part of the key, or `p<n>`, one of the routes, in alias `c`."""
        return f"c.{identifier(self._column_of(part).name)}"

    def _column_of(self, part: str) -> Column:
        return self._column((self.key if part.startswith("k") else self.routes)[int(part[1:])])

    def _text(self, part: str) -> str:
        """Its text, of the value by its name in alias `r`."""
        column = replace(self._column_of(part), name=part)
        text = self._as_text(part, f"r.{part}")
        # The right to call what an expression names is asked for before it is known whether that is reached: a cast of
        # the application's must have been folded away by then.
        return text if column.enum else f"CASE WHEN {as_they_were('r', [column])} THEN {text} END"

    def _as_text(self, part: str, value: str) -> str:
        text = value_as_text(self._column_of(part), value)
        return text if part.startswith("k") else cut_route(text)

    def _array(self, parts: Sequence[str]) -> str:
        return f"ARRAY[{', '.join(map(self._text, parts))}]"

    def _rows(self, first: str, which: str) -> str:
        through = [f"{self._source(part)} AS {part}" for part in (*self._keys, *self._routes)]
        # LIMIT or OFFSET, 0 too: the body is made once, not wherever it is looked at. A transition table is read in one
        # order, that in which it was written.
        return (
            f"(SELECT {first}{', '.join(through)}, CASE WHEN {self._safe()} THEN {self._body()} END AS body\n"
            f"{self._from} {which}) AS r"
        )

    @property
    def _known(self) -> dict[str, Column]:
        """The columns that are read, by their names as SQL has them."""
        return {identifier(column.name): column for column in (*self.columns, *self.compared)}

    @property
    def _from(self) -> str:
        """The rows that meet `where`, in alias `c`."""
        gone = ", ".join(f"NULL::pg_catalog.{_odd(column)} AS {name}" for name, column in self._known.items())
        # Before an id is drawn: ids of rows that are not sent would count as waiting.
        holds = f" WHERE {self.where.of_set('c')}" if self.where else ""
        return (
            f"          FROM (SELECT {gone}) AS gone,\n"
            f'            LATERAL (SELECT {", ".join(self._known)}, {_WHOLE} AS "{ROW}"'
            f' FROM {TRANSITION_TABLE} AS "{ROW}") AS c{holds}'
        )

    def _body(self) -> str:
        key, after = (object_of_set(each, self._present) for each in (map(self._column, self.key), self.columns))
        return text_of(['"key":', *key, ',"after":', *after])

    def _column(self, name: str) -> Column:
        return next(column for column in self.columns if column.name == name)

    @property
    def _present(self) -> frozenset[str]:
        """Columns without a NULL in any row that is not left out: of a key, so it keeps nothing back."""
        return frozenset(name for name in self.key if is_plain(self._column(name)))

    def _safe(self) -> str:
        tests = ["tw.as_wide"] if self.width else []
        tests += [as_they_were("c", dict.fromkeys((*self.columns, *self.compared)))]
        tests += [f"c.{identifier(name)} IS NOT NULL" for name in self.key if name in self._present]
        jsonb = [f"c.{identifier(column.name)}" for column in self.columns if column.is_jsonb]
        tests += [f"pg_column_compression({value}) IS NULL" for value in jsonb]
        long = [f"c.{identifier(column.name)}" for column in self.columns if column.long and not column.is_jsonb]
        bounds = [(long, _MAX_STORED), (jsonb, _MAX_STORED_JSONB)]
        tests += [f"{_stored(values)} <= {bound}" for values, bound in bounds if values]
        return " AND ".join(tests)


def value_as_text(column: Column, value: str) -> str:
    """An expression's value as part of a key. An enum's by its output function: a cast may be the application's."""
    return f"CASE WHEN num_nulls({value}) = 0 THEN concat({value}) END" if column.enum else f"{value}::text"


def cut_route(text: str) -> str:
    """A text as a word of the subject: no more of it than makes any subject too long, and so has the event refused.

    By a cast, which never fails: some releases of PostgreSQL refuse to take the beginning of what is compressed.
    """
    return f"({text})::varchar({LONGEST_SUBJECT + 1})::text"


def _stored(values: Sequence[str]) -> str:
    return " + ".join(f"coalesce(pg_column_size({value}), 0)" for value in values)


def _odd(column: Column) -> str:
    return "pg_lsn" if column.type == "tid" else "tid"
