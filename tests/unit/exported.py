"""The metrics that a listener exports, with every label that they have."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.metrics import MetricWrapperBase

from tablewatcher.metrics import ManyHistogram, Metrics


def exported() -> Iterator[tuple[str, set[str], Any]]:
    """Each by the name it is scraped under, its labels (but `le`), and its family."""
    registry = CollectorRegistry()
    for family in vars(Metrics(registry)).values():
        if isinstance(family, ManyHistogram):
            family.observe(("a", "b"), [1.0])
        elif isinstance(family, MetricWrapperBase):
            family.labels(*family._labelnames)
    for family in registry.collect():
        name = family.name + ("_total" if family.type == "counter" else "")
        yield name, {label for sample in family.samples for label in sample.labels} - {"le"}, family
