"""The body of a capture function: `sql/capture.sql`, filled in for one watcher and table shape. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from ..naming import SCHEMA, WatcherNames
from ..spec.model import WHOLE_ROW, Action, WatcherSpec
from .chunks import IDS_A_ROW, STORED_COLUMNS
from .conditions import Filter
from .expressions import changed, names_array, parts, routes_again, same, sequence
from .json_text import Piece, Value, object_of_record, text_of
from .quoting import literal
from .shape import TableShape
from .sql import (
    CAPTURE,
    CAPTURE_BOUND,
    CAPTURE_CHUNK,
    CAPTURE_CONTEXT,
    CAPTURE_FILTER,
    CAPTURE_NOTIFY,
    CAPTURE_ONE_BY_ONE,
    CAPTURE_ROW,
    CAPTURE_SET,
    CAPTURE_SKIP,
    CAPTURE_STATEMENT,
    insert_into_slot,
)
from .statement_source import ALL_ROWS, TRANSITION_TABLE, Selection

MAX_KEY_BYTES = 1024
MAX_CONTEXT_BYTES = 16_384
_OPERATION = "CASE TG_OP WHEN 'INSERT' THEN 'i' WHEN 'UPDATE' THEN 'u' WHEN 'DELETE' THEN 'd' ELSE 't' END::\"char\""
_TRACEPARENT = "substring(current_setting('tablewatcher.traceparent', true) FROM '^[!-~]{1,255}$')"
_GATHERED = (
    " picked record;\n  bodies text[]; keys text[]; all_routes text[]; octets integer;"
    " written bigint; done bigint; size integer; average integer; together integer;"
)
_FILTER_MEMBER = """',"filter":"' || filter_word || '"'"""


class CaptureSource:
    """The body of one capture function, put together from the few decisions that differ between watchers.

    statements: a statement trigger calls it for inserts; as_set: it may write the rows of one all at once.
    """

    def __init__(
        self, spec: WatcherSpec, shape: TableShape, names: WatcherNames, *, statements: bool, as_set: bool
    ) -> None:
        self._spec = spec
        self._statements = statements
        self._as_set = as_set
        self._names = names
        self._table_oid = shape.oid
        self._key = shape.key
        by_name = {column.name: column for column in shape.columns}
        self._filter = Filter(spec.where, by_name)
        self._narrow_first = sorted(
            (column for column in shape.columns if not column.virtual),
            key=lambda column: (column.length < 0, column.type in {"json", "jsonb", "bytea", "xml", "text"}),
        )
        # A virtual generated column is NULL in a trigger, whatever it will read as later: never sent.
        stored = [column.name for column in shape.columns if not column.virtual]
        self._row_as_is = spec.columns == WHOLE_ROW and len(stored) == len(shape.columns)
        wanted = stored if spec.columns == WHOLE_ROW else [*self._key, *spec.columns]
        self._sent = tuple(dict.fromkeys(wanted))
        self.sent_columns = tuple(by_name[name] for name in dict.fromkeys([*self._sent, *self._key]))
        self.key_columns = tuple(by_name[name] for name in self._key)
        self.routed_columns = tuple(by_name[name] for name in spec.routing_columns)
        self.compared_columns = tuple(by_name[name] for name in dict.fromkeys(each.column for each in spec.where))

    def text(self) -> str:
        """The whole body."""
        objects = self._objects()
        common = {
            **objects,
            "context": CAPTURE_CONTEXT.format(max_context=MAX_CONTEXT_BYTES),
            "bound": CAPTURE_BOUND.format(**objects),
        }
        notify = CAPTURE_NOTIFY.format(**common)
        by_statement = self._spec.actions & {Action.INSERT} if self._statements else frozenset[Action]()
        by_row = self._spec.actions - by_statement
        return CAPTURE.format(
            # Of the transition table's columns none is to be taken for a variable.
            head="#variable_conflict use_column\n<<tw>>\n" if by_statement else "",
            variables=self._variables(),
            picked=_GATHERED if by_statement else "",
            gates=self._gates(),
            statement=self._statement(common, notify) if by_statement else "",
            rows=self._rows(by_row, "RETURN NULL", common) if by_row else "",
            notify=notify if by_row else "",
        )

    def _gates(self) -> str:
        if not self._spec.capture.allow_skip:
            return ""
        count = f"PERFORM nextval({sequence(self._names.skips)});"
        if self._statements:
            each = f"{count[:-1]} FROM {TRANSITION_TABLE};"
            count = f"IF TG_OP = 'INSERT' THEN {each} ELSE {count} END IF;"
        return CAPTURE_SKIP.format(count=count)

    def _statement(self, common: dict[str, object], notify: str) -> str:
        row_by_row = self._rows(frozenset({Action.INSERT}), "CONTINUE", common)
        if self._as_set:
            rows = self._set(row_by_row, {**common, "notify": notify})
        else:
            rows = f"{CAPTURE_ONE_BY_ONE.format(rows=ALL_ROWS, row_by_row=row_by_row)}\n{notify}"
        return CAPTURE_STATEMENT.format(rows=rows)

    def _set(self, row_by_row: str, common: dict[str, object]) -> str:
        selection = Selection(
            columns=self.sent_columns,
            key=self._key,
            routes=self._spec.routing_columns,
            key_bound=MAX_KEY_BYTES if self._long_key() else None,
            max_event=self._spec.capture.max_event_bytes,
            where=self._filter,
            compared=self.compared_columns,
        )
        chunk, block, ring = selection.chunk(_TRACEPARENT), selection.block(), common["ring"]
        few = selection.few(common["ids"], _TRACEPARENT)
        return CAPTURE_SET.format(
            **common,
            **selection.gathering(),
            **block.pieces(),
            insert=insert_into_slot(ring, STORED_COLUMNS, few),
            insert_chunks=insert_into_slot(ring, STORED_COLUMNS, block.chunks(common["ids"], _TRACEPARENT)),
            chunk=CAPTURE_CHUNK.format(
                **common, insert=insert_into_slot(ring, ", ".join(chunk), f"VALUES ({', '.join(chunk.values())})")
            ),
            one_by_one=CAPTURE_ONE_BY_ONE.format(rows=selection.rest(), row_by_row=row_by_row),
        )

    def _rows(self, actions: frozenset[Action], leave: str, common: dict[str, object]) -> str:
        """What makes of NEW and OLD one row of the ring. `leave`: the statement that ends it early."""
        columns, values = self._ring_row()
        return CAPTURE_ROW.format(
            **common,
            leave=leave,
            fast=self._fast(actions, leave),
            long_key=self._long_key(),
            slow_unchanged=self._slow_unchanged(),
            fast_new_key=parts("NEW", self.key_columns),
            fast_old_key=parts("OLD", self.key_columns),
            fast_same_key=same(self._key),
            key_of_new=text_of(object_of_record("NEW", self._key)),
            key_of_old=text_of(object_of_record("OLD", self._key)),
            before_always="true" if self._spec.include_before else "false",
            key_names=names_array(self._key),
            sent_names="NULL::text[]" if self._row_as_is else names_array(self._sent),
            before_names=names_array(self._key)
            if not self._spec.include_before
            else ("NULL::text[]" if self._row_as_is else names_array(self._sent)),
            **routes_again(self.routed_columns),
            slow_filter=self._slow_filter(leave),
            filter_of_truncated=f" || coalesce({_FILTER_MEMBER}, '')" if self._filter else "",
            insert=insert_into_slot(common["ring"], columns, f"VALUES ({values})"),
        )

    def _objects(self) -> dict[str, object]:
        return {
            "stop": sequence(self._names.stop),
            "slot": sequence(self._names.slot),
            "wake": sequence(self._names.wake),
            "ids": sequence(self._names.ids),
            "skips": sequence(self._names.skips),
            "ring": f"{SCHEMA}.ring_{self._names.hash}",
            "ring_size": " + ".join(
                f"pg_total_relation_size('{SCHEMA}.{name}'::regclass)" for name in self._names.rings
            ),
            "channel": literal(self._names.channel),
            "max_event": self._spec.capture.max_event_bytes,
            "max_key": MAX_KEY_BYTES,
            "ids_a_row": IDS_A_ROW,
            "max_ring": self._spec.delivery.overflow_bytes,
        }

    def _variables(self) -> str:
        routes = " routes text[];" if self._spec.routing_columns else ""
        return routes + (" filter_word text; new_holds boolean; old_holds boolean;" if self._filter else "")

    def _ring_row(self) -> tuple[str, str]:
        columns = "id, xid, at, op, key, old_key, data, context, traceparent"
        values = (
            f"ring_id, pg_current_xact_id(), clock_timestamp(), {_OPERATION}, key_parts, old_key_parts, body, context,"
            f" {_TRACEPARENT}"
        )
        return (columns + ", routing", values + ", routes") if self._spec.routing_columns else (columns, values)

    def _fast(self, actions: frozenset[Action], leave: str) -> str:
        """The form for the columns as they were when the function was written: one branch for each action."""
        forms = {
            Action.INSERT: ("TG_OP = 'INSERT'", self._fast_insert),
            Action.UPDATE: ("TG_OP = 'UPDATE'", self._fast_update),
            Action.DELETE: ("TG_OP = 'DELETE'", self._fast_delete),
            Action.TRUNCATE: ("true", self._truncate),
        }
        branches = [(test, form(leave)) for action, (test, form) in forms.items() if action in actions]
        if len(branches) == 1:
            return _indented(branches[0][1], 4)
        words = ["IF", *["ELSIF"] * (len(branches) - 2)]
        lines = [
            f"    {word} {test} THEN\n{_indented(body, 6)}" for word, (test, body) in zip(words, branches, strict=False)
        ]
        return "\n".join([*lines, f"    ELSE\n{_indented(branches[-1][1], 6)}\n    END IF;"])

    def _fast_insert(self, leave: str) -> list[str]:
        return [*self._only_where("NEW", leave), *self._keys("NEW"), f"body := {text_of(self._key_and_after())};"]

    def _fast_delete(self, leave: str) -> list[str]:
        body = text_of(['"key":', *object_of_record("OLD", self._key), ',"before":', *self._before()])
        return [*self._only_where("OLD", leave), *self._keys("OLD"), f"body := {body};"]

    def _fast_update(self, leave: str) -> list[str]:
        before: list[Piece] = [',"before":', *self._before()]
        if not self._spec.include_before:
            before = [Value(f"CASE WHEN old_key_parts IS NULL THEN '' ELSE {text_of(before)} END")]
        body = [*self._key_and_after(), *before, ',"changed":[', Value(changed(self._sent)), "]"]
        lines = [f"IF {self._fast_unchanged()} THEN {leave}; END IF;"]
        if self._filter:
            new, old = self._filter.of_record("NEW"), self._filter.of_record("OLD")
            word = f"CASE WHEN {new} THEN CASE WHEN {old} THEN 'stayed' ELSE 'entered' END WHEN {old} THEN 'left' END"
            lines += [
                f"filter_word := {word};",
                f"IF filter_word IS NULL THEN {leave}; END IF;",
            ]
            body.append(Value(_FILTER_MEMBER))
        lines += [
            *self._keys("NEW"),
            f"IF NOT ({same(self._key)}) THEN old_key_parts := ARRAY[{parts('OLD', self.key_columns)}]; END IF;",
        ]
        return [*lines, f"body := {text_of(body)};"]

    def _key_and_after(self) -> list[Piece]:
        return ['"key":', *object_of_record("NEW", self._key), ',"after":', *self._row("NEW")]

    def _truncate(self, _leave: str) -> list[str]:
        # Of a partition alone the event says which: the rows of the others are still there.
        partition = """',"partition":' || json_build_object('schema', TG_TABLE_SCHEMA, 'table', TG_TABLE_NAME)::text"""
        body = f"CASE WHEN TG_RELID = {self._table_oid}::oid THEN '' ELSE substr({partition}, 2) END"
        return ["key_parts := ARRAY[NULL::text];", f"body := {body};"]

    def _only_where(self, record: str, leave: str) -> list[str]:
        if not self._filter:
            return []
        return [f"IF ({self._filter.of_record(record)}) IS NOT TRUE THEN {leave}; END IF;"]

    def _keys(self, record: str) -> list[str]:
        lines = [f"key_parts := ARRAY[{parts(record, self.key_columns)}];"]
        if self._spec.routing_columns:
            lines.append(f"routes := ARRAY[{parts(record, self.routed_columns)}];")
        return lines

    def _long_key(self) -> str:
        """What sends a key to be looked at; where its text is always short, nothing."""
        if all(column.builtin and column.length > 0 for column in self.key_columns):
            return ""
        parts = ["key_parts", "old_key_parts"] if Action.UPDATE in self._spec.actions else ["key_parts"]
        return "".join(f"\n      OR octet_length(array_to_string({part}, '')) > {MAX_KEY_BYTES}" for part in parts)

    def _slow_filter(self, leave: str) -> str:
        if not self._filter:
            return ""
        return CAPTURE_FILTER.format(
            new_holds=self._filter.of_jsonb("n"),
            old_holds=self._filter.of_jsonb("o"),
            member=_FILTER_MEMBER,
            leave=leave,
        )

    def _row(self, record: str) -> list[Piece]:
        return [Value(f"to_json({record})")] if self._row_as_is else object_of_record(record, self._sent)

    def _before(self) -> list[Piece]:
        return self._row("OLD") if self._spec.include_before else object_of_record("OLD", self._key)

    def _fast_unchanged(self) -> str:
        if self._spec.trigger_columns:
            return same(self._spec.trigger_columns)
        # Column by column, narrow ones first: nearly every update differs early, and a wide value that did not
        # change is never fetched. The whole-row comparison at the end sees columns added since.
        known = same(column.name for column in self._narrow_first)
        return f"{known} AND OLD *= NEW"

    def _slow_unchanged(self) -> str:
        if self._spec.trigger_columns:
            names = names_array(self._spec.trigger_columns)
            return (
                f"NOT EXISTS (SELECT FROM unnest({names}) AS c (name)"
                " WHERE (o -> c.name) IS DISTINCT FROM (n -> c.name) OR NOT (n ? c.name))"
            )
        return "OLD *= NEW"


def _indented(lines: Iterable[str], width: int) -> str:
    return "\n".join(" " * width + line for line in lines)
