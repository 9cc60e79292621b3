"""What was found, as the status of a TableWatcher: conditions and a few facts. Pure.

Nothing here ticks or counts: equal findings give an equal status, and an equal status is not written again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..errors import Reason, TableWatcherError

Status = dict[str, Any]

DATABASE_REASONS = frozenset(
    {
        Reason.SECRET_NOT_FOUND,
        Reason.SECRET_KEY_MISSING,
        Reason.SECRET_NOT_ALLOWED,
        Reason.CONFIG_MAP_NOT_FOUND,
        Reason.DATABASE_UNREACHABLE,
        Reason.AUTHENTICATION_FAILED,
        Reason.TLS_FAILED,
        Reason.POOLER_DETECTED,
        Reason.READ_ONLY_REPLICA,
        Reason.CLONE_REFUSED,
    }
)
# Waiting does not help: somebody has to change the manifest, a right, or what is in the way.
STALLED_REASONS = frozenset(
    {
        Reason.SPEC_INVALID,
        Reason.PERMISSION_DENIED,
        Reason.PUBLICATION_CONFLICT,
        Reason.OWNED_ELSEWHERE,
        Reason.MANUAL_ACTION_REQUIRED,
        Reason.LISTENER_GROUP_FULL,
        Reason.ADDRESS_REFUSED,
        Reason.ENDPOINT_GONE,
        Reason.CLONE_REFUSED,
    }
)
MAX_MESSAGE = 4096
NOT_ENCRYPTED = "the connection is not encrypted; spec.database.tls turns that on"
NO_KEY = "the table has no immediate primary key: the whole row is the key, and only equal rows keep their order"


@dataclass(frozen=True, slots=True)
class Verdict:
    """One condition: holds True or False, or None where it cannot be known yet."""

    holds: bool | None
    reason: Reason
    message: str = ""

    @classmethod
    def fault(cls, error: TableWatcherError) -> Verdict:
        """The condition that `error` makes False."""
        return cls(False, error.reason, error.message)


UNKNOWN = Verdict(None, Reason.RECONCILING, "not looked at yet")


@dataclass(frozen=True, slots=True)
class Facts:
    """What is so and seldom changes; an empty text is left out of status."""

    qualified_table: str = ""
    primary_key: tuple[str, ...] = ()
    database: str = ""
    system_identifier: str = ""
    sink: str = ""
    listener: str = ""
    reconcile_requested_at: str = ""


@dataclass(frozen=True, slots=True)
class Findings:
    """One look at a watcher. `invalid` is set where the manifest cannot be accepted."""

    generation: int
    invalid: TableWatcherError | None = None
    database: Verdict = UNKNOWN
    triggers: Verdict = UNKNOWN
    listener: Verdict = UNKNOWN
    sink: Verdict = UNKNOWN
    suspended: bool = False
    facts: Facts = field(default_factory=Facts)

    @property
    def ready(self) -> Verdict:
        """The first that is not well, in the order in which one depends on the other."""
        if self.invalid is not None:
            return Verdict.fault(self.invalid)
        for verdict in (self.database, self.triggers, self.listener, self.sink):
            if verdict.holds is not True:
                return verdict
        if self.suspended:
            return Verdict(True, Reason.SUSPENDED, "changes are captured and kept; delivery waits")
        return Verdict(True, Reason.FORWARDING, "changes are forwarded")


def database_fault(error: TableWatcherError, *, applied: bool) -> tuple[Verdict, Verdict]:
    """DatabaseReady and TriggersInstalled after a failed apply; `applied`: an earlier one had succeeded."""
    if error.reason in DATABASE_REASONS:
        known = "not checked while the database is out of reach" if applied else "waits for the database"
        return Verdict.fault(error), Verdict(None, Reason.RECONCILING, known)
    return Verdict(True, Reason.CONNECTED), Verdict.fault(error)


def render(findings: Findings, previous: Mapping[str, Any], now: str) -> Status:
    """The status to write, given the one that is there; `now` (RFC 3339) stands on what has changed."""
    facts = findings.facts
    status: Status = {
        "observedGeneration": findings.generation,
        "conditions": _conditions(findings, previous.get("conditions") or (), now),
    }
    if facts.qualified_table:
        status["table"] = {"qualifiedName": facts.qualified_table}
        if facts.primary_key:
            status["table"]["primaryKey"] = list(facts.primary_key)
    if facts.database:
        status["database"] = {"name": facts.database, "systemIdentifier": facts.system_identifier}
    for name, value in (
        ("sink", facts.sink),
        ("listener", facts.listener),
        ("lastHandledReconcileAt", facts.reconcile_requested_at),
    ):
        if value:
            status[name] = value
    return status


def same(status: Status, previous: Mapping[str, Any]) -> bool:
    """Whether `previous`, as the API server returned it, already says all of `status` and no more."""

    def by_type(found: Mapping[str, Any]) -> dict[str, Any]:
        conditions = {condition["type"]: condition for condition in found.get("conditions") or ()}
        return {**found, "conditions": conditions}

    return by_type(status) == by_type(previous)


def _conditions(findings: Findings, previous: Iterable[Mapping[str, Any]], now: str) -> list[dict[str, Any]]:
    ready = findings.ready
    verdicts = {
        "Ready": ready,
        "DatabaseReady": findings.database,
        "TriggersInstalled": findings.triggers,
        "ListenerAvailable": findings.listener,
        "SinkReady": findings.sink,
    }
    if ready.holds is not True:
        kind = "Stalled" if ready.reason in STALLED_REASONS else "Reconciling"
        verdicts[kind] = Verdict(True, ready.reason, ready.message)
    if findings.suspended:
        verdicts["Suspended"] = Verdict(True, Reason.SUSPENDED, "spec.suspend is true")
    before = {condition["type"]: condition for condition in previous}
    return [_condition(kind, verdict, before.get(kind), findings, now) for kind, verdict in verdicts.items()]


def _condition(
    kind: str, verdict: Verdict, before: Mapping[str, Any] | None, findings: Findings, now: str
) -> dict[str, Any]:
    status = {True: "True", False: "False", None: "Unknown"}[verdict.holds]
    since = before["lastTransitionTime"] if before is not None and before["status"] == status else now
    return {
        "type": kind,
        "status": status,
        "observedGeneration": findings.generation,
        "lastTransitionTime": since,
        "reason": str(verdict.reason),
        "message": verdict.message[:MAX_MESSAGE],
    }
