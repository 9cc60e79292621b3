"""A `WatcherSpec` back to a manifest: compact, canonical, only what differs from the defaults."""

from __future__ import annotations

from .documents import API_VERSION, KIND
from .model import Backoff, Database, DeletionPolicy, Format, HttpSink, NatsSink, WatcherSpec

Manifest = dict[str, object]


def to_manifest(spec: WatcherSpec) -> Manifest:
    """The manifest that `parse_manifest` reads as exactly `spec`; equal specs give equal manifests.

    A spec without the name of a Secret needs `require_secret=False` to be read again.
    """
    body: Manifest = {
        "database": _database(spec.database),
        "table": {"schema": spec.table.schema, "name": spec.table.name},
        "actions": sorted(action.value for action in spec.actions),
        "columns": list(spec.columns),
        "triggerColumns": list(spec.trigger_columns),
        "includeBefore": spec.include_before,
        "sink": {"nats": _nats(spec.sink)} if isinstance(spec.sink, NatsSink) else {"http": _http(spec.sink)},
    }
    if spec.format is not Format.STRUCTURED:
        body["format"] = spec.format.value
    if spec.delivery.backoff != Backoff():
        body["delivery"] = {
            "backoff": {
                "initialMilliseconds": spec.delivery.backoff.initial_milliseconds,
                "maxSeconds": spec.delivery.backoff.max_seconds,
            }
        }
    if spec.suspend:
        body["suspend"] = True
    if spec.deletion_policy is not DeletionPolicy.DELETE:
        body["deletionPolicy"] = spec.deletion_policy.value
    return {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "metadata": {"name": spec.name, "namespace": spec.namespace, "generation": spec.generation},
        "spec": {name: value for name, value in body.items() if value not in ([], {}, False)},
    }


def _database(database: Database) -> Manifest:
    found: Manifest = {}
    if database.secret_name:
        found["secretRef"] = {"name": database.secret_name}
    if database.keys:
        found["keys"] = dict(database.keys)
    return found


def _nats(sink: NatsSink) -> Manifest:
    found: Manifest = {"servers": list(sink.servers), "subject": sink.subject}
    if sink.stream is not None:
        found["jetStream"] = {"stream": sink.stream}
    return found


def _http(sink: HttpSink) -> Manifest:
    found: Manifest = {"url": sink.url}
    if sink.timeout_seconds != HttpSink(url="").timeout_seconds:
        found["timeoutSeconds"] = sink.timeout_seconds
    if sink.signing:
        found["signing"] = {"secretRefs": [{"name": ref.name, "key": ref.key} for ref in sink.signing]}
    return found
