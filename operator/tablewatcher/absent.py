"""Libraries that another one would import if they are there, and that this process has no use for.

`nats` imports an HTTP client for WebSockets if there is one: 10 MB of a listener that should need 64 at the most
(decision 0014). It says itself that it can do without.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def absent(*names: str) -> Iterator[None]:
    """While inside, an import of one of these fails as if it were not installed. What is loaded already stays."""
    hidden = [name for name in names if name not in sys.modules]
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]
