"""What one field asks of another. Each rule looks at the values as written and is silent where they are out of shape,

so that these errors come together with those of single fields.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ..errors import FieldError
from .model import WHOLE_ROW, Backoff

ONE_SINK = "must have exactly one of nats and http"
SECRET_REF_REQUIRED = "required: name the Secret that holds the connection, such as secretRef: {name: shop-app}"  # noqa: S105
WHOLE_ROW_ALONE = 'must hold "*" alone or column names, not both: "*" is every column'
TRIGGER_WHOLE_ROW = 'must name columns: remove the field to count a change of any column ("*" is not needed)'
TRIGGER_NEEDS_UPDATE = "needs the action update: add it to spec.actions, or remove the field"
BACKOFF_ORDER = "initialMilliseconds must not be longer than maxSeconds: lower the first or raise the second"
REPEATED = "is there twice: remove one"

_LISTS = (
    "spec.actions",
    "spec.columns",
    "spec.triggerColumns",
    "spec.sink.nats.servers",
    "spec.sink.http.signing.secretRefs",
)


def cross_field_errors(spec: Mapping[object, object], *, require_secret: bool) -> Iterator[FieldError]:
    """Every broken rule between fields of `spec` (as written, without fields refused by name)."""
    if require_secret and _at(spec, "spec.database.secretRef") is None:
        yield FieldError("spec.database.secretRef", SECRET_REF_REQUIRED)
    yield from _sink(spec)
    yield from _columns(spec)
    yield from _backoff(spec)
    for path in _LISTS:
        yield from _repeated(path, _at(spec, path))


def _sink(spec: Mapping[object, object]) -> Iterator[FieldError]:
    sink = spec.get("sink")
    if isinstance(sink, Mapping) and len({"nats", "http"} & sink.keys()) != 1:
        yield FieldError("spec.sink", ONE_SINK)


def _columns(spec: Mapping[object, object]) -> Iterator[FieldError]:
    columns, trigger, actions = (spec.get(name) for name in ("columns", "triggerColumns", "actions"))
    if isinstance(columns, list) and WHOLE_ROW[0] in columns and len(columns) > 1:
        yield FieldError("spec.columns", WHOLE_ROW_ALONE)
    if not isinstance(trigger, list) or not trigger:
        return
    if WHOLE_ROW[0] in trigger:
        yield FieldError("spec.triggerColumns", TRIGGER_WHOLE_ROW)
    elif isinstance(actions, list) and "update" not in actions:
        yield FieldError("spec.triggerColumns", TRIGGER_NEEDS_UPDATE)


def _backoff(spec: Mapping[object, object]) -> Iterator[FieldError]:
    backoff = _at(spec, "spec.delivery.backoff")
    if not isinstance(backoff, Mapping):
        return
    initial = backoff.get("initialMilliseconds", Backoff().initial_milliseconds)
    longest = backoff.get("maxSeconds", Backoff().max_seconds)
    if isinstance(initial, int) and isinstance(longest, int) and initial > longest * 1000:
        yield FieldError("spec.delivery.backoff", BACKOFF_ORDER)


def _repeated(path: str, items: object) -> Iterator[FieldError]:
    if not isinstance(items, list):
        return
    seen: set[str] = set()
    for place, item in enumerate(items):
        shown = repr(sorted(item.items(), key=repr)) if isinstance(item, Mapping) else repr(item)
        if shown in seen:
            yield FieldError(f"{path}[{place}]", REPEATED)
        seen.add(shown)


def _at(spec: Mapping[object, object], path: str) -> object:
    found: object = spec
    for name in path.split(".")[1:]:
        found = found.get(name) if isinstance(found, Mapping) else None
    return found
