"""A parsed manifest: checked values, every default filled in. Meaning and bounds: `crds/tablewatchers.yaml`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

WHOLE_ROW = ("*",)

_ROUTED = re.compile(r"\{column:([^{}]+)\}")


class Action(StrEnum):
    """What happened to a row, or (truncate) to all of them."""

    INSERT = "insert"
    UPDATE = "update"
    DELETE = "delete"
    TRUNCATE = "truncate"


class Operator(StrEnum):
    """How a column is compared with the values of a condition."""

    IN = "In"
    NOT_IN = "NotIn"
    GREATER_THAN = "GreaterThan"
    LESS_THAN = "LessThan"
    IS_NULL = "IsNull"
    IS_NOT_NULL = "IsNotNull"


class Granularity(StrEnum):
    """Which triggers capture: for each row, for each statement, or the cheaper one that is exact for the table."""

    AUTO = "Auto"
    ROW = "Row"
    STATEMENT = "Statement"


class Format(StrEnum):
    """CloudEvents content mode: everything in the body, or attributes in headers."""

    STRUCTURED = "Structured"
    BINARY = "Binary"


class Ordering(StrEnum):
    """Whether the events of one row wait for each other."""

    PER_KEY = "PerKey"
    UNORDERED = "Unordered"


class OnExhausted(StrEnum):
    """What becomes of an event that is given up: it is put aside, or the watcher stops at it."""

    PARK = "Park"
    HALT = "Halt"


class DeletionPolicy(StrEnum):
    """What becomes of the ring when the watcher goes. Capture stops in both cases."""

    DELETE = "Delete"
    RETAIN = "Retain"


class Management(StrEnum):
    """Whether we run DDL, or only verify and say what a DBA must run."""

    MANAGED = "Managed"
    OBSERVE = "Observe"


class SourceKind(StrEnum):
    """Where a certificate authority is kept."""

    CONFIG_MAP = "ConfigMap"
    SECRET = "Secret"  # noqa: S105 - a kind


class DatabaseTlsMode(StrEnum):
    """How far the database's server is checked: libpq's sslmode."""

    DISABLE = "Disable"
    PREFER = "Prefer"
    REQUIRE = "Require"
    VERIFY_CA = "VerifyCA"
    VERIFY_FULL = "VerifyFull"


@dataclass(frozen=True, slots=True)
class SecretKey:
    """One value inside a Secret of the watcher's own namespace."""

    name: str
    key: str


@dataclass(frozen=True, slots=True)
class CaRef:
    """A certificate authority in PEM form: key `key` of the ConfigMap or Secret (`kind`) `name`."""

    kind: SourceKind
    name: str
    key: str


@dataclass(frozen=True, slots=True)
class Tls:
    """How a sink's server is checked; ca None: by the system's authorities. client_cert: a kubernetes.io/tls Secret.

    handshake_first (NATS only): TLS before the server's first message.
    """

    ca: CaRef | None = None
    client_cert: str | None = None
    handshake_first: bool = False


@dataclass(frozen=True, slots=True)
class DatabaseTls:
    """How the database's server is checked. `mode` None: VerifyFull where there is a CA, else what the URI says."""

    mode: DatabaseTlsMode | None = None
    ca: CaRef | None = None
    client_cert: str | None = None


@dataclass(frozen=True, slots=True)
class Database:
    """The target: one Secret; `keys` maps our word (uri host port username password database) to its key.

    admin_secret_name: a Secret with a role for DDL only.
    """

    secret_name: str
    keys: tuple[tuple[str, str], ...] = ()
    admin_secret_name: str | None = None
    tls: DatabaseTls | None = None
    allow_all_tables_publication: bool = False


@dataclass(frozen=True, slots=True)
class Table:
    """A table by its exact, unquoted names."""

    schema: str
    name: str


@dataclass(frozen=True, slots=True)
class Condition:
    """One comparison of a column with values given as text of its type. All conditions of a watcher must hold."""

    column: str
    operator: Operator
    values: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Capture:
    """How changes are caught. max_event_bytes: a longer event is sent as its key. allow_skip: see tablewatcher.skip."""

    granularity: Granularity = Granularity.AUTO
    max_event_bytes: int = 262_144
    allow_skip: bool = False


@dataclass(frozen=True, slots=True)
class NatsAuth:
    """How to sign in to NATS: exactly one of these. `user_password`: a Secret with keys username and password."""

    creds: SecretKey | None = None
    nkey: SecretKey | None = None
    token: SecretKey | None = None
    user_password: str | None = None


@dataclass(frozen=True, slots=True)
class CreateStream:
    """Make the stream where it is missing."""

    max_bytes: int | None = None
    replicas: int | None = None


@dataclass(frozen=True, slots=True)
class NatsSink:
    """Publish to NATS. stream None: whatever stream covers the subject. jet_stream False: core NATS, at most once."""

    servers: tuple[str, ...]
    subject: str
    stream: str | None = None
    jet_stream: bool = True
    create: CreateStream | None = None
    auth: NatsAuth | None = None
    tls: Tls | None = None


@dataclass(frozen=True, slots=True)
class Header:
    """A header sent with every request: its value as written, or a Secret's."""

    name: str
    value: str | None = None
    secret: SecretKey | None = None


@dataclass(frozen=True, slots=True)
class Batch:
    """Events of one request: at most `max_events` and `max_bytes`, after waiting `linger_milliseconds` for more."""

    max_events: int = 1
    max_bytes: int = 262_144
    linger_milliseconds: int = 0


@dataclass(frozen=True, slots=True)
class HttpSink:
    """POST to a URL, signed with every key of `signing` (Standard Webhooks) when there is one.

    Exactly one of `url` (else "") and `url_secret` is given. concurrency: requests in flight.
    """

    url: str
    timeout_seconds: int = 20
    signing: tuple[SecretKey, ...] = ()
    url_secret: SecretKey | None = None
    headers: tuple[Header, ...] = ()
    batch: Batch = Batch()
    concurrency: int = 16
    tls: Tls | None = None


@dataclass(frozen=True, slots=True)
class Backoff:
    """Exponential with full jitter, from `initial_milliseconds`, never above `max_seconds`."""

    initial_milliseconds: int = 200
    max_seconds: int = 300


@dataclass(frozen=True, slots=True)
class DeliveryPolicy:
    """What happens when the sink is not well. overflow_bytes: past it capture stops.

    max_attempts: failures after which an event that alone is at fault is exhausted; max_age_seconds: the age at which
    it is. retention_seconds: how long delivered rows are kept for replay.
    """

    ordering: Ordering = Ordering.PER_KEY
    backoff: Backoff = Backoff()
    max_attempts: int = 8
    max_age_seconds: int = 259_200
    on_exhausted: OnExhausted = OnExhausted.PARK
    retention_seconds: int = 600
    overflow_bytes: int = 1 << 30


@dataclass(frozen=True, slots=True)
class WatcherSpec:
    """One watcher. `generation` is metadata.generation, 0 where a manifest carries none.

    `columns`: () = key only, WHOLE_ROW = every column. `trigger_columns`: () = any column of the row.
    """

    namespace: str
    name: str
    database: Database
    table: Table
    actions: frozenset[Action]
    sink: NatsSink | HttpSink
    columns: tuple[str, ...] = ()
    trigger_columns: tuple[str, ...] = ()
    where: tuple[Condition, ...] = ()
    include_before: bool = False
    capture: Capture = Capture()
    format: Format = Format.STRUCTURED
    delivery: DeliveryPolicy = DeliveryPolicy()
    suspend: bool = False
    deletion_policy: DeletionPolicy = DeletionPolicy.DELETE
    management: Management = Management.MANAGED
    generation: int = 0

    @property
    def qualified_name(self) -> str:
        """`namespace/name`, as people write it."""
        return f"{self.namespace}/{self.name}"

    @property
    def routing_columns(self) -> tuple[str, ...]:
        """The columns that the subject names as {column:NAME}, each once, in order of appearance."""
        if not isinstance(self.sink, NatsSink):
            return ()
        return tuple(dict.fromkeys(_ROUTED.findall(self.sink.subject)))
