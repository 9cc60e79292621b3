"""Everything that can go wrong and be said to a person: one closed list of reasons.

The same reason appears in a condition on the cluster, in `--output json` and behind the exit code of
the command line, so that a message can be looked up wherever it was met.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

# Characters of what another program has said: more than any of them needs.
_MOST_SAID = 500


def times(number: int) -> str:
    """How often, in words."""
    return "once" if number == 1 else f"{number} times"


def in_short(text: object) -> str:
    """What another program has said, for a message: it may be of any length, and a message is kept and shown."""
    whole = str(text)
    return whole if len(whole) <= _MOST_SAID else f"{whole[:_MOST_SAID]}..."


class Reason(StrEnum):
    """Condition reasons. Added to, never renamed: alerts and scripts match on them."""

    FORWARDING = "Forwarding"
    SUSPENDED = "Suspended"
    CONNECTED = "Connected"
    IN_SYNC = "InSync"
    MINIMUM_REPLICAS_AVAILABLE = "MinimumReplicasAvailable"
    ACKNOWLEDGED = "Acknowledged"
    RECONCILING = "Reconciling"
    SPEC_INVALID = "SpecInvalid"
    SECRET_NOT_FOUND = "SecretNotFound"  # noqa: S105 - a reason, not a secret
    SECRET_KEY_MISSING = "SecretKeyMissing"  # noqa: S105
    SECRET_NOT_ALLOWED = "SecretNotAllowed"  # noqa: S105
    CONFIG_MAP_NOT_FOUND = "ConfigMapNotFound"
    DATABASE_UNREACHABLE = "DatabaseUnreachable"
    AUTHENTICATION_FAILED = "AuthenticationFailed"
    TLS_FAILED = "TLSFailed"
    PERMISSION_DENIED = "PermissionDenied"
    TABLE_NOT_FOUND = "TableNotFound"
    NO_PRIMARY_KEY = "NoPrimaryKey"
    COLUMN_NOT_FOUND = "ColumnNotFound"
    TABLE_LOCKED = "TableLocked"
    POOLER_DETECTED = "PoolerDetected"
    READ_ONLY_REPLICA = "ReadOnlyReplica"
    PUBLICATION_CONFLICT = "PublicationConflict"
    OWNED_ELSEWHERE = "OwnedElsewhere"
    TRIGGERS_DRIFTED = "TriggersDrifted"
    MANUAL_ACTION_REQUIRED = "ManualActionRequired"
    LISTENER_ROLLING_OUT = "ListenerRollingOut"
    LISTENER_CONFLICT = "ListenerConflict"
    LISTENER_GROUP_FULL = "ListenerGroupFull"
    SINK_UNREACHABLE = "SinkUnreachable"
    SINK_AUTH_FAILED = "SinkAuthFailed"
    ADDRESS_REFUSED = "AddressRefused"
    NO_STREAM_FOR_SUBJECT = "NoStreamForSubject"
    ENDPOINT_GONE = "EndpointGone"
    EVENTS_PARKED = "EventsParked"
    CAPTURE_STOPPED = "CaptureStopped"
    CLONE_REFUSED = "CloneRefused"
    DELETION_BLOCKED = "DeletionBlocked"


class TableWatcherError(Exception):
    """A fault with a reason from the closed list and a message that says what to do about it.

    The message never carries a value from a Secret: it is printed, logged and written to status.
    """

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


@dataclass(frozen=True, slots=True)
class FieldError:
    """One mistake in a manifest: where (`spec.sink.nats.subject`), what, and what to do."""

    path: str
    message: str

    def __str__(self) -> str:
        return f"{self.path}: {self.message}"


class SpecInvalid(TableWatcherError):
    """A manifest that cannot be accepted; carries every field error at once. A retry cannot help."""

    def __init__(self, name: str, errors: tuple[FieldError, ...]) -> None:
        lines = "\n".join(f"  {error}" for error in errors)
        count = "1 error" if len(errors) == 1 else f"{len(errors)} errors"
        super().__init__(Reason.SPEC_INVALID, f"{name}: {count} in the manifest\n{lines}")
        self.name = name
        self.errors = errors

    def __reduce__(self) -> tuple[type[SpecInvalid], tuple[str, tuple[FieldError, ...]]]:
        """Made anew of what it was made of, in the process that reads manifests for a listener."""
        return type(self), (self.name, self.errors)


class SecretError(TableWatcherError):
    """A Secret that is missing, lacks a key, or may not be read."""


class DatabaseError(TableWatcherError):
    """The database cannot be reached, refuses, or is not as the watcher needs it."""


class SinkError(TableWatcherError):
    """The sink cannot be reached, refuses, or cannot keep the promise."""
