"""Real Postgres and NATS servers from wheels, for `tablewatcher demo`, the tests and the benchmarks."""

from __future__ import annotations

from .installation import EmbeddedUnavailable
from .nats import EmbeddedNats
from .ports import free_port
from .postgres import EmbeddedPostgres

__all__ = ["EmbeddedNats", "EmbeddedPostgres", "EmbeddedUnavailable", "free_port"]
