"""The body of a capture function: `sql/capture.sql`, filled in for one watcher and table shape. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence

from ..naming import SCHEMA, WatcherNames
from ..spec.model import WHOLE_ROW, Action, WatcherSpec
from .conditions import Filter
from .quoting import identifier, literal
from .shape import TableShape
from .sql import CAPTURE, CAPTURE_CONTEXT, CAPTURE_FILTER, CAPTURE_SKIP, CAPTURE_UPKEEP

MAX_KEY_BYTES = 1024
MAX_CONTEXT_BYTES = 16_384
_OPERATION = "CASE TG_OP WHEN 'INSERT' THEN 'i' WHEN 'UPDATE' THEN 'u' WHEN 'DELETE' THEN 'd' ELSE 't' END::\"char\""
_TRACEPARENT = "substring(current_setting('tablewatcher.traceparent', true) FROM '^[!-~]{1,255}$')"
_FILTER_MEMBER = """',"filter":"' || filter_word || '"'"""


class CaptureSource:
    """The body of one capture function, put together from the few decisions that differ between watchers."""

    def __init__(self, spec: WatcherSpec, shape: TableShape, names: WatcherNames) -> None:
        self._spec = spec
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

    def text(self) -> str:
        """The whole body."""
        columns, values = self._ring_row()
        return CAPTURE.format(
            **self._objects(),
            gates=CAPTURE_SKIP.format(**self._objects()) if self._spec.capture.allow_skip else "",
            fast=self._fast(),
            long_key=self._long_key(),
            slow_unchanged=self._slow_unchanged(),
            fast_new_key=self._parts("NEW", self._key),
            fast_old_key=self._parts("OLD", self._key),
            fast_same_key=self._same(self._key),
            key_of_new=self._object("NEW", self._key),
            key_of_old=self._object("OLD", self._key),
            before_always="true" if self._spec.include_before else "false",
            key_names=self._names_array(self._key),
            sent_names="NULL::text[]" if self._row_as_is else self._names_array(self._sent),
            before_names=self._names_array(self._key)
            if not self._spec.include_before
            else ("NULL::text[]" if self._row_as_is else self._names_array(self._sent)),
            variables=self._variables(),
            slow_routing=self._slow_routing(),
            slow_filter=self._slow_filter(),
            filter_of_truncated=f" || coalesce({_FILTER_MEMBER}, '')" if self._filter else "",
            context=CAPTURE_CONTEXT.format(max_context=MAX_CONTEXT_BYTES),
            ring_columns=columns,
            ring_values=values,
            upkeep=CAPTURE_UPKEEP.format(size_is_due="ring_id % 1024 = 0", **self._objects()),
        )

    def _objects(self) -> dict[str, object]:
        return {
            "stop": self._sequence(self._names.stop),
            "slot": self._sequence(self._names.slot),
            "wake": self._sequence(self._names.wake),
            "ids": self._sequence(self._names.ids),
            "skips": self._sequence(self._names.skips),
            "ring": f"{SCHEMA}.ring_{self._names.hash}",
            "channel": literal(self._names.channel),
            "max_event": self._spec.capture.max_event_bytes,
            "max_key": MAX_KEY_BYTES,
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

    def _fast(self) -> str:
        """The form for the columns as they were when the function was written: one branch for each action."""
        forms = {
            Action.INSERT: ("TG_OP = 'INSERT'", self._fast_insert),
            Action.UPDATE: ("TG_OP = 'UPDATE'", self._fast_update),
            Action.DELETE: ("TG_OP = 'DELETE'", self._fast_delete),
            Action.TRUNCATE: ("true", self._truncate),
        }
        branches = [(test, form()) for action, (test, form) in forms.items() if action in self._spec.actions]
        if len(branches) == 1:
            return _indented(branches[0][1], 4)
        words = ["IF", *["ELSIF"] * (len(branches) - 2)]
        lines = [
            f"    {word} {test} THEN\n{_indented(body, 6)}" for word, (test, body) in zip(words, branches, strict=False)
        ]
        return "\n".join([*lines, f"    ELSE\n{_indented(branches[-1][1], 6)}\n    END IF;"])

    def _fast_insert(self) -> list[str]:
        body = f"""'"key":' || {self._object("NEW", self._key)} || ',"after":' || {self._row("NEW")}"""
        return [*self._only_where("NEW"), *self._keys("NEW"), f"body := {body};"]

    def _fast_delete(self) -> list[str]:
        body = f"""'"key":' || {self._object("OLD", self._key)} || ',"before":' || {self._before()}"""
        return [*self._only_where("OLD"), *self._keys("OLD"), f"body := {body};"]

    def _fast_update(self) -> list[str]:
        before = f"""',"before":' || {self._before()}"""
        body = f"""'"key":' || {self._object("NEW", self._key)} || ',"after":' || {self._row("NEW")}"""
        changed = f"""',"changed":' || {self._changed()}"""
        lines = [f"IF {self._fast_unchanged()} THEN RETURN NULL; END IF;"]
        if self._filter:
            new, old = self._filter.of_record("NEW"), self._filter.of_record("OLD")
            word = f"CASE WHEN {new} THEN CASE WHEN {old} THEN 'stayed' ELSE 'entered' END WHEN {old} THEN 'left' END"
            lines += [
                f"filter_word := {word};",
                "IF filter_word IS NULL THEN RETURN NULL; END IF;",
            ]
            changed += f" || {_FILTER_MEMBER}"
        lines += [
            *self._keys("NEW"),
            f"IF NOT ({self._same(self._key)}) THEN old_key_parts := ARRAY[{self._parts('OLD', self._key)}]; END IF;",
        ]
        if self._spec.include_before:
            return [*lines, f"body := {body} || {before} || {changed};"]
        return [
            *lines,
            f"body := {body} || CASE WHEN old_key_parts IS NULL THEN '' ELSE {before} END || {changed};",
        ]

    def _truncate(self) -> list[str]:
        # Of a partition alone the event says which: the rows of the others are still there.
        partition = """',"partition":' || json_build_object('schema', TG_TABLE_SCHEMA, 'table', TG_TABLE_NAME)::text"""
        body = f"CASE WHEN TG_RELID = {self._table_oid}::oid THEN '' ELSE substr({partition}, 2) END"
        return ["key_parts := ARRAY[NULL::text];", f"body := {body};"]

    def _only_where(self, record: str) -> list[str]:
        if not self._filter:
            return []
        return [f"IF ({self._filter.of_record(record)}) IS NOT TRUE THEN RETURN NULL; END IF;"]

    def _keys(self, record: str) -> list[str]:
        lines = [f"key_parts := ARRAY[{self._parts(record, self._key)}];"]
        if self._spec.routing_columns:
            lines.append(f"routes := ARRAY[{self._parts(record, self._spec.routing_columns)}];")
        return lines

    def _long_key(self) -> str:
        """What sends a key to be looked at; where its text is always short, nothing."""
        if all(column.builtin and column.length > 0 for column in self.key_columns):
            return ""
        parts = ["key_parts", "old_key_parts"] if Action.UPDATE in self._spec.actions else ["key_parts"]
        return "".join(f"\n      OR octet_length(array_to_string({part}, '')) > {MAX_KEY_BYTES}" for part in parts)

    def _slow_routing(self) -> str:
        if not self._spec.routing_columns:
            return ""
        values = ", ".join(f"coalesce(n, o) ->> {literal(name)}" for name in self._spec.routing_columns)
        return f"\n        routes := ARRAY[{values}]::text[];"

    def _slow_filter(self) -> str:
        if not self._filter:
            return ""
        return CAPTURE_FILTER.format(
            new_holds=self._filter.of_jsonb("n"), old_holds=self._filter.of_jsonb("o"), member=_FILTER_MEMBER
        )

    @staticmethod
    def _sequence(name: str) -> str:
        return f"'{SCHEMA}.{name}'::regclass"

    @staticmethod
    def _names_array(names: Sequence[str]) -> str:
        return f"ARRAY[{', '.join(literal(name) for name in names)}]::text[]"

    @staticmethod
    def _parts(record: str, names: Sequence[str]) -> str:
        return ", ".join(f"{record}.{identifier(name)}::text" for name in names)

    @staticmethod
    def _object(record: str, names: Sequence[str]) -> str:
        pieces = []
        for nth, name in enumerate(names):
            label = literal(("," if nth else "{") + json.dumps(name, ensure_ascii=False) + ":")
            pieces.append(f"{label} || coalesce(to_json({record}.{identifier(name)})::text, 'null')")
        return f"{' || '.join(pieces)} || '}}'"

    def _row(self, record: str) -> str:
        return f"to_json({record})::text" if self._row_as_is else self._object(record, self._sent)

    def _before(self) -> str:
        return self._row("OLD") if self._spec.include_before else self._object("OLD", self._key)

    @staticmethod
    def _same(names: Iterable[str]) -> str:
        # Record image: exact for every type, also json, xml and point, which have no equality.
        return " AND ".join(
            f"row(OLD.{identifier(name)})::record *= row(NEW.{identifier(name)})::record" for name in names
        )

    def _changed(self) -> str:
        cases = ", ".join(
            f"CASE WHEN NOT ({self._same([name])}) THEN {literal(json.dumps(name, ensure_ascii=False))} END"
            for name in self._sent
        )
        # Not concat_ws: a function takes a hundred arguments, a table has up to 1,600 columns.
        return f"'[' || array_to_string(ARRAY[{cases}]::text[], ',') || ']'"

    def _fast_unchanged(self) -> str:
        if self._spec.trigger_columns:
            return self._same(self._spec.trigger_columns)
        # Column by column, narrow ones first: nearly every update differs early, and a wide value that did not
        # change is never fetched. The whole-row comparison at the end sees columns added since.
        known = self._same(column.name for column in self._narrow_first)
        return f"{known} AND OLD *= NEW"

    def _slow_unchanged(self) -> str:
        if self._spec.trigger_columns:
            names = self._names_array(self._spec.trigger_columns)
            return (
                f"NOT EXISTS (SELECT FROM unnest({names}) AS c (name)"
                " WHERE (o -> c.name) IS DISTINCT FROM (n -> c.name) OR NOT (n ? c.name))"
            )
        return "OLD *= NEW"


def _indented(lines: Iterable[str], width: int) -> str:
    return "\n".join(" " * width + line for line in lines)
