"""A `WatcherSpec` back to a manifest: compact, canonical, only what differs from the defaults."""

from __future__ import annotations

from . import model
from .documents import API_VERSION, KIND

Manifest = dict[str, object]

_DELIVERY = model.DeliveryPolicy()
_CAPTURE = model.Capture()
_HTTP = model.HttpSink(url="")


def to_manifest(spec: model.WatcherSpec) -> Manifest:
    """The manifest that `parse_manifest` reads as exactly `spec`; equal specs give equal manifests.

    A spec without the name of a Secret needs `require_secret=False` to be read again.
    """
    body: Manifest = {
        "database": _database(spec.database),
        "table": {"schema": spec.table.schema, "name": spec.table.name},
        "actions": sorted(action.value for action in spec.actions),
        "columns": list(spec.columns),
        "triggerColumns": list(spec.trigger_columns),
        "where": [_condition(condition) for condition in spec.where],
        "includeBefore": spec.include_before,
        "capture": _capture(spec.capture),
        "sink": {"nats": _nats(spec.sink)} if isinstance(spec.sink, model.NatsSink) else {"http": _http(spec.sink)},
        "format": _unless(spec.format, model.Format.STRUCTURED),
        "delivery": _delivery(spec.delivery),
        "suspend": spec.suspend,
        "deletionPolicy": _unless(spec.deletion_policy, model.DeletionPolicy.DELETE),
        "management": _unless(spec.management, model.Management.MANAGED),
    }
    return {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "metadata": {"name": spec.name, "namespace": spec.namespace, "generation": spec.generation},
        "spec": _given(body),
    }


def _given(fields: Manifest) -> Manifest:
    return {name: value for name, value in fields.items() if value is not None and value not in ([], {}, False)}


def _unless(value: object, default: object) -> object:
    """`value` for a manifest, None where it is the default: an enum as its text."""
    return None if value == default else str(value) if isinstance(value, str) else value


def _database(database: model.Database) -> Manifest:
    tls = database.tls
    return _given(
        {
            "secretRef": _ref(database.secret_name or None),
            "keys": dict(database.keys),
            "adminSecretRef": _ref(database.admin_secret_name),
            "allowAllTablesPublication": database.allow_all_tables_publication,
        }
    ) | (
        {}
        if tls is None
        else {"tls": _given({"mode": _unless(tls.mode, None), **_certificates(tls.ca, tls.client_cert)})}
    )


def _condition(condition: model.Condition) -> Manifest:
    return _given({"column": condition.column, "operator": condition.operator.value, "values": list(condition.values)})


def _capture(capture: model.Capture) -> Manifest:
    return _given(
        {
            "granularity": _unless(capture.granularity, _CAPTURE.granularity),
            "maxEventBytes": _unless(capture.max_event_bytes, _CAPTURE.max_event_bytes),
            "allowSkip": capture.allow_skip,
        }
    )


def _delivery(policy: model.DeliveryPolicy) -> Manifest:
    backoff = policy.backoff
    found: Manifest = {
        "ordering": _unless(policy.ordering, _DELIVERY.ordering),
        "maxAttempts": _unless(policy.max_attempts, _DELIVERY.max_attempts),
        "maxAgeSeconds": _unless(policy.max_age_seconds, _DELIVERY.max_age_seconds),
        "onExhausted": _unless(policy.on_exhausted, _DELIVERY.on_exhausted),
    }
    if backoff != _DELIVERY.backoff:
        found["backoff"] = {"initialMilliseconds": backoff.initial_milliseconds, "maxSeconds": backoff.max_seconds}
    if policy.overflow_bytes != _DELIVERY.overflow_bytes:
        found["overflow"] = {"maxBytes": policy.overflow_bytes}
    given = _given(found)
    if policy.retention_seconds != _DELIVERY.retention_seconds:
        given["retentionSeconds"] = policy.retention_seconds  # 0 is a value of its own
    return given


def _nats(sink: model.NatsSink) -> Manifest:
    stream = _given({"stream": sink.stream})
    if not sink.jet_stream:
        stream["enabled"] = False
    if sink.create is not None:
        stream["create"] = _given({"maxBytes": sink.create.max_bytes, "replicas": sink.create.replicas})
    found = _given({"servers": list(sink.servers), "subject": sink.subject, "jetStream": stream})
    if sink.auth is not None:
        found["auth"] = _given(
            {
                "credsSecretRef": _key(sink.auth.creds),
                "nkeySecretRef": _key(sink.auth.nkey),
                "tokenSecretRef": _key(sink.auth.token),
                "userPasswordSecretRef": _ref(sink.auth.user_password),
            }
        )
    if sink.tls is not None:
        found["tls"] = _tls(sink.tls)
    return found


def _http(sink: model.HttpSink) -> Manifest:
    batch, usual = sink.batch, _HTTP.batch
    found = _given(
        {
            "url": sink.url or None,
            "urlSecretRef": _key(sink.url_secret),
            "headers": [_header(header) for header in sink.headers],
            "timeoutSeconds": _unless(sink.timeout_seconds, _HTTP.timeout_seconds),
            "concurrency": _unless(sink.concurrency, _HTTP.concurrency),
            "batch": _given(
                {
                    "maxEvents": _unless(batch.max_events, usual.max_events),
                    "maxBytes": _unless(batch.max_bytes, usual.max_bytes),
                    "lingerMilliseconds": _unless(batch.linger_milliseconds, usual.linger_milliseconds),
                }
            ),
        }
    )
    if sink.signing:
        found["signing"] = {"secretRefs": [_key(ref) for ref in sink.signing]}
    if sink.tls is not None:
        found["tls"] = _tls(sink.tls)
    return found


def _header(header: model.Header) -> Manifest:
    if header.secret is not None:
        return {"name": header.name, "valueFrom": {"secretKeyRef": _key(header.secret)}}
    return {"name": header.name, "value": header.value}


def _tls(tls: model.Tls) -> Manifest:
    return _given({**_certificates(tls.ca, tls.client_cert), "handshakeFirst": tls.handshake_first})


def _certificates(ca: model.CaRef | None, client_cert: str | None) -> Manifest:
    return {
        "caRef": {"kind": ca.kind.value, "name": ca.name, "key": ca.key} if ca else None,
        "clientCertSecretRef": _ref(client_cert),
    }


def _ref(name: str | None) -> Manifest | None:
    return None if name is None else {"name": name}


def _key(place: model.SecretKey | None) -> Manifest | None:
    return None if place is None else {"name": place.name, "key": place.key}
