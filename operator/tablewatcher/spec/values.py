"""From the shape of a manifest to the values of the model. Everything is checked by then."""

from __future__ import annotations

from . import model
from .schema import (
    CaRefShape,
    DatabaseShape,
    DeliveryShape,
    HeaderShape,
    HttpShape,
    NatsAuthShape,
    NatsShape,
    SecretKeyShape,
    SecretRefShape,
    SinkShape,
    SpecShape,
    TlsShape,
)


def watcher(namespace: str, name: str, generation: int, shape: SpecShape) -> model.WatcherSpec:
    """The watcher that `shape` describes."""
    capture = shape.capture
    return model.WatcherSpec(
        namespace=namespace,
        name=name,
        database=_database(shape.database),
        table=model.Table(shape.table.schema_, shape.table.name),
        actions=frozenset(shape.actions),
        sink=_sink(shape.sink),
        columns=tuple(shape.columns),
        trigger_columns=tuple(shape.trigger_columns),
        where=tuple(model.Condition(each.column, each.operator, tuple(each.values)) for each in shape.where),
        include_before=shape.include_before,
        capture=model.Capture(capture.granularity, capture.max_event_bytes, capture.allow_skip),
        format=shape.format,
        delivery=_delivery(shape.delivery),
        suspend=shape.suspend,
        deletion_policy=shape.deletion_policy,
        management=shape.management,
        generation=generation,
    )


def _database(shape: DatabaseShape) -> model.Database:
    keys = shape.keys.model_dump(exclude_none=True)
    tls = shape.tls
    return model.Database(
        _name(shape.secret_ref) or "",
        tuple(keys.items()),
        _name(shape.admin_secret_ref),
        model.DatabaseTls(tls.mode, _ca(tls.ca_ref), _name(tls.client_cert_secret_ref)) if tls else None,
        shape.allow_all_tables_publication,
    )


def _delivery(shape: DeliveryShape) -> model.DeliveryPolicy:
    return model.DeliveryPolicy(
        ordering=shape.ordering,
        backoff=model.Backoff(shape.backoff.initial_milliseconds, shape.backoff.max_seconds),
        max_attempts=shape.max_attempts,
        max_age_seconds=shape.max_age_seconds,
        on_exhausted=shape.on_exhausted,
        retention_seconds=shape.retention_seconds,
        overflow_bytes=shape.overflow.max_bytes,
    )


def _sink(shape: SinkShape) -> model.NatsSink | model.HttpSink:
    match shape:
        case SinkShape(nats=NatsShape() as nats):
            return _nats(nats)
        case SinkShape(http=HttpShape() as http):
            return _http(http)
    raise AssertionError("a sink passed the check for exactly one of nats and http without being either")


def _nats(shape: NatsShape) -> model.NatsSink:
    stream, tls = shape.jet_stream, shape.tls
    return model.NatsSink(
        servers=tuple(shape.servers),
        subject=shape.subject,
        stream=stream.stream,
        jet_stream=stream.enabled,
        create=model.CreateStream(stream.create.max_bytes, stream.create.replicas) if stream.create else None,
        auth=_auth(shape.auth) if shape.auth else None,
        tls=model.Tls(_ca(tls.ca_ref), _name(tls.client_cert_secret_ref), tls.handshake_first) if tls else None,
    )


def _auth(shape: NatsAuthShape) -> model.NatsAuth:
    return model.NatsAuth(
        creds=_key(shape.creds_secret_ref),
        nkey=_key(shape.nkey_secret_ref),
        token=_key(shape.token_secret_ref),
        user_password=_name(shape.user_password_secret_ref),
    )


def _http(shape: HttpShape) -> model.HttpSink:
    refs = shape.signing.secret_refs if shape.signing else []
    batch = shape.batch
    return model.HttpSink(
        url=shape.url or "",
        timeout_seconds=shape.timeout_seconds,
        signing=tuple(model.SecretKey(ref.name, ref.key) for ref in refs),
        url_secret=_key(shape.url_secret_ref),
        headers=tuple(_header(header) for header in shape.headers),
        batch=model.Batch(batch.max_events, batch.max_bytes, batch.linger_milliseconds),
        concurrency=shape.concurrency,
        tls=_tls(shape.tls) if shape.tls else None,
    )


def _header(shape: HeaderShape) -> model.Header:
    return model.Header(shape.name, shape.value, _key(shape.value_from.secret_key_ref) if shape.value_from else None)


def _tls(shape: TlsShape) -> model.Tls:
    return model.Tls(_ca(shape.ca_ref), _name(shape.client_cert_secret_ref))


def _ca(shape: CaRefShape | None) -> model.CaRef | None:
    return model.CaRef(shape.kind, shape.name, shape.key) if shape else None


def _key(shape: SecretKeyShape | None) -> model.SecretKey | None:
    return model.SecretKey(shape.name, shape.key) if shape else None


def _name(shape: SecretRefShape | None) -> str | None:
    return shape.name if shape else None
