"""What leaves `lastval()` to the application after an insert (decision 0025). Pure.

It is the number last drawn in the session, and the function draws one of its own for the row of the ring. So it draws
once more, of a sequence that is there for this, and sets that to the number that the application drew: nothing else
moves what `lastval()` looks at. The other order is not safe: somebody else may set the sequence in between.
"""

from __future__ import annotations

from ..naming import WatcherNames
from .conditions import as_they_were
from .expressions import sequence
from .quoting import identifier
from .shape import Column
from .statement_source import ROW, TRANSITION_TABLE

# The variable that holds the number of the row.
DRAWN = "drawn"


class Lastval:
    """The pieces for one watcher. column: the one that is numbered; None: no insert draws anything, no piece does."""

    def __init__(self, names: WatcherNames, column: Column | None) -> None:
        self._sequence = sequence(names.lastval)
        self.column = column

    @property
    def declared(self) -> str:
        return f" {DRAWN} bigint;" if self.column else ""

    @property
    def after_row(self) -> str:
        """Statements for after a row whose number the form that wrote it has noted."""
        return f"\n  IF {DRAWN} IS NOT NULL THEN {DRAWN} := {self._given(DRAWN)}; END IF;" if self.column else ""

    @property
    def after_row_left_out(self) -> str:
        """The same for one that no form has looked at."""
        if self.column is None:
            return ""
        noted = f"{DRAWN} := NEW.{identifier(self.column.name)}"
        return (
            f"IF TG_OP = 'INSERT' THEN\n      BEGIN {noted}; EXCEPTION WHEN OTHERS OR assert_failure THEN NULL; END;"
            f"{self.after_row}\n    END IF;"
        )

    @property
    def id_of_few(self) -> str:
        """The id, already drawn, of one of the first rows of a statement, with that done for its `r.number`."""
        if self.column is None:
            return "r.id"
        # Whatever comes of it: all that counts is that it is looked at.
        return f"CASE WHEN {self._given('r.number::text::bigint')} IS NULL THEN r.id ELSE r.id END"

    @property
    def after_statement(self) -> str:
        """Statements for after one of many rows: the last counts. They cannot raise, whatever became of the column."""
        if self.column is None:
            return ""
        name = identifier(self.column.name)
        number = f"CASE WHEN {as_they_were('c', [self.column])} THEN c.{name}::text::bigint END"
        rows = f'(SELECT {name} FROM {TRANSITION_TABLE} AS "{ROW}") AS c'
        last = f"(SELECT greatest(count(*) - 1, 0) FROM {TRANSITION_TABLE})"
        # Where the column has gone, its name is found in the outer query, as in `Selection`.
        return (
            f"PERFORM {self._given('l.number')}\n"
            f"        FROM (SELECT {number} AS number FROM (SELECT NULL::tid AS {name}) AS gone,\n"
            f"          LATERAL {rows} OFFSET {last}) AS l\n        WHERE l.number IS NOT NULL;"
        )

    @property
    def after_many(self) -> str:
        """The same for a statement written as a set: where there were more than the first few rows."""
        return f"      IF size IS NOT NULL THEN\n        {self.after_statement}\n      END IF;\n" if self.column else ""

    def _given(self, value: str) -> str:
        """An expression that makes `lastval()` give `value`, a bigint; NULL where that is."""
        return f"setval({self._sequence}, CASE WHEN nextval({self._sequence}) IS NOT NULL THEN {value} END)"
