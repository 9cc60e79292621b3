"""The body of a capture function: `sql/capture.sql`, filled in for one watcher and table shape. Pure."""

from __future__ import annotations

from ...naming import SCHEMA, WatcherNames
from ...spec.model import WHOLE_ROW, Action, WatcherSpec
from ..quoting import literal
from ..ring.chunks import IDS_A_ROW, STORED_COLUMNS
from ..shape import TableShape
from ..sql import (
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
    CAPTURE_UNCHANGED,
    insert_into_slot,
)
from .conditions import Filter
from .expressions import names_array, parts, routes_again, same_images, sequence
from .json_text import object_of_record, text_of
from .row_source import FILTER_MEMBER, ROW_VARIABLES, RowSource
from .statement_source import ALL_ROWS, LOOK_EVERY, TRANSITION_TABLE, Selection

MAX_KEY_BYTES = 1024
MAX_CONTEXT_BYTES = 16_384
_TRACEPARENT = "substring(current_setting('tablewatcher.traceparent', true) FROM '^[!-~]{1,255}$')"
_GATHERED = (
    " picked record;\n  bodies text[]; keys text[]; all_routes text[]; octets integer;"
    " written bigint; done bigint; size integer; average integer; together integer;"
)


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
        # A virtual generated column is NULL in a trigger, whatever it will read as later: never sent.
        stored = [column.name for column in shape.columns if not column.virtual]
        self._width = len(shape.columns) if spec.columns == WHOLE_ROW else 0
        self._row_as_is = self._width == len(stored)
        wanted = stored if spec.columns == WHOLE_ROW else [*self._key, *spec.columns]
        self._sent = tuple(dict.fromkeys(wanted))
        self.sent_columns = tuple(by_name[name] for name in self._sent)
        self.key_columns = tuple(by_name[name] for name in self._key)
        self.routed_columns = tuple(by_name[name] for name in spec.routing_columns)
        self.compared_columns = tuple(by_name[name] for name in dict.fromkeys(each.column for each in spec.where))
        narrow_first = sorted(
            (column for column in shape.columns if not column.virtual),
            key=lambda column: (column.length < 0, column.type in {"json", "jsonb", "bytea", "xml", "text"}),
        )
        self._by_row = RowSource(
            spec,
            shape.oid,
            self._filter,
            key=self.key_columns,
            never_null=frozenset(shape.primary_key),
            sent=self.sent_columns,
            routed=self.routed_columns,
            watched=tuple(by_name[name] for name in spec.trigger_columns),
            stored=narrow_first,
            row_as_is=self._row_as_is,
        )

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
            width=self._width,
        )
        chunk, block, ring = selection.chunk(_TRACEPARENT), selection.block(), common["ring"]
        few = selection.few(common["ids"], _TRACEPARENT)
        return CAPTURE_SET.format(
            **common,
            **selection.gathering(),
            **block.pieces(),
            counting=selection.counting(),
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
            fast=self._by_row.text(actions, leave),
            long_key=self._long_key(),
            slow_unchanged=self._slow_unchanged(leave),
            fast_new_key=parts("NEW", self.key_columns),
            fast_old_key=parts("OLD", self.key_columns),
            fast_same_key=same_images(self._key),
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
            filter_of_truncated=f" || coalesce({FILTER_MEMBER}, '')" if self._filter else "",
            insert=insert_into_slot(
                common["ring"],
                columns,
                f"VALUES ({values})",
                first=f"ring_id := nextval({common['ids']})",
                stopped=leave,
            ),
            look_every=LOOK_EVERY,
        )

    def _objects(self) -> dict[str, object]:
        return {
            "stop": sequence(self._names.stop),
            "slot": sequence(self._names.slot),
            "wake": sequence(self._names.wake),
            "ids": sequence(self._names.ids),
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
        filtered = " filter_word text; new_holds boolean; old_holds boolean;" if self._filter else ""
        wide = " as_wide boolean;" if self._as_set and self._width else ""
        return ROW_VARIABLES + routes + filtered + wide

    def _ring_row(self) -> tuple[str, str]:
        columns = "id, xid, at, op, key, old_key, data, context, traceparent"
        values = (
            "ring_id, pg_current_xact_id(), clock_timestamp(), op, key_parts, old_key_parts, body, context,"
            f" {_TRACEPARENT}"
        )
        return (columns + ", routing", values + ", routes") if self._spec.routing_columns else (columns, values)

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
            new_record=self._filter.of_record("NEW"),
            old_record=self._filter.of_record("OLD"),
            new_jsonb=self._filter.of_jsonb("n"),
            old_jsonb=self._filter.of_jsonb("o"),
            member=FILTER_MEMBER,
            leave=leave,
        )

    def _slow_unchanged(self, leave: str) -> str:
        if not self._spec.trigger_columns:
            return f"\n        IF TG_OP = 'UPDATE' AND OLD *= NEW THEN {leave}; END IF;"
        names = self._spec.trigger_columns
        return CAPTURE_UNCHANGED.format(same_images=same_images(names), names=names_array(names), leave=leave)
