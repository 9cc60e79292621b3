"""TableWatcher: committed changes of Postgres tables, delivered to NATS or HTTP.

`spec` reads manifests, `postgres` captures changes in the database and reads them back, `sinks` send them, `listener`
runs all that, `cli` and `controller` are the ways in. docs/architecture.md follows a change through them.
"""

from __future__ import annotations

__version__ = "0.1.0"
