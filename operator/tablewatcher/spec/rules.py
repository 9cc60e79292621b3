"""What one field asks of another. Each rule looks at the values as written and is silent where they are out of shape,

so that these errors come together with those of single fields.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ..errors import FieldError
from .advice import closest
from .model import WHOLE_ROW, Action, Backoff, DatabaseTlsMode, Format, Operator

ONE_SINK = "must have exactly one of nats and http"
CONNECTION_REQUIRED = (
    "required: name the Secret that holds the connection, such as secretRef: {name: shop-app}; on the command line,"
    " --dsn does instead"
)
WHOLE_ROW_ALONE = 'must hold "*" alone or column names, not both: "*" is every column'
TRIGGER_WHOLE_ROW = 'must name columns: remove the field to count a change of any column ("*" is not needed)'
TRIGGER_NEEDS_UPDATE = "needs the action update: add it to spec.actions, or remove the field"
BACKOFF_ORDER = "initialMilliseconds must not be longer than maxSeconds: lower the first or raise the second"
REPEATED = "is there twice: remove one"
WHERE_VALUES = (
    "must hold values for In and NotIn, exactly one for GreaterThan and LessThan, none for IsNull and IsNotNull"
)
TLS_MODE = "must be VerifyFull or VerifyCA where there is a caRef: the other modes check no certificate"
ONE_AUTH = "must have exactly one of credsSecretRef, nkeySecretRef, tokenSecretRef and userPasswordSecretRef"
CREATE_NEEDS_STREAM = "required: create makes the stream of this name"
CORE_HAS_NO_STREAM = "false means core NATS, which knows no streams: remove stream and create, or set it to true"
ONE_URL = "must have exactly one of url and urlSecretRef"
TLS_NEEDS_HTTPS = "needs an https:// URL: set one, or remove tls"
ONE_VALUE = "must have exactly one of value and valueFrom"
BATCH_STRUCTURED = "must be Structured where sink.http.batch.maxEvents is above 1: a batch holds whole events"

_AUTHS = ("credsSecretRef", "nkeySecretRef", "tokenSecretRef", "userPasswordSecretRef")
_CHECKING = (DatabaseTlsMode.VERIFY_CA, DatabaseTlsMode.VERIFY_FULL)

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
        yield FieldError("spec.database.secretRef", CONNECTION_REQUIRED)
    yield from _sink(spec)
    yield from _nats(spec)
    yield from _http(spec)
    yield from _columns(spec)
    yield from _where(spec)
    yield from _database_tls(spec)
    yield from _backoff(spec)
    for path in _LISTS:
        yield from _repeated(path, _at(spec, path))


def _sink(spec: Mapping[object, object]) -> Iterator[FieldError]:
    sink = spec.get("sink")
    if isinstance(sink, Mapping) and len({"nats", "http"} & sink.keys()) != 1:
        yield FieldError("spec.sink", ONE_SINK)


def _nats(spec: Mapping[object, object]) -> Iterator[FieldError]:
    auth = _at(spec, "spec.sink.nats.auth")
    if isinstance(auth, Mapping) and len(set(_AUTHS) & auth.keys()) != 1:
        yield FieldError("spec.sink.nats.auth", ONE_AUTH)
    stream = _at(spec, "spec.sink.nats.jetStream")
    if not isinstance(stream, Mapping):
        return
    if "create" in stream and "stream" not in stream:
        yield FieldError("spec.sink.nats.jetStream.stream", CREATE_NEEDS_STREAM)
    if stream.get("enabled") is False and {"create", "stream"} & stream.keys():
        yield FieldError("spec.sink.nats.jetStream.enabled", CORE_HAS_NO_STREAM)


def _http(spec: Mapping[object, object]) -> Iterator[FieldError]:
    http = _at(spec, "spec.sink.http")
    if not isinstance(http, Mapping):
        return
    if len({"url", "urlSecretRef"} & http.keys()) != 1:
        yield FieldError("spec.sink.http", ONE_URL)
    url = http.get("url")
    if "tls" in http and isinstance(url, str) and not url.startswith("https://"):
        yield FieldError("spec.sink.http.tls", TLS_NEEDS_HTTPS)
    largest = _at(spec, "spec.sink.http.batch.maxEvents")
    if spec.get("format") == Format.BINARY and isinstance(largest, int) and largest > 1:
        yield FieldError("spec.format", BATCH_STRUCTURED)
    yield from _headers(http.get("headers"))


def _headers(headers: object) -> Iterator[FieldError]:
    seen: set[str] = set()
    for place, header in enumerate(headers if isinstance(headers, list) else []):
        if not isinstance(header, Mapping):
            continue
        if len({"value", "valueFrom"} & header.keys()) != 1:
            yield FieldError(f"spec.sink.http.headers[{place}]", ONE_VALUE)
        name = str(header.get("name")).lower()
        if name in seen:
            yield FieldError(f"spec.sink.http.headers[{place}].name", REPEATED)
        seen.add(name)


def _where(spec: Mapping[object, object]) -> Iterator[FieldError]:
    conditions = spec.get("where")
    for place, condition in enumerate(conditions if isinstance(conditions, list) else []):
        if not isinstance(condition, Mapping):
            continue
        values = condition.get("values", [])
        if isinstance(values, list) and not _fits(condition.get("operator"), len(values)):
            yield FieldError(f"spec.where[{place}].values", WHERE_VALUES)


def _fits(operator: object, values: int) -> bool:
    match operator:
        case Operator.IN | Operator.NOT_IN:
            return values > 0
        case Operator.GREATER_THAN | Operator.LESS_THAN:
            return values == 1
        case Operator.IS_NULL | Operator.IS_NOT_NULL:
            return values == 0
    return True


def _database_tls(spec: Mapping[object, object]) -> Iterator[FieldError]:
    tls = _at(spec, "spec.database.tls")
    if isinstance(tls, Mapping) and "caRef" in tls and tls.get("mode", _CHECKING[0]) not in _CHECKING:
        yield FieldError("spec.database.tls.mode", TLS_MODE)


def _columns(spec: Mapping[object, object]) -> Iterator[FieldError]:
    columns, trigger, actions = (spec.get(name) for name in ("columns", "triggerColumns", "actions"))
    if isinstance(columns, list) and WHOLE_ROW[0] in columns and len(columns) > 1:
        yield FieldError("spec.columns", WHOLE_ROW_ALONE)
    if not isinstance(trigger, list) or not trigger:
        return
    if WHOLE_ROW[0] in trigger:
        yield FieldError("spec.triggerColumns", TRIGGER_WHOLE_ROW)
    elif isinstance(actions, list) and not any(_may_be_update(action) for action in actions):
        yield FieldError("spec.triggerColumns", TRIGGER_NEEDS_UPDATE)


def _may_be_update(action: object) -> bool:
    """Whether it is that, or was meant to be: what is misspelt has an error of its own."""
    return isinstance(action, str) and closest(action, tuple(Action)) == Action.UPDATE


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
