"""A parsed manifest: plain values, already checked, with every default filled in.

Field meanings, bounds and defaults are those of `crds/tablewatchers.yaml`; `parse.py` makes these values.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

WHOLE_ROW = ("*",)


class Action(StrEnum):
    """What happened to a row."""

    INSERT = "insert"
    UPDATE = "update"
    DELETE = "delete"


class Format(StrEnum):
    """CloudEvents content mode: everything in the body, or attributes in headers."""

    STRUCTURED = "Structured"
    BINARY = "Binary"


class DeletionPolicy(StrEnum):
    """What becomes of the ring when the watcher goes. Capture stops in both cases."""

    DELETE = "Delete"
    RETAIN = "Retain"


@dataclass(frozen=True, slots=True)
class SecretKey:
    """One value inside a Secret of the watcher's own namespace."""

    name: str
    key: str


@dataclass(frozen=True, slots=True)
class Database:
    """The target: one Secret, and the names of its keys where they are not the usual ones.

    `keys` maps our word (uri host port username password database) to the key in the Secret.
    """

    secret_name: str
    keys: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Table:
    """A table by its exact, unquoted names."""

    schema: str
    name: str


@dataclass(frozen=True, slots=True)
class NatsSink:
    """Publish to JetStream. `stream` None: whatever stream covers the subject."""

    servers: tuple[str, ...]
    subject: str
    stream: str | None = None


@dataclass(frozen=True, slots=True)
class HttpSink:
    """POST to a URL, signed with every key of `signing` (Standard Webhooks) when there is one."""

    url: str
    timeout_seconds: int = 20
    signing: tuple[SecretKey, ...] = ()


@dataclass(frozen=True, slots=True)
class Backoff:
    """Exponential with full jitter, from `initial_milliseconds`, never above `max_seconds`."""

    initial_milliseconds: int = 200
    max_seconds: int = 300


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
    include_before: bool = False
    format: Format = Format.STRUCTURED
    backoff: Backoff = Backoff()
    suspend: bool = False
    deletion_policy: DeletionPolicy = DeletionPolicy.DELETE
    generation: int = 0

    @property
    def qualified_name(self) -> str:
        """`namespace/name`, as people write it."""
        return f"{self.namespace}/{self.name}"
