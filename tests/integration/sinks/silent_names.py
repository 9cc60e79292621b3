"""A name server that says nothing of one name."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest


@contextmanager
def silent_name_server(monkeypatch: pytest.MonkeyPatch, name: str) -> Iterator[list[object]]:
    """Inside of the block nobody learns where `name` is; from its end on it is here. Yields what was asked so far."""
    real, answered, asked = socket.getaddrinfo, threading.Event(), []

    def look_up(host: object, *args: object, **options: object) -> object:
        if host == name:
            asked.append(host)
            answered.wait(20)
            host = "127.0.0.1"
        return real(host, *args, **options)

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    try:
        yield asked
    finally:
        answered.set()
