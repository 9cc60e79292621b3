"""The SELECT list that turns an outbox row into an event: the CloudEvent is put together by the database. Pure.

That costs the reader's backend about 5 us a row and saves the listener, which is the narrow place, more than that.
"""

from __future__ import annotations

import json

from ...event import ACTION_NAMES, DATA_CONTENT_TYPE, TYPES
from ...naming import LONGEST_SUBJECT, WatcherNames, source, token
from ...spec.model import Format, WatcherSpec
from ..quoting import literal, utf8
from ..routing import are_of
from .chunks import RAW_COLUMNS

EVENT_COLUMNS = "id, event_id, op, key, old_key, time, captured_at, sequence, traceparent, body, routing"


def event_rows(
    spec: WatcherSpec, names: WatcherNames, *, database: str, encoding: str | None, generation: int, replay: int = 0
) -> str:
    """A subquery with EVENT_COLUMNS over a relation `raw` of RAW_COLUMNS, for use in a query with parameters.

    `body` is bytea: the structured CloudEvent, or its data alone in Binary format. `time` and `sequence` are for the
    headers of Binary and empty otherwise: a body has them already, and events are many. replay: its number, 0: none.
    """
    data = _data(spec, database)
    binary = spec.format is Format.BINARY
    body = data if binary else _structured(spec, data, replay)
    time, sequence = ("r.time", "r.sequence") if binary else ("''::text", "''::text")
    rows = f"""(
    SELECT r.id, r.event_id, r.op::text AS op, r.key_token AS key, r.old_key_token AS old_key, {time} AS time,
        r.micros::float8 / 1000000 AS captured_at, {sequence} AS sequence, r.traceparent,
        {utf8(body, encoding=encoding)} AS body, {_routing(spec)} AS routing
    FROM (
        SELECT {RAW_COLUMNS}, {_event_id(names)} AS event_id,
            {_token("key")} AS key_token, CASE WHEN old_key IS NOT NULL THEN {_token("old_key")} END AS old_key_token,
            {_sequence(generation)} AS sequence
        -- In order before they grow: what is sorted is carried along.
        FROM (SELECT * FROM raw ORDER BY id OFFSET 0) AS raw ORDER BY id OFFSET 0
    ) AS r)"""
    return rows.replace("%", "%%")


def _event_id(names: WatcherNames) -> str:
    # Microseconds tell a row apart from one that got the same id again after a failover that lost rows.
    watcher = f"pg_catalog.decode('{(names.identity + ':').encode().hex()}', 'hex')"
    # Digits, so that they are the same bytes in any encoding, and no conversion has to be looked up.
    named = f"{watcher} || pg_catalog.decode(pg_catalog.concat(id, ':', micros), 'escape')"
    return f"pg_catalog.encode(pg_catalog.substr(pg_catalog.sha256({named}), 1, 16), 'hex')"


def _sequence(generation: int) -> str:
    # Twenty digits: ids begin with the clock, in nanoseconds, and have nineteen.
    digits = "CASE WHEN id >= 1000000000000000000 THEN '0' || id ELSE pg_catalog.lpad(id::text, 20, '0') END"
    return f"'{generation:06d}-' || {digits}"


def _token(column: str) -> str:
    # The function is exact but slow; nearly every key is one plain word, and most are a number.
    number = f"""{column}[1] <> '' AND pg_catalog.ltrim({column}[1], '0123456789') = ''"""
    plain = f"""{column}[1] COLLATE "C" ~ '^[A-Za-z0-9_-]+$'"""
    return (
        f"CASE WHEN pg_catalog.cardinality({column}) = 1 AND (({number}) OR {plain}) THEN {column}[1]"
        f" ELSE tablewatcher.token({column}) END"
    )


def _routing(spec: WatcherSpec) -> str:
    if not spec.routing_columns:
        return "NULL::text[]"
    # A ring may hold longer values, of an earlier version. What no subject has room for is not gone through sign by
    # sign: any other text of that length is refused for the same reason.
    too_long = f"pg_catalog.octet_length(part) > {LONGEST_SUBJECT}"
    instead = f"pg_catalog.repeat('_', {LONGEST_SUBJECT + 1})"
    word = f"CASE WHEN {too_long} THEN {instead} ELSE tablewatcher.token(ARRAY[part]) END"
    columns = spec.routing_columns
    words = f"pg_catalog.unnest(r.routing[1:{len(columns)}])"
    tokens = f"SELECT {word} FROM {words} WITH ORDINALITY AS u (part, nth)"
    return f"CASE WHEN {are_of(columns, 'r.routing')} THEN ARRAY({tokens} ORDER BY nth) END"


def _cases(values: dict[str, str]) -> str:
    return "CASE r.op " + " ".join(f"WHEN '{op}' THEN {literal(text)}" for op, text in values.items()) + " END"


def _data(spec: WatcherSpec, database: str) -> str:
    action = _cases({op: f'{{"action":"{name}"' for op, name in ACTION_NAMES.items()})
    origin = {"database": database, "schema": spec.table.schema, "table": spec.table.name}
    opened = json.dumps(origin, ensure_ascii=False, separators=(",", ":"))[:-1]
    static = literal(',"source":' + opened + ',"txId":')
    # Of a truncated table there is nothing more to say.
    members = "CASE r.data WHEN '' THEN '' ELSE ',' || r.data END"
    # Few pieces: each `||` costs as much as the sort of an event.
    end = """CASE WHEN r.context IS NULL THEN '}}' ELSE '},"context":' || r.context || '}' END"""
    return f"{action} || {members} || {static} || r.xid::text || {end}"


def _structured(spec: WatcherSpec, data: str, replay: int) -> str:
    origin = json.dumps(source(spec.namespace, spec.name))
    table = f"{token(spec.table.schema)}.{token(spec.table.name)}"
    types = _cases({op: f'","source":{origin},"type":"{name}","subject":"{table}/' for op, name in TYPES.items()})
    begin = f',"replay":{replay:d},"data":' if replay else ',"data":'
    traced = f"""'","traceparent":' || pg_catalog.to_json(r.traceparent)::text || '{begin}'"""
    return (
        f"""'{{"specversion":"1.0","id":"' || r.event_id || {types} || r.key_token || '","time":"' || r.time"""
        f""" || '","datacontenttype":"{DATA_CONTENT_TYPE}","sequence":"' || r.sequence"""
        f""" || '","partitionkey":"' || r.key_token"""
        f""" || CASE WHEN r.traceparent IS NULL THEN '"{begin}' ELSE {traced} END || {data} || '}}'"""
    )
