"""The body of a capture function: `sql/capture.sql`, filled in for one watcher and table shape. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence

from ..naming import SCHEMA, WatcherNames
from ..spec.model import WHOLE_ROW, WatcherSpec
from .quoting import identifier, literal
from .shape import TableShape
from .sql import CAPTURE

MAX_EVENT_BYTES = 262_144
MAX_RING_BYTES = 1 << 30
MAX_KEY_BYTES = 1024
MAX_CONTEXT_BYTES = 16_384


class CaptureSource:
    """The body of one capture function, put together from the few decisions that differ between watchers."""

    def __init__(self, spec: WatcherSpec, shape: TableShape, names: WatcherNames) -> None:
        self._spec = spec
        self._names = names
        self._key = shape.key
        by_name = {column.name: column for column in shape.columns}
        self._narrow_first = sorted(
            (column for column in shape.columns if not column.virtual),
            key=lambda column: (column.length < 0, column.type in {"json", "jsonb", "bytea", "xml", "text"}),
        )
        # A virtual generated column is NULL in a trigger, whatever it will read as later: never sent.
        stored = [column.name for column in shape.columns if not column.virtual]
        self._whole_row = spec.columns == WHOLE_ROW
        self._row_as_is = self._whole_row and len(stored) == len(shape.columns)
        wanted = stored if self._whole_row else [*self._key, *spec.columns]
        self._sent = tuple(dict.fromkeys(wanted))
        self.sent_columns = tuple(by_name[name] for name in dict.fromkeys([*self._sent, *self._key]))
        self.key_columns = tuple(by_name[name] for name in self._key)

    def text(self) -> str:
        return CAPTURE.format(
            stop=self._sequence(self._names.stop),
            slot=self._sequence(self._names.slot),
            wake=self._sequence(self._names.wake),
            ids=self._sequence(self._names.ids),
            ring=f"{SCHEMA}.ring_{self._names.hash}",
            channel=literal(self._names.channel),
            fast_unchanged=self._fast_unchanged(),
            slow_unchanged=self._slow_unchanged(),
            fast_new_key=self._parts("NEW", self._key),
            fast_old_key=self._parts("OLD", self._key),
            fast_same_key=self._same(self._key),
            key_of_new=self._object("NEW", self._key),
            key_of_old=self._object("OLD", self._key),
            new_row=self._row("NEW"),
            fast_before=self._row("OLD") if self._spec.include_before else self._object("OLD", self._key),
            before_always="true" if self._spec.include_before else "false",
            fast_changed=self._changed(),
            key_names=self._names_array(self._key),
            sent_names="NULL::text[]" if self._row_as_is else self._names_array(self._sent),
            before_names=self._names_array(self._key)
            if not self._spec.include_before
            else ("NULL::text[]" if self._row_as_is else self._names_array(self._sent)),
            max_event=MAX_EVENT_BYTES,
            max_key=MAX_KEY_BYTES,
            max_context=MAX_CONTEXT_BYTES,
            max_ring=self._spec.delivery.overflow_bytes,
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
            label = literal(("," if nth else "") + json.dumps(name, ensure_ascii=False) + ":")
            pieces.append(f"{label} || coalesce(to_json({record}.{identifier(name)})::text, 'null')")
        return f"'{{' || {' || '.join(pieces)} || '}}'"

    def _row(self, record: str) -> str:
        return f"to_json({record})::text" if self._row_as_is else self._object(record, self._sent)

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
