"""The operator: a TableWatcher on the cluster becomes a trigger, a listener and a status."""

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
