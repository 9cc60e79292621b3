"""Every metric family, declared once, on a registry that is handed in."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from . import __version__

_LABELS = ("watcher_namespace", "watcher")
_LATENCY = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 60, 600, 3600)


class Metrics:
    """The families of one process. Label `watcher_namespace`, since a scrape renames plain `namespace`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"tablewatcher_{name}", text, (*_LABELS, *labels), registry=registry)

        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(f"tablewatcher_{name}", text, (*_LABELS, *labels), registry=registry)

        def histogram(name: str, text: str, *labels: str) -> Histogram:
            return Histogram(f"tablewatcher_{name}", text, (*_LABELS, *labels), registry=registry, buckets=_LATENCY)

        self.registry = registry
        self.events_captured = counter("events_captured_total", "Events read from the ring.", "action")
        self.events_delivered = counter("events_delivered_total", "Events the sink has acknowledged.", "action", "sink")
        self.delivery_attempts = counter("delivery_attempts_total", "Attempts to send an event.", "sink", "outcome")
        self.delivery_duration = histogram("delivery_duration_seconds", "From sending a call to its outcomes.")
        self.event_latency = histogram("event_latency_seconds", "From capture to the sink's acknowledgement.")
        self.ring_rows = gauge("ring_rows", "Ids drawn from the ring and not yet delivered.")
        self.ring_oldest_age = gauge("ring_oldest_age_seconds", "Age of the oldest event read and not yet delivered.")
        self.ring_bytes = gauge("ring_bytes", "Size of the ring's tables and indexes.")
        self.events_parked = gauge("events_parked", "Events put aside as undeliverable.")
        self.gaps = counter("gaps_total", "Times that capture was interrupted.")
        self.listener_connected = gauge(
            "listener_connected", "1 while this process holds the lease and the sink answers."
        )
        self.reconcile_duration = histogram("reconcile_duration_seconds", "One reconcile of a watcher.")
        self.reconciles = counter("reconcile_total", "Reconciles of a watcher.", "result")
        self.drift_repaired = counter("drift_repaired_total", "Objects found changed and put right.", "object")
        self.watcher_ready = gauge("watcher_ready", "1 while condition Ready is True.")
        build = Gauge("tablewatcher_build_info", "1, with the version as label.", ("version",), registry=registry)
        build.labels(__version__).set(1)
