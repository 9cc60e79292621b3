"""The operator: a TableWatcher on the cluster becomes a trigger, a listener and a status.

Read `handlers` (what kopf calls), `reconcile` (the loop of one watcher), `group` (a listener's objects, which several
watchers share), `cleanup` (the end of a watcher). `objects` and `status` decide, and are pure.
"""

from __future__ import annotations

import asyncio
import os
import sys

from .logs import configure_logs
from .options import parse
from .service import serve


def main() -> None:
    """The console script."""
    options = parse(sys.argv[1:], os.environ)
    configure_logs(options.log_level)
    asyncio.run(serve(options))
