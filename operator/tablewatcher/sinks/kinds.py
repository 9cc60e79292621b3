"""The sink of the kind a manifest asks for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..naming import source
from ..spec import model

if TYPE_CHECKING:
    from ..spec.secrets import Secrets
    from .address import AddressPolicy
    from .base import Sink
    from .shared_look import SharedLooks


def make_sink(
    spec: model.WatcherSpec, secrets: Secrets, *, addresses: AddressPolicy, looks: SharedLooks | None = None
) -> Sink:
    """The sink of watcher `spec`, not yet open.

    addresses: where an HTTP sink may send to; whoever runs the listener decides that. looks: those that it shares with
    other sinks. Raises SinkError where the spec cannot be a sink, such as a subject with a space in it.
    """
    origin = source(spec.namespace, spec.name)
    # Imported here: a listener loads only the client libraries of the kinds it uses.
    if isinstance(spec.sink, model.NatsSink):
        from .nats import NatsSink

        return NatsSink(
            spec.sink,
            format=spec.format,
            source=origin,
            table=spec.table,
            secrets=secrets,
            actions=spec.actions,
            routing_columns=spec.routing_columns,
            max_event_bytes=spec.capture.max_event_bytes,
        )
    from .http.sink import HttpSink

    return HttpSink(
        spec.sink,
        format=spec.format,
        source=origin,
        namespace=spec.namespace,
        table=spec.table,
        secrets=secrets,
        addresses=addresses,
        looks=looks,
    )
