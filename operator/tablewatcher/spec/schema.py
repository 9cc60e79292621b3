"""The shape of `spec`: which fields there are, of which type, within which bounds.

Only fields this version acts upon are here; the rest is in `unsupported.py`. What one field asks of another is in
`rules.py`, because these models stop at the first object that is out of shape.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, get_args

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field
from pydantic.alias_generators import to_camel

from . import checks
from .model import Action, DeletionPolicy, Format
from .unsupported import GROUP_NOT_SUPPORTED, TRUNCATE_NOT_SUPPORTED

MAX_COLUMNS = 1600
MAX_SERVERS = 16
MAX_SIGNING = 8
MAX_TIMEOUT_SECONDS = 300
MAX_INITIAL_MILLISECONDS = 60_000
MAX_BACKOFF_SECONDS = 86_400


def _supported_action(value: object) -> object:
    if value == "truncate":
        raise ValueError(TRUNCATE_NOT_SUPPORTED)
    return value


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


class TableShape(Shape):
    schema_: Identifier = Field(default="public", alias="schema")
    name: Identifier


class JetStreamShape(Shape):
    stream: Annotated[str, AfterValidator(checks.stream_name)] | None = None


class NatsShape(Shape):
    servers: list[Annotated[Text, AfterValidator(checks.server_url)]] = Field(min_length=1, max_length=MAX_SERVERS)
    subject: Annotated[str, Field(max_length=checks.MAX_SUBJECT), AfterValidator(checks.subject_template)]
    jet_stream: JetStreamShape = JetStreamShape()


class SigningShape(Shape):
    secret_refs: list[SecretKeyShape] = Field(min_length=1, max_length=MAX_SIGNING)


class HttpShape(Shape):
    url: Annotated[Text, AfterValidator(checks.http_url)]
    timeout_seconds: int = Field(default=20, ge=1, le=MAX_TIMEOUT_SECONDS)
    signing: SigningShape | None = None


class SinkShape(Shape):
    nats: NatsShape | None = None
    http: HttpShape | None = None


class BackoffShape(Shape):
    initial_milliseconds: int = Field(default=200, ge=1, le=MAX_INITIAL_MILLISECONDS)
    max_seconds: int = Field(default=300, ge=1, le=MAX_BACKOFF_SECONDS)


class DeliveryShape(Shape):
    backoff: BackoffShape = BackoffShape()


class ListenerShape(Shape):
    group: Annotated[str, AfterValidator(_default_group)] = "default"


class SpecShape(Shape):
    database: DatabaseShape = DatabaseShape()
    table: TableShape
    actions: list[Annotated[Action, Field(strict=False), BeforeValidator(_supported_action)]] = Field(min_length=1)
    columns: Columns = []
    trigger_columns: Columns = []
    include_before: bool = False
    sink: SinkShape
    format: Annotated[Format, Field(strict=False)] = Format.STRUCTURED
    delivery: DeliveryShape = DeliveryShape()
    suspend: bool = False
    deletion_policy: Annotated[DeletionPolicy, Field(strict=False)] = DeletionPolicy.DELETE
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
