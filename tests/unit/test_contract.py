"""Names that others rely on: manifests, alerts and scripts hold them. They are added to, never renamed or taken away.

What is written here is a copy on purpose: where it differs from the source, the source has broken a promise.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from tablewatcher.cli.app import app
from tablewatcher.cli.exit_codes import ExitCode
from tablewatcher.controller.reconcile import FINALIZER, REQUESTED_AT
from tablewatcher.controller.secret import ALLOW_LABEL
from tablewatcher.errors import Reason
from tablewatcher.event import ACTION_NAMES, TYPES, Event, attributes
from tablewatcher.spec.parse import parse_manifest, to_manifest

from .exported import exported

ROOT = Path(__file__).parents[2]
CRD = yaml.safe_load((ROOT / "crds" / "tablewatchers.yaml").read_text())

FIELDS = """
database.secretRef.name
database.keys.uri database.keys.host database.keys.port database.keys.username database.keys.password
database.keys.database
database.adminSecretRef.name
database.tls.mode database.tls.caRef.kind database.tls.caRef.name database.tls.caRef.key
database.tls.clientCertSecretRef.name
database.allowAllTablesPublication
table.schema table.name
actions columns triggerColumns
where[].column where[].operator where[].values
includeBefore
capture.granularity capture.maxEventBytes capture.allowSkip
sink.nats.servers sink.nats.subject
sink.nats.jetStream.stream sink.nats.jetStream.enabled
sink.nats.jetStream.create.maxBytes sink.nats.jetStream.create.replicas
sink.nats.auth.credsSecretRef.name sink.nats.auth.credsSecretRef.key
sink.nats.auth.nkeySecretRef.name sink.nats.auth.nkeySecretRef.key
sink.nats.auth.tokenSecretRef.name sink.nats.auth.tokenSecretRef.key
sink.nats.auth.userPasswordSecretRef.name
sink.nats.tls.caRef.kind sink.nats.tls.caRef.name sink.nats.tls.caRef.key
sink.nats.tls.clientCertSecretRef.name sink.nats.tls.handshakeFirst
sink.http.url sink.http.urlSecretRef.name sink.http.urlSecretRef.key
sink.http.headers[].name sink.http.headers[].value
sink.http.headers[].valueFrom.secretKeyRef.name sink.http.headers[].valueFrom.secretKeyRef.key
sink.http.signing.secretRefs[].name sink.http.signing.secretRefs[].key
sink.http.timeoutSeconds
sink.http.batch.maxEvents sink.http.batch.maxBytes sink.http.batch.lingerMilliseconds
sink.http.concurrency
sink.http.tls.caRef.kind sink.http.tls.caRef.name sink.http.tls.caRef.key
sink.http.tls.clientCertSecretRef.name
format
delivery.ordering
delivery.backoff.initialMilliseconds delivery.backoff.maxSeconds
delivery.maxAttempts delivery.maxAgeSeconds delivery.onExhausted delivery.retentionSeconds
delivery.overflow.maxBytes
suspend deletionPolicy management
listener.group listener.replicas listener.resources listener.nodeSelector listener.tolerations listener.affinity
listener.topologySpreadConstraints listener.priorityClassName listener.serviceAccountName listener.podLabels
listener.podAnnotations listener.logLevel
"""

CHOICES = {
    "database.tls.mode": "Disable Prefer Require VerifyCA VerifyFull",
    "actions[]": "insert update delete truncate",
    "where[].operator": "In NotIn GreaterThan LessThan IsNull IsNotNull",
    "capture.granularity": "Auto Row Statement",
    "format": "Structured Binary",
    "delivery.ordering": "PerKey Unordered",
    "delivery.onExhausted": "Park Halt",
    "deletionPolicy": "Delete Retain",
    "management": "Managed Observe",
}

STATUS = """
observedGeneration conditions table.qualifiedName table.primaryKey database.name database.systemIdentifier sink listener
lastHandledReconcileAt
"""

REASONS = """
Forwarding Suspended Connected InSync MinimumReplicasAvailable Acknowledged Reconciling SpecInvalid SecretNotFound
SecretKeyMissing SecretNotAllowed ConfigMapNotFound DatabaseUnreachable AuthenticationFailed TLSFailed PermissionDenied
TableNotFound NoPrimaryKey ColumnNotFound TableLocked PoolerDetected ReadOnlyReplica PublicationConflict OwnedElsewhere
TriggersDrifted ManualActionRequired ListenerRollingOut ListenerConflict ListenerGroupFull SinkUnreachable
SinkAuthFailed AddressRefused NoStreamForSubject EndpointGone EventsParked CaptureStopped CloneRefused DeletionBlocked
"""

WATCHER = {"watcher_namespace", "watcher"}
METRICS = {
    "events_captured_total": {"action"},
    "events_delivered_total": {"action", "sink"},
    "delivery_attempts_total": {"sink", "outcome"},
    "delivery_duration_seconds": set(),
    "event_latency_seconds": set(),
    "ring_rows": set(),
    "ring_oldest_age_seconds": set(),
    "ring_bytes": set(),
    "ring_limit_bytes": set(),
    "capture_active": set(),
    "events_parked": set(),
    "gaps_total": set(),
    "last_gap_timestamp_seconds": set(),
    "listener_connected": set(),
    "reconcile_duration_seconds": set(),
    "reconcile_total": {"result"},
    "drift_repaired_total": {"object"},
    "watcher_ready": set(),
}

ON_DATABASE = {"--file", "-f", "--dsn", "--secrets-dir", "--instance"}
PRINTS = ON_DATABASE | {"--output"}
COMMANDS = {
    "validate": PRINTS,
    "plan": PRINTS,
    "apply": PRINTS,
    "listen": ON_DATABASE | {"--http-port"},
    "run": ON_DATABASE | {"--http-port"},
    "destroy": PRINTS,
    "demo": {"--output", "--keep"},
    "doctor": PRINTS,
    "status": PRINTS,
    "parked list": PRINTS,
    "parked replay": PRINTS,
    "parked skip": PRINTS,
    "replay": PRINTS | {"--since"},
    "sql": PRINTS,
}

EXIT_CODES = {
    "OK": 0,
    "UNEXPECTED": 1,
    "INVALID": 2,
    "SECRET": 3,
    "UNREACHABLE": 4,
    "AUTHENTICATION": 5,
    "PERMISSION": 6,
    "NOT_FOUND": 7,
    "LOCKED": 8,
    "SINK": 9,
    "PERSON": 10,
    "INTERRUPTED": 130,
}

# What a manifest that says nothing of it gets.
DEFAULTS = {
    "table": {"schema": "public", "name": "orders"},
    "capture": {"granularity": "Auto", "maxEventBytes": 262144, "allowSkip": False},
    "format": "Structured",
    "delivery": {
        "ordering": "PerKey",
        "backoff": {"initialMilliseconds": 200, "maxSeconds": 300},
        "maxAttempts": 8,
        "maxAgeSeconds": 259200,
        "onExhausted": "Park",
        "retentionSeconds": 600,
        "overflow": {"maxBytes": 1073741824},
    },
    "suspend": False,
    "deletionPolicy": "Delete",
    "management": "Managed",
    "listener": {"group": "default"},
}
HTTP_DEFAULTS = {
    "timeoutSeconds": 20,
    "batch": {"maxEvents": 1, "maxBytes": 262144, "lingerMilliseconds": 0},
    "concurrency": 16,
}


def nodes(node: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every field of a schema by its path, without objects that are only made of others."""
    if path and not node.get("properties"):
        yield path, node
    for name, inner in node.get("properties", {}).items():
        yield from nodes(inner, f"{path}.{name}" if path else name)
    if "items" in node:
        yield from nodes(node["items"], f"{path}[]")


VERSION = CRD["spec"]["versions"][0]
SCHEMA = VERSION["schema"]["openAPIV3Schema"]["properties"]


def test_fields_and_their_choices() -> None:
    declared = dict(nodes(SCHEMA["spec"]))
    assert set(FIELDS.split()) - declared.keys() == set()
    for path, choices in CHOICES.items():
        assert set(choices.split()) <= set(declared[path]["enum"]), path


def test_status_and_names_of_the_resource() -> None:
    assert set(STATUS.split()) <= dict(nodes(SCHEMA["status"])).keys()
    names = CRD["spec"]["names"]
    assert (CRD["spec"]["group"], VERSION["name"]) == ("tablewatcher.io", "v1alpha1")
    assert (names["kind"], names["plural"], names["shortNames"]) == ("TableWatcher", "tablewatchers", ["tw"])


@pytest.mark.parametrize("sink", ["nats", "http"])
def test_defaults(sink: str) -> None:
    """Of a field that is left out: another would change what a manifest means that is there already."""
    given = {
        "nats": {"servers": ["nats://nats:4222"], "subject": "shop.{table}"},
        "http": {"url": "https://hooks.example.com/orders"},
    }
    spec = {"database": {"secretRef": {"name": "app"}}, "table": {"name": "orders"}, "actions": ["insert"]}
    manifest = {
        "apiVersion": "tablewatcher.io/v1alpha1",
        "kind": "TableWatcher",
        "metadata": {"name": "orders", "namespace": "shop"},
        "spec": spec | {"sink": {sink: given[sink]}},
    }
    plain = parse_manifest(manifest)
    manifest["spec"] |= DEFAULTS | {"includeBefore": False, "columns": [], "triggerColumns": [], "where": []}
    manifest["spec"]["sink"][sink] |= HTTP_DEFAULTS if sink == "http" else {"jetStream": {"enabled": True}}
    assert parse_manifest(manifest) == plain
    assert parse_manifest(to_manifest(plain)) == plain


def test_reasons() -> None:
    assert set(REASONS.split()) <= set(map(str, Reason))


def test_metrics() -> None:
    found = {name: labels for name, labels, _ in exported()}
    told = {name: found.get(f"tablewatcher_{name}") for name in METRICS}
    assert told == {name: WATCHER | labels for name, labels in METRICS.items()}
    assert found["tablewatcher_build_info"] == {"version"}


def test_commands_and_options() -> None:
    group = typer.main.get_command(app)
    assert isinstance(group, typer.core.TyperGroup)
    found = {}
    for name, command in group.commands.items():
        inner = getattr(command, "commands", None)
        each = {name: command} if inner is None else {f"{name} {word}": one for word, one in inner.items()}
        found |= {word: {option for parameter in one.params for option in parameter.opts} for word, one in each.items()}
    missing = {name: options - found.get(name, set()) for name, options in COMMANDS.items()}
    assert missing == {name: set() for name in COMMANDS}
    for name in ("listen", "run"):
        (port,) = [each for each in group.commands[name].params if "--http-port" in each.opts]
        assert port.default == 8080


def test_exit_codes() -> None:
    assert EXIT_CODES.items() <= {code.name: code.value for code in ExitCode}.items()


def test_words_of_events() -> None:
    told = {ACTION_NAMES[op]: name.removeprefix("io.tablewatcher.") for op, name in TYPES.items()}
    rows = {"insert": "inserted", "update": "updated", "delete": "deleted", "truncate": "truncated"}
    assert told == {action: f"row.{done}" for action, done in rows.items()} | {"gap": "gap"}
    sequence, when = "000001-00000000000000000065", "2026-11-23T23:32:27.140704Z"
    event = Event(65, "f" * 32, "u", "1", None, when, 0.0, sequence, "00-a-b-01", b"{}", None, 3)
    assert attributes(event, source="/namespaces/shop/tablewatchers/orders", table="public.orders") == {
        "specversion": "1.0",
        "id": "f" * 32,
        "source": "/namespaces/shop/tablewatchers/orders",
        "type": "io.tablewatcher.row.updated",
        "subject": "public.orders/1",
        "time": when,
        "sequence": sequence,
        "partitionkey": "1",
        "traceparent": "00-a-b-01",
        "replay": "3",
    }
    assert event.message_id == f"{'f' * 32}/r3"


def test_names_in_a_cluster() -> None:
    """They stay on objects from one version to the next."""
    assert (FINALIZER, REQUESTED_AT) == ("tablewatcher.io/cleanup", "tablewatcher.io/reconcile-requested-at")
    assert ALLOW_LABEL == "tablewatcher.io/allow"
