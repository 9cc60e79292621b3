"""What a watcher wants in the database: the text of its capture function and trigger. Pure.

The function is generated once per watcher and table shape. Three rules give it its form:

*It never raises.* Whatever formats a row runs in blocks with an exception handler. Such a block writes nothing, so
its subtransaction never gets a transaction id and costs next to nothing (decision 0002). First the fast form, which
names columns (`NEW."status"`); where the application dropped, renamed or retyped one under us, a form that looks
columns up by name; where that fails too, the key alone. The event always goes out.

*It names no column in the trigger's definition*, so the application's DDL is never blocked.

*Values go through `to_json`, never `to_jsonb`*, which parses `json` columns and raises on `"\\u0000"`, lone
surrogates and `1e1000000`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from psycopg import sql

from ..naming import SCHEMA, WatcherNames
from ..spec.model import WHOLE_ROW, Action, WatcherSpec

MAX_EVENT_BYTES = 262_144
MAX_RING_BYTES = 1 << 30
MAX_KEY_BYTES = 1024

_TRIGGER_BITS = {Action.INSERT: 4, Action.DELETE: 8, Action.UPDATE: 16}
_ROW_BIT = 1

# Where a captured type's text depends on the session, these make it the same from every session. Setting one costs
# each call about a microsecond, so a function carries only what its types need.
_SESSION_SETTINGS = {
    "TimeZone": "UTC",
    "DateStyle": "ISO, MDY",
    "IntervalStyle": "postgres",
    "bytea_output": "hex",
    "extra_float_digits": "1",
    "lc_monetary": "C",
}
_SETTLED_TYPES = frozenset(
    ["int2", "int4", "int8", "oid", "numeric", "bool", "text", "varchar", "bpchar", "char", "name", "uuid", "json", "jsonb", "date", "timestamp", "time", "timetz", "inet", "cidr", "macaddr", "macaddr8", "bit", "varbit", "xml"]
)
_TYPE_SETTING = {
    "timestamptz": "TimeZone",
    "interval": "IntervalStyle",
    "bytea": "bytea_output",
    "float4": "extra_float_digits",
    "float8": "extra_float_digits",
    "money": "lc_monetary",
}


@dataclass(frozen=True, slots=True)
class Column:
    """A column as the catalog has it: `type` is pg_type.typname, `builtin` that it is one of pg_catalog's own or an
    enum, `length` pg_attribute.attlen (-1: of varying length), `virtual` a generated column that is not stored."""

    name: str
    type: str
    length: int
    builtin: bool = True
    enum: bool = False
    virtual: bool = False

    @property
    def session_settings(self) -> frozenset[str]:
        """The settings that the text of this column's values depends on; arrays and composites: all of them."""
        if self.enum or (self.builtin and self.type in _SETTLED_TYPES):
            return frozenset()
        if self.builtin and self.type in _TYPE_SETTING:
            return frozenset((_TYPE_SETTING[self.type],))
        return frozenset(_SESSION_SETTINGS)


@dataclass(frozen=True, slots=True)
class TableShape:
    """A table's columns in order and its key; an empty key means: no immediate primary key."""

    oid: int
    columns: tuple[Column, ...]
    primary_key: tuple[str, ...]

    @property
    def key(self) -> tuple[str, ...]:
        """The columns that identify a row: the primary key, else the whole row."""
        return self.primary_key or tuple(column.name for column in self.columns if not column.virtual)


@dataclass(frozen=True, slots=True)
class Desired:
    """The capture function and trigger as they should be. `settings` as pg_proc.proconfig spells them."""

    function_source: str
    settings: tuple[str, ...]
    trigger_type: int
    trigger_events: str


def literal(text: str) -> str:
    """`text` as an SQL literal that means the same whatever standard_conforming_strings says."""
    return sql.Literal(text).as_string(None).strip()


def identifier(name: str) -> str:
    """`name` quoted, case and spaces kept."""
    return sql.Identifier(name).as_string(None)


def ours(name: str) -> str:
    """One of our objects, qualified; the name is made from a hash and needs no quotes."""
    return f"{SCHEMA}.{name}"


def desired(spec: WatcherSpec, shape: TableShape, names: WatcherNames) -> Desired:
    """What `spec` wants on a table of this shape."""
    source = _Source(spec, shape, names)
    events = [action for action in (Action.INSERT, Action.UPDATE, Action.DELETE) if action in spec.actions]
    return Desired(
        function_source=source.text(),
        settings=_settings(source.sent_columns),
        trigger_type=_ROW_BIT | sum(_TRIGGER_BITS[action] for action in events),
        trigger_events=" OR ".join(action.value.upper() for action in events),
    )


def create_function(names: WatcherNames, source: str, settings: Iterable[str]) -> str:
    """CREATE OR REPLACE of the capture function; takes no lock on the table."""
    clauses = "".join(f"\n  SET {name} = {_setting_value(value)}" for name, _, value in map(_split, settings))
    return (
        f"CREATE OR REPLACE FUNCTION {ours(names.function)}() RETURNS trigger\n"
        f"  LANGUAGE plpgsql SECURITY DEFINER{clauses}\n"
        f"  AS {literal(source)}"
    )


def neutral_source() -> str:
    """A body that captures nothing: the first step of removal, without a lock on the table."""
    return "BEGIN RETURN NULL; END"


def _split(setting: str) -> tuple[str, str, str]:
    return setting.partition("=")


def _setting_value(value: str) -> str:
    return value if value == "pg_catalog, pg_temp" else literal(value)


def _settings(sent: Sequence[Column]) -> tuple[str, ...]:
    settings = ["search_path=pg_catalog, pg_temp"]
    needed = frozenset[str]().union(*(column.session_settings for column in sent))
    settings += [f"{name}={value}" for name, value in _SESSION_SETTINGS.items() if name in needed]
    return tuple(settings)


class _Source:
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

    def text(self) -> str:
        return _TEMPLATE.format(
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
            max_ring=MAX_RING_BYTES,
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
        return f"'[' || concat_ws(',', {cases}) || ']'"

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
        return "o = n"


_TEMPLATE = """
DECLARE
  slot bigint; wake bigint; ring_id bigint;
  operation "char" := lower(left(TG_OP, 1))::"char";
  key_parts text[]; old_key_parts text[]; key_json text; row_json text; before_json text; changed text; body text; context text;
  n jsonb; o jsonb;
BEGIN
  IF pg_sequence_last_value({stop}) > 0 THEN RETURN NULL; END IF;
  BEGIN
    IF TG_OP = 'INSERT' THEN
      key_parts := ARRAY[{fast_new_key}]; key_json := {key_of_new};
      body := '"key":' || key_json || ',"after":' || {new_row};
    ELSIF TG_OP = 'DELETE' THEN
      key_parts := ARRAY[{fast_old_key}]; key_json := {key_of_old};
      body := '"key":' || key_json || ',"before":' || {fast_before};
    ELSE
      IF {fast_unchanged} THEN RETURN NULL; END IF;
      key_parts := ARRAY[{fast_new_key}]; key_json := {key_of_new};
      IF NOT ({fast_same_key}) THEN old_key_parts := ARRAY[{fast_old_key}]; END IF;
      body := '"key":' || key_json || ',"after":' || {new_row};
      IF {before_always} OR old_key_parts IS NOT NULL THEN body := body || ',"before":' || {fast_before}; END IF;
      body := body || ',"changed":' || {fast_changed};
    END IF;
  EXCEPTION WHEN OTHERS THEN
    body := NULL;
  END;
  IF body IS NULL THEN
    BEGIN
      IF TG_OP <> 'DELETE' THEN n := to_jsonb(NEW); END IF;
      IF TG_OP <> 'INSERT' THEN o := to_jsonb(OLD); END IF;
      IF TG_OP = 'UPDATE' AND {slow_unchanged} THEN RETURN NULL; END IF;
      SELECT array_agg(coalesce(n, o) ->> c.name ORDER BY c.at),
             '{{' || coalesce(string_agg(to_json(c.name)::text || ':' || (coalesce(n, o) -> c.name)::text, ',' ORDER BY c.at)
               FILTER (WHERE coalesce(n, o) ? c.name), '') || '}}'
        INTO key_parts, key_json FROM unnest({key_names}) WITH ORDINALITY AS c (name, at);
      body := '"key":' || key_json;
      IF n IS NOT NULL THEN
        SELECT '{{' || coalesce(string_agg(to_json(c.key)::text || ':' || c.value::text, ','), '') || '}}' INTO row_json
          FROM jsonb_each(n) AS c WHERE {sent_names} IS NULL OR c.key = ANY ({sent_names});
        body := body || ',"after":' || row_json;
      END IF;
      IF TG_OP = 'UPDATE' THEN
        SELECT array_agg(o ->> c.name ORDER BY c.at) INTO old_key_parts
          FROM unnest({key_names}) WITH ORDINALITY AS c (name, at);
        IF old_key_parts = key_parts THEN old_key_parts := NULL; END IF;
        SELECT '[' || coalesce(string_agg(to_json(c.key)::text, ','), '') || ']' INTO changed FROM jsonb_each(n) AS c
          WHERE ({sent_names} IS NULL OR c.key = ANY ({sent_names})) AND (o -> c.key) IS DISTINCT FROM c.value;
      END IF;
      IF TG_OP = 'DELETE' OR old_key_parts IS NOT NULL OR (TG_OP = 'UPDATE' AND {before_always}) THEN
        SELECT '{{' || coalesce(string_agg(to_json(c.key)::text || ':' || c.value::text, ','), '') || '}}' INTO before_json
          FROM jsonb_each(o) AS c WHERE {before_names} IS NULL OR c.key = ANY ({before_names});
        body := body || ',"before":' || before_json;
      END IF;
      IF changed IS NOT NULL THEN body := body || ',"changed":' || changed; END IF;
    EXCEPTION WHEN OTHERS THEN
      body := NULL;
    END;
  END IF;
  IF body IS NULL OR octet_length(body) > {max_event} THEN
    IF key_json IS NULL THEN
      BEGIN
        IF TG_OP = 'DELETE' THEN key_parts := ARRAY[{fast_old_key}]; key_json := {key_of_old};
        ELSE key_parts := ARRAY[{fast_new_key}]; key_json := {key_of_new}; END IF;
      EXCEPTION WHEN OTHERS THEN
        key_json := NULL;
      END;
    END IF;
    key_parts := coalesce(key_parts, ARRAY[NULL::text]);
    IF octet_length(key_json) > {max_event} THEN key_json := NULL; END IF;
    body := '"key":' || coalesce(key_json, 'null') || ',"truncated":true';
  END IF;
  IF octet_length(array_to_string(key_parts, '')) > {max_key} THEN
    key_parts := ARRAY[encode(sha256(convert_to(array_to_json(key_parts)::text, 'UTF8')), 'hex')];
  END IF;
  IF octet_length(array_to_string(old_key_parts, '')) > {max_key} THEN
    old_key_parts := ARRAY[encode(sha256(convert_to(array_to_json(old_key_parts)::text, 'UTF8')), 'hex')];
  END IF;
  context := nullif(current_setting('tablewatcher.context', true), '');
  IF context IS NOT NULL THEN
    BEGIN
      context := context::json::text;
    EXCEPTION WHEN OTHERS THEN
      context := to_json(context)::text;
    END;
  END IF;
  ring_id := nextval({ids});
  slot := pg_sequence_last_value({slot});
  IF slot = 0 THEN
    INSERT INTO {ring}_0 (id, op, key, old_key, data, context, traceparent) VALUES (ring_id, operation,
      key_parts, old_key_parts, body, context, nullif(current_setting('tablewatcher.traceparent', true), ''));
  ELSIF slot = 1 THEN
    INSERT INTO {ring}_1 (id, op, key, old_key, data, context, traceparent) VALUES (ring_id, operation,
      key_parts, old_key_parts, body, context, nullif(current_setting('tablewatcher.traceparent', true), ''));
  ELSE
    INSERT INTO {ring}_2 (id, op, key, old_key, data, context, traceparent) VALUES (ring_id, operation,
      key_parts, old_key_parts, body, context, nullif(current_setting('tablewatcher.traceparent', true), ''));
  END IF;
  IF ring_id % 1024 = 0 AND pg_total_relation_size('{ring}_0'::regclass) + pg_total_relation_size('{ring}_1'::regclass)
      + pg_total_relation_size('{ring}_2'::regclass) > {max_ring} THEN
    PERFORM setval({stop}, extract(epoch FROM clock_timestamp())::bigint);
  END IF;
  wake := pg_sequence_last_value({wake});
  IF wake > 0 AND wake > extract(epoch FROM clock_timestamp()) THEN PERFORM pg_notify({channel}, ''); END IF;
  RETURN NULL;
END
"""
