"""TableWatcher: committed changes of Postgres tables, delivered to NATS or HTTP."""

from __future__ import annotations

__version__ = "0.1.0"
