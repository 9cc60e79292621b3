"""`/healthz` and `/metrics` of the operator."""

from __future__ import annotations

from functools import partial

from prometheus_client import CollectorRegistry

from ..serving import PageServer, metrics, well


def health_server(registry: CollectorRegistry) -> PageServer:
    """/healthz: the event loop turns, and kopf, without which the process ends, is there."""
    return PageServer({"/healthz": well, "/metrics": partial(metrics, registry)})
