"""Every metric family, declared once, on a registry that is handed in."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from itertools import accumulate

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.metrics_core import HistogramMetricFamily
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from . import __version__

_LABELS = ("watcher_namespace", "watcher")
_LATENCY = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 60, 600, 3600)


class ManyHistogram(Collector):
    """A histogram that takes a batch of observations at a time: one by one they cost as much as sending an event."""

    def __init__(self, name: str, text: str) -> None:
        self._name = name
        self._text = text
        self._counts: dict[tuple[str, str], list[int]] = {}
        self._sums: dict[tuple[str, str], float] = {}

    def observe(self, labels: tuple[str, str], seconds: Iterable[float]) -> None:
        """Adds observations, negative ones (of a clock that is behind) as 0."""
        counts = self._counts.setdefault(labels, [0] * (len(_LATENCY) + 1))
        total = 0.0
        for value in seconds:
            counts[bisect_left(_LATENCY, value)] += 1
            total += value
        self._sums[labels] = self._sums.get(labels, 0.0) + max(total, 0.0)

    def forget(self, labels: tuple[str, str]) -> None:
        """Takes the series of one watcher away."""
        self._counts.pop(labels, None)
        self._sums.pop(labels, None)

    def collect(self) -> Iterator[HistogramMetricFamily]:
        """The family, for a scrape."""
        family = HistogramMetricFamily(self._name, self._text, labels=_LABELS)
        bounds = [*map(floatToGoString, _LATENCY), "+Inf"]
        for labels, counts in self._counts.items():
            family.add_metric(labels, list(zip(bounds, accumulate(counts), strict=True)), self._sums[labels])
        yield family


class Metrics:
    """The families of one process. Label `watcher_namespace`, since a scrape renames plain `namespace`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"tablewatcher_{name}", text, (*_LABELS, *labels), registry=registry)

        def gauge(name: str, text: str) -> Gauge:
            return Gauge(f"tablewatcher_{name}", text, _LABELS, registry=registry)

        def histogram(name: str, text: str, *labels: str) -> Histogram:
            return Histogram(f"tablewatcher_{name}", text, (*_LABELS, *labels), registry=registry, buckets=_LATENCY)

        self.registry = registry
        self.events_captured = counter("events_captured_total", "Events read from the ring.", "action")
        self.events_delivered = counter("events_delivered_total", "Events the sink has acknowledged.", "action", "sink")
        self.delivery_attempts = counter("delivery_attempts_total", "Attempts to send an event.", "sink", "outcome")
        self.delivery_duration = ManyHistogram(
            "tablewatcher_delivery_duration_seconds", "From sending a call to its outcomes."
        )
        registry.register(self.delivery_duration)
        self.event_latency = ManyHistogram(
            "tablewatcher_event_latency_seconds", "From capture to the sink's first acknowledgement."
        )
        registry.register(self.event_latency)
        self._add_ring(gauge)
        self.events_skipped = counter(
            "events_skipped_total", "Changes not captured since their transactions set tablewatcher.skip."
        )
        self.gaps = counter("gaps_total", "Gap events read from the ring.")
        self.last_gap = gauge("last_gap_timestamp_seconds", "When this process last read a gap event, in Unix time.")
        self.listener_connected = gauge(
            "listener_connected", "1 while this process holds the lease and the sink answers."
        )
        self.reconcile_duration = histogram("reconcile_duration_seconds", "One reconcile of a watcher.")
        self.reconciles = counter("reconcile_total", "Reconciles of a watcher.", "result")
        self.drift_repaired = counter("drift_repaired_total", "Objects found changed and put right.", "object")
        self.watcher_ready = gauge("watcher_ready", "1 while condition Ready is True.")
        build = Gauge("tablewatcher_build_info", "1, with the version as label.", ("version",), registry=registry)
        build.labels(__version__).set(1)
        self._skipped: dict[tuple[str, str], int] = {}

    def _add_ring(self, gauge: Callable[[str, str], Gauge]) -> None:
        self.ring_rows = gauge("ring_rows", "Events not yet delivered; those after the batch that is read, about.")
        self.ring_oldest_age = gauge("ring_oldest_age_seconds", "Age of the oldest event not yet delivered.")
        self.ring_bytes = gauge("ring_bytes", "Size of the ring's tables and indexes.")
        self.ring_limit = gauge(
            "ring_limit_bytes", "Size of the ring at which capture stops: `overflow.maxBytes`, less what is parked."
        )
        self.capture_active = gauge("capture_active", "1 while the triggers stand and the ring is not full.")
        self.events_parked = gauge("events_parked", "Events put aside as undeliverable.")

    def skipped(self, labels: tuple[str, str], number: int) -> None:
        """`number` changes of a watcher were skipped by now, as the database has counted since its installation.

        It knows of no process: what this one has counted already is not counted again where its manifest changed.
        """
        counted = self._skipped.get(labels, 0)
        self.events_skipped.labels(*labels).inc(max(number - counted, 0))
        self._skipped[labels] = number

    def forget_ring(self, labels: tuple[str, str]) -> None:
        """Takes away what was last known of a watcher's ring: another process knows it now, or there is none."""
        sizes = (self.ring_rows, self.ring_oldest_age, self.ring_bytes, self.ring_limit)
        for gauge in (*sizes, self.capture_active, self.events_parked):
            gauge.remove_by_labels(dict(zip(_LABELS, labels, strict=True)))

    def forget(self, labels: tuple[str, str]) -> None:
        """Takes every series of one watcher away: an alert would go on about what nobody watches any more."""
        watcher = dict(zip(_LABELS, labels, strict=True))
        for family in vars(self).values():
            if isinstance(family, MetricWrapperBase):
                family.remove_by_labels(watcher)
            elif isinstance(family, ManyHistogram):
                family.forget(labels)
        self._skipped.pop(labels, None)
