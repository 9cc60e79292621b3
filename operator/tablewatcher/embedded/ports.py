"""Choose a TCP port on loopback that stays free while its server is down."""

from __future__ import annotations

import secrets
import socket
from collections import deque

HOST = "127.0.0.1"

# Below the ranges from which Linux (32768) and macOS (49152) give ports to outgoing connections. A port of
# those ranges can be taken while a killed server is down, even by its own client: a connect to a closed
# loopback port that happens to get the same number as its source connects to itself.
PORTS = range(15000, 32000)
# Given already, and perhaps not yet listened on: a server that is about to start, or down for a while.
_given: deque[int] = deque(maxlen=1000)


def free_port() -> int:
    """A port of 127.0.0.1 on which nothing listens now, and another every time; OSError when 200 tries found none."""
    for _ in range(200):
        port = secrets.choice(PORTS)
        if port in _given:
            continue
        with socket.socket() as probe:
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
        _given.append(port)
        return port
    raise OSError(f"no free port between {PORTS[0]} and {PORTS[-1]} on {HOST}: stop some servers and try again")
