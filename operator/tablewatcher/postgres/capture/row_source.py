"""The form a row trigger writes first: for the columns as they were when the function was written. Pure.

It stands in an exception block, so it may say what fails where a column has changed since. What would not fail, but
say another thing, stands behind a test of types, which the planner makes once.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence, Set

from ...spec.model import Action, WatcherSpec
from ..quoting import identifier
from ..shape import Column
from .conditions import Filter, as_they_were
from .expressions import changed, compared_by_value, parts, routes, same
from .json_text import Piece, Value, is_plain, object_of_record, text_of

FILTER_MEMBER = """',"filter":"' || filter_word || '"'"""
ROW_VARIABLES = ' op "char"; changed text; before text;'
_BEFORE = ',"before":'


class RowSource:
    """key, sent, routed: columns, the key among those sent. never_null: names of those of the key that are not.

    watched: those whose change makes an update count, none: any. stored: all that a trigger sees, narrow ones first.
    """

    def __init__(
        self,
        spec: WatcherSpec,
        table_oid: int,
        columns_filter: Filter,
        *,
        key: Sequence[Column],
        never_null: Set[str],
        sent: Sequence[Column],
        routed: Sequence[Column],
        watched: Sequence[Column],
        stored: Sequence[Column],
        row_as_is: bool,
    ) -> None:
        self._spec = spec
        self._table_oid = table_oid
        self._filter = columns_filter
        self._key = key
        # Whole numbers, which JSON has as their type writes them.
        self._plain = [column for column in key if is_plain(column) and column.name in never_null]
        self._sent = sent
        self._routed = routed
        self._watched = watched
        self._stored = stored
        self._row_as_is = row_as_is

    def text(self, actions: frozenset[Action], leave: str) -> str:
        """One branch for each action. `leave`: the statement that ends it early."""
        forms = {
            Action.INSERT: ("TG_OP = 'INSERT'", "i", self._insert),
            Action.UPDATE: ("TG_OP = 'UPDATE'", "u", self._update),
            Action.DELETE: ("TG_OP = 'DELETE'", "d", self._delete),
            Action.TRUNCATE: ("true", "t", self._truncate),
        }
        branches = [
            (test, [f"op := '{letter}'::\"char\";", *form(leave)])
            for action, (test, letter, form) in forms.items()
            if action in actions
        ]
        if len(branches) == 1:
            return _indented(branches[0][1], 4)
        words = ["IF", *["ELSIF"] * (len(branches) - 2)]
        lines = [
            f"    {word} {test} THEN\n{_indented(body, 6)}" for word, (test, body) in zip(words, branches, strict=False)
        ]
        return "\n".join([*lines, f"    ELSE\n{_indented(branches[-1][1], 6)}\n    END IF;"])

    def _insert(self, leave: str) -> list[str]:
        body = self._known("NEW", [], self._key_and_after())
        return [*self._only_where("NEW", leave), *self._keys("NEW"), f"body := {body};"]

    def _delete(self, leave: str) -> list[str]:
        before = self._row("OLD") if self._spec.include_before else self._plain_key("OLD")
        body = self._known("OLD", [], ['"key":', *self._plain_key("OLD"), _BEFORE, *before])
        return [*self._only_where("OLD", leave), *self._keys("OLD"), f"body := {body};"]

    def _update(self, leave: str) -> list[str]:
        lines = self._unchanged(leave)
        if self._filter:
            new, old = self._filter.of_record("NEW"), self._filter.of_record("OLD")
            word = f"CASE WHEN {new} THEN CASE WHEN {old} THEN 'stayed' ELSE 'entered' END WHEN {old} THEN 'left' END"
            lines += [f"filter_word := {word};", f"IF filter_word IS NULL THEN {leave}; END IF;"]
        lines += [*self._keys("NEW"), f"IF NOT ({same(self._key)}) THEN"]
        lines.append(f"  old_key_parts := ARRAY[{parts('OLD', self._key)}];")
        if self._spec.include_before:
            before: list[Piece] = [_BEFORE, *self._row("OLD")]
        else:
            of_key = object_of_record("OLD", _names(self._key))
            lines.append(f"  before := {text_of([_BEFORE, *of_key])};")
            before = [Value("before")]  # mostly NULL, which is left out
        body = [*self._key_and_after(), *before, ',"changed":[', Value("changed"), "]"]
        body += [Value(FILTER_MEMBER)] if self._filter else []
        return [*lines, "END IF;", f"body := {self._known('NEW', [*self._sent, *self._watched], body)};"]

    def _unchanged(self, leave: str) -> list[str]:
        """What leaves an update out, and sets `changed` of one that is not: what is sent is compared once for both."""
        listed = f"changed := {changed(self._sent)};"
        if self._watched:
            by_value = [column for column in self._watched if compared_by_value(column)]
            test = _and([*([as_they_were("NEW", by_value)] if by_value else []), same(self._watched)])
            return [f"IF {test} THEN {leave}; END IF;", listed]
        # Column by column, narrow ones first: most updates differ early, and a wide value that did not change is not
        # fetched. The whole row at the end sees columns added since.
        sent = set(self._sent)
        rest = _and([*(same([column]) for column in self._stored if column not in sent), "OLD *= NEW"])
        return [listed, "IF changed = '' THEN", f"  IF {rest} THEN {leave}; END IF;", "END IF;"]

    def _truncate(self, _leave: str) -> list[str]:
        # Of a partition alone the event says which: the rows of the others are still there.
        partition = """',"partition":' || json_build_object('schema', TG_TABLE_SCHEMA, 'table', TG_TABLE_NAME)::text"""
        body = f"CASE WHEN TG_RELID = {self._table_oid}::oid THEN '' ELSE substr({partition}, 2) END"
        return ["key_parts := ARRAY[NULL::text];", f"body := {body};"]

    def _known(self, record: str, compared: Sequence[Column], body: Iterable[Piece]) -> str:
        """The body, or NULL where columns compared or written by their type are not of it any more."""
        columns = dict.fromkeys([*filter(compared_by_value, compared), *self._plain])
        tests = [as_they_were(record, columns)] if columns else []
        tests += [f"{record}.{identifier(column.name)} IS NOT NULL" for column in self._plain]
        return f"CASE WHEN {_and(tests)} THEN {text_of(body)} END" if tests else text_of(body)

    def _only_where(self, record: str, leave: str) -> list[str]:
        if not self._filter:
            return []
        return [f"IF ({self._filter.of_record(record)}) IS NOT TRUE THEN {leave}; END IF;"]

    def _keys(self, record: str) -> list[str]:
        lines = [f"key_parts := ARRAY[{parts(record, self._key)}];"]
        if self._routed:
            lines.append(f"routes := ARRAY[{routes(record, self._routed)}];")
        return lines

    def _key_and_after(self) -> list[Piece]:
        return ['"key":', *self._plain_key("NEW"), ',"after":', *self._row("NEW")]

    def _plain_key(self, record: str) -> list[Piece]:
        return object_of_record(record, _names(self._key), frozenset(_names(self._plain)))

    def _row(self, record: str) -> list[Piece]:
        if self._row_as_is:
            return [Value(f"to_json({record})")]
        return object_of_record(record, _names(self._sent), frozenset(_names(self._plain)))


def _names(columns: Iterable[Column]) -> list[str]:
    return [column.name for column in columns]


def _and(tests: Iterable[str]) -> str:
    return " AND ".join(tests)


def _indented(lines: Iterable[str], width: int) -> str:
    return "\n".join(" " * width + line for line in lines)
