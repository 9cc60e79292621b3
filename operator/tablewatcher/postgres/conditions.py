"""`where` as SQL: each condition compares a column with literals of the column's own type. Pure.

The comparison is the type's own, so numbers, dates, enums and collations come out as in any query (decision 0008).
Two forms: over the trigger's records, and, where the application changed a column under us, over the row as jsonb.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from ..spec.model import Condition, Operator
from .quoting import identifier, literal
from .shape import Column

_ORDER = {Operator.GREATER_THAN: ">", Operator.LESS_THAN: "<"}


class Filter:
    """The conditions of one watcher; `columns` by name, with every column that a condition names."""

    def __init__(self, conditions: Sequence[Condition], columns: Mapping[str, Column]) -> None:
        self._conditions = conditions
        self._columns = columns

    def __bool__(self) -> bool:
        return bool(self._conditions)

    def of_record(self, record: str) -> str:
        """Whether all hold for `record`, a row variable or a table's alias. May be NULL: it does not hold."""
        return self._all(lambda condition: self._compare(condition, f"{record}.{identifier(condition.column)}"))

    def of_columns(self) -> str:
        """The same for columns by their bare names."""
        return self._all(lambda condition: self._compare(condition, identifier(condition.column)))

    def of_jsonb(self, row: str) -> str:
        """The same for a row as jsonb. A column that is not there any more keeps nothing back. May raise."""

        def by_name(condition: Condition) -> str:
            name = literal(condition.column)
            value = f"({row} ->> {name})::{self._columns[condition.column].type_name}"
            return f"CASE WHEN {row} ? {name} THEN {self._compare(condition, value)} ELSE true END"

        return self._all(by_name)

    def _all(self, form: Callable[[Condition], str]) -> str:
        return " AND ".join(f"({form(condition)})" for condition in self._conditions)

    def _compare(self, condition: Condition, value: str) -> str:
        if condition.operator is Operator.IS_NULL:
            return f"num_nulls({value}) = 1"  # not IS NULL, which is true for a composite of nulls
        if condition.operator is Operator.IS_NOT_NULL:
            return f"num_nulls({value}) = 0"
        literals = [typed(text, self._columns[condition.column]) for text in condition.values]
        if condition.operator in _ORDER:
            return f"{value} {_ORDER[condition.operator]} {literals[0]}"
        equal = " OR ".join(f"{value} = {each}" for each in literals)
        return f"NOT ({equal})" if condition.operator is Operator.NOT_IN else equal


def typed(text: str, column: Column) -> str:
    """`text` as a literal of the column's type, without its length: 'abcd' stays that, whatever varchar(3) says."""
    return f"{literal(text)}::{column.type_name}"
