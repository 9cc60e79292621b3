"""`where` as SQL: each condition compares a column with literals of the column's own type. Pure.

The comparison is the type's own, so numbers, dates, enums and collations come out as in any query (decision 0008).
Two forms: over the trigger's records, and, where the application changed a column under us, over the row as jsonb.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from ...spec.model import Condition, Operator
from ..quoting import identifier, literal
from ..shape import Column

_ORDER = {Operator.GREATER_THAN: ">", Operator.LESS_THAN: "<"}
# Types whose values come back the same from their text, under the settings that the function pins for them.
_SAME_FROM_TEXT = frozenset(
    [
        *("int2", "int4", "int8", "numeric", "float4", "float8", "bool", "text", "varchar", "bpchar", "uuid"),
        *("date", "timestamp", "timestamptz"),
    ]
)


class Filter:
    """The conditions of one watcher; `columns` by name, with every column that a condition names."""

    def __init__(self, conditions: Sequence[Condition], columns: Mapping[str, Column]) -> None:
        self._conditions = conditions
        self._columns = columns
        self._named = {each.column: columns[each.column] for each in conditions if each.column in columns}

    def __bool__(self) -> bool:
        return bool(self._conditions)

    def of_record(self, record: str) -> str:
        """Whether all hold for `record`, a row variable or a table's alias. May be NULL: it does not hold."""
        return self._all(lambda condition: self._compare(condition, f"{record}.{identifier(condition.column)}"))

    @property
    def in_set(self) -> bool:
        """Whether `of_set` can say it: enums not, whose labels may be renamed, nor types of the application's."""
        return all(
            column.builtin and not column.enum and column.type in _SAME_FROM_TEXT for column in self._named.values()
        )

    def of_set(self, alias: str) -> str:
        """The same for columns of `alias`, for which an expression must be valid whatever type they have by then.

        A cast to text is, and back to a type of pg_catalog; neither can raise where the type is what it was, and
        where it is not the row counts as meeting the conditions.
        """

        def again(condition: Condition) -> str:
            column = self._columns[condition.column]
            return self._compare(condition, f"({alias}.{identifier(column.name)}::text)::{column.compared_as}")

        return f"CASE WHEN {as_they_were(alias, self._named.values())} THEN {self._all(again)} ELSE true END"

    def of_jsonb(self, row: str) -> str:
        """The same for a row as jsonb. A column that is not there any more keeps nothing back. May raise."""

        def by_name(condition: Condition) -> str:
            name = literal(condition.column)
            value = f"({row} ->> {name})::{self._columns[condition.column].compared_as}"
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


def as_they_were(alias: str, columns: Iterable[Column]) -> str:
    """Whether columns of `alias` have the types that they had when the function was written, or domains over them.

    Never raises. Types of pg_catalog, whose names stay, are compared as those of two records of NULLs: the planner does
    so once, and nothing is left of it for each statement (decision 0021). A NULL of a column that nobody reads
    (`CASE` with an unknown literal) is of its type without what a domain asks, its length and its collation.
    """
    tests, were, are = [], [], []
    for column in columns:
        value = f"{alias}.{identifier(column.name)}"
        if column.type_name.startswith("pg_catalog."):
            were.append(f"NULL::{column.type_name}")
            are.append(f"CASE WHEN false THEN {value} END")
        else:
            tests.append(f"pg_typeof({value})::oid = {column.type_oid}")
    if were:
        # Records within records: of those outside, the types are the same, or the comparison would raise.
        nulls = (f"row(row({', '.join(each)})::record)::record" for each in (were, are))
        tests.insert(0, " *= ".join(nulls))
    return " AND ".join(tests)


def typed(text: str, column: Column) -> str:
    """`text` as a literal of the column's type, without its length: 'abcd' stays that, whatever varchar(3) says.

    Of a domain, of the type below it: what a domain asks is a function of the application's, and would run as us.
    """
    return f"{literal(text)}::{column.compared_as}"
