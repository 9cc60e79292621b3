"""What a watcher wants in the database: the text of its capture function and trigger. Pure.

The function is generated once per watcher and table shape. Three rules give it its form:

*It never raises.* Whatever formats a row runs in blocks with an exception handler. Such a block writes nothing, so
its subtransaction never gets a transaction id and costs next to nothing (decision 0001). First the fast form, which
names columns (`NEW."status"`); where the application dropped, renamed or retyped one under us, a form that looks
columns up by name; where that fails too, the key alone. The event always goes out.

*It names no column in the trigger's definition*, so the application's DDL is never blocked.

*Values go through `to_json`, never `to_jsonb`*, which parses `json` columns and raises on `"\\u0000"`, lone
surrogates and `1e1000000`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

from ...naming import WatcherNames
from ...spec.model import WatcherSpec
from ..quoting import literal, ours
from ..shape import SESSION_SETTINGS, TableShape
from .function_source import CaptureSource
from .granularity import as_set, by_statement
from .triggers import WantedTrigger, wanted_triggers

# A body that captures nothing: the first step of removal, without a lock on the table.
NEUTRAL_SOURCE = "BEGIN RETURN NULL; END"
SEARCH_PATH = "search_path=pg_catalog, pg_temp"


@dataclass(frozen=True, slots=True)
class Desired:
    """The capture function and its triggers as they should be. `settings` as pg_proc.proconfig spells them."""

    function_source: str
    settings: tuple[str, ...]
    triggers: tuple[WantedTrigger, ...]


def desired(spec: WatcherSpec, shape: TableShape, names: WatcherNames) -> Desired:
    """What `spec` wants on a table of this shape."""
    source = CaptureSource(spec, shape, names, statements=by_statement(spec, shape), as_set=as_set(spec, shape))
    return Desired(
        function_source=source.text(),
        settings=_settings(source),
        triggers=wanted_triggers(spec, shape, names),
    )


def create_function(names: WatcherNames, source: str, settings: Iterable[str]) -> str:
    """CREATE OR REPLACE of the capture function; takes no lock on the table."""
    given = (setting.partition("=") for setting in settings)
    values = ((name, value if name == "search_path" else literal(value)) for name, _, value in given)
    clauses = "".join(f"\n  SET {name} = {value}" for name, value in values)
    return (
        f"CREATE OR REPLACE FUNCTION {ours(names.function)}() RETURNS trigger\n"
        f"  LANGUAGE plpgsql SECURITY DEFINER{clauses}\n"
        f"  AS {literal(source)}"
    )


def _settings(source: CaptureSource) -> tuple[str, ...]:
    needed = frozenset[str]().union(
        *(column.session_settings for column in source.sent_columns),
        *(column.key_settings for column in (*source.key_columns, *source.routed_columns, *source.compared_columns)),
    )
    pinned = [f"{name}={value}" for name, value in SESSION_SETTINGS.items() if name in needed]
    return (SEARCH_PATH, *pinned)


def source_digest(source: str) -> str:
    """What `tablewatcher.watcher` remembers of the source of a function that was installed."""
    return hashlib.sha256(source.encode()).hexdigest()
