"""The shape of `spec`: which fields there are, of which type, within which bounds.

Only fields this version acts upon are here; the rest is in `unsupported.py`. What one field asks of another is in
`rules.py`, because these models stop at the first object that is out of shape.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from . import checks
from .model import (
    Action,
    DatabaseTlsMode,
    DeletionPolicy,
    Format,
    Granularity,
    Management,
    OnExhausted,
    Operator,
    Ordering,
    SourceKind,
)
from .unsupported import GROUP_NOT_SUPPORTED

MAX_COLUMNS = 1600
MAX_SERVERS = 16
MAX_SIGNING = 8
MAX_TIMEOUT_SECONDS = 300
MAX_INITIAL_MILLISECONDS = 60_000
MAX_BACKOFF_SECONDS = 86_400
MAX_CONDITIONS = 16
MAX_VALUES = 64
MAX_VALUE = 1024
MIN_EVENT_BYTES = 1024
MAX_EVENT_BYTES = 8_388_608
MAX_HEADERS = 32
MAX_HEADER_VALUE = 4096
MAX_BATCH_EVENTS = 10_000
MIN_BATCH_BYTES = 1024
MAX_BATCH_BYTES = 67_108_864
MAX_LINGER_MILLISECONDS = 60_000
MAX_CONCURRENCY = 1024
MAX_STREAM_REPLICAS = 5
MAX_ATTEMPTS = 1000
MAX_SECONDS = 31_536_000
MIN_OVERFLOW_BYTES = 1_048_576


def _default_group(value: str) -> str:
    if value != "default":
        raise ValueError(GROUP_NOT_SUPPORTED)
    return value


Identifier = Annotated[str, AfterValidator(checks.identifier)]
Name = Annotated[str, AfterValidator(checks.dns_name)]
KeyName = Annotated[str, AfterValidator(checks.secret_key)]
Text = Annotated[str, Field(max_length=checks.MAX_TEXT)]
Columns = Annotated[list[Identifier], Field(max_length=MAX_COLUMNS)]


class Shape(BaseModel):
    """An object of the manifest: camelCase names, no unknown fields, no silent conversion of types."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, alias_generator=to_camel)


class SecretRefShape(Shape):
    name: Name


class SecretKeyShape(Shape):
    name: Name
    key: KeyName


class CaRefShape(Shape):
    kind: Annotated[SourceKind, Field(strict=False)]
    name: Name
    key: KeyName


class TlsShape(Shape):
    ca_ref: CaRefShape | None = None
    client_cert_secret_ref: SecretRefShape | None = None


class NatsTlsShape(TlsShape):
    handshake_first: bool = False


class DatabaseTlsShape(TlsShape):
    mode: Annotated[DatabaseTlsMode, Field(strict=False)] | None = None


class KeysShape(Shape):
    uri: KeyName | None = None
    host: KeyName | None = None
    port: KeyName | None = None
    username: KeyName | None = None
    password: KeyName | None = None
    database: KeyName | None = None


class DatabaseShape(Shape):
    secret_ref: SecretRefShape | None = None
    keys: KeysShape = KeysShape()
    admin_secret_ref: SecretRefShape | None = None
    tls: DatabaseTlsShape | None = None
    allow_all_tables_publication: bool = False


class TableShape(Shape):
    schema_: Annotated[str, AfterValidator(checks.watched_schema)] = Field(default="public", alias="schema")
    name: Identifier


class ConditionShape(Shape):
    column: Identifier
    operator: Annotated[Operator, Field(strict=False)]
    values: list[Annotated[str, Field(max_length=MAX_VALUE), AfterValidator(checks.condition_value)]] = Field(
        default=[], max_length=MAX_VALUES
    )


class CaptureShape(Shape):
    granularity: Annotated[Granularity, Field(strict=False)] = Granularity.AUTO
    max_event_bytes: int = Field(default=262_144, ge=MIN_EVENT_BYTES, le=MAX_EVENT_BYTES)
    allow_skip: bool = False


class CreateStreamShape(Shape):
    max_bytes: int | None = Field(default=None, ge=1)
    replicas: int | None = Field(default=None, ge=1, le=MAX_STREAM_REPLICAS)


class JetStreamShape(Shape):
    stream: Annotated[str, AfterValidator(checks.stream_name)] | None = None
    create: CreateStreamShape | None = None
    enabled: bool = True


class NatsAuthShape(Shape):
    creds_secret_ref: SecretKeyShape | None = None
    nkey_secret_ref: SecretKeyShape | None = None
    token_secret_ref: SecretKeyShape | None = None
    user_password_secret_ref: SecretRefShape | None = None


class NatsShape(Shape):
    servers: list[Annotated[Text, AfterValidator(checks.server_url)]] = Field(min_length=1, max_length=MAX_SERVERS)
    subject: Annotated[str, Field(max_length=checks.MAX_SUBJECT), AfterValidator(checks.subject_template)]
    jet_stream: JetStreamShape = JetStreamShape()
    auth: NatsAuthShape | None = None
    tls: NatsTlsShape | None = None


class SigningShape(Shape):
    secret_refs: list[SecretKeyShape] = Field(min_length=1, max_length=MAX_SIGNING)


class HeaderSourceShape(Shape):
    secret_key_ref: SecretKeyShape


class HeaderShape(Shape):
    name: Annotated[str, AfterValidator(checks.header_name)]
    value: Annotated[str, Field(max_length=MAX_HEADER_VALUE), AfterValidator(checks.header_value)] | None = None
    value_from: HeaderSourceShape | None = None


class BatchShape(Shape):
    max_events: int = Field(default=1, ge=1, le=MAX_BATCH_EVENTS)
    max_bytes: int = Field(default=262_144, ge=MIN_BATCH_BYTES, le=MAX_BATCH_BYTES)
    linger_milliseconds: int = Field(default=0, ge=0, le=MAX_LINGER_MILLISECONDS)


class HttpShape(Shape):
    url: Annotated[Text, AfterValidator(checks.http_url)] | None = None
    url_secret_ref: SecretKeyShape | None = None
    headers: list[HeaderShape] = Field(default=[], max_length=MAX_HEADERS)
    signing: SigningShape | None = None
    timeout_seconds: int = Field(default=20, ge=1, le=MAX_TIMEOUT_SECONDS)
    batch: BatchShape = BatchShape()
    concurrency: int = Field(default=16, ge=1, le=MAX_CONCURRENCY)
    tls: TlsShape | None = None


class SinkShape(Shape):
    nats: NatsShape | None = None
    http: HttpShape | None = None


class BackoffShape(Shape):
    initial_milliseconds: int = Field(default=200, ge=1, le=MAX_INITIAL_MILLISECONDS)
    max_seconds: int = Field(default=300, ge=1, le=MAX_BACKOFF_SECONDS)


class OverflowShape(Shape):
    max_bytes: int = Field(default=1 << 30, ge=MIN_OVERFLOW_BYTES)


class DeliveryShape(Shape):
    ordering: Annotated[Ordering, Field(strict=False)] = Ordering.PER_KEY
    backoff: BackoffShape = BackoffShape()
    max_attempts: int = Field(default=8, ge=1, le=MAX_ATTEMPTS)
    max_age_seconds: int = Field(default=259_200, ge=1, le=MAX_SECONDS)
    on_exhausted: Annotated[OnExhausted, Field(strict=False)] = OnExhausted.PARK
    retention_seconds: int = Field(default=600, ge=0, le=MAX_SECONDS)
    overflow: OverflowShape = OverflowShape()


class ListenerShape(Shape):
    group: Annotated[str, AfterValidator(_default_group)] = "default"


class SpecShape(Shape):
    database: DatabaseShape = DatabaseShape()
    table: TableShape
    actions: list[Annotated[Action, Field(strict=False)]] = Field(min_length=1)
    columns: Columns = []
    trigger_columns: Columns = []
    where: list[ConditionShape] = Field(default=[], max_length=MAX_CONDITIONS)
    include_before: bool = False
    capture: CaptureShape = CaptureShape()
    sink: SinkShape
    format: Annotated[Format, Field(strict=False)] = Format.STRUCTURED
    delivery: DeliveryShape = DeliveryShape()
    suspend: bool = False
    deletion_policy: Annotated[DeletionPolicy, Field(strict=False)] = DeletionPolicy.DELETE
    management: Annotated[Management, Field(strict=False)] = Management.MANAGED
    listener: ListenerShape = ListenerShape()


def _objects(shape: type[Shape], path: str) -> Iterator[tuple[str, tuple[str, ...]]]:
    yield path, tuple(field.alias or name for name, field in shape.model_fields.items())
    for name, field in shape.model_fields.items():
        inner = f"{path}.{field.alias or name}"
        for candidate in (field.annotation, *get_args(field.annotation)):
            if isinstance(candidate, type) and issubclass(candidate, Shape):
                suffix = "[]" if candidate is not field.annotation and _is_list(field.annotation) else ""
                yield from _objects(candidate, inner + suffix)


def _is_list(annotation: object) -> bool:
    return getattr(annotation, "__origin__", None) is list


FIELDS: Mapping[str, tuple[str, ...]] = dict(_objects(SpecShape, "spec"))
"""Path of each object (`spec.sink.nats`, `spec.sink.http.signing.secretRefs[]`) to the fields it takes."""
