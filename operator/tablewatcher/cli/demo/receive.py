"""The receiving half of the demonstration: what arrives at either end, and an endpoint that checks signatures."""

from __future__ import annotations

import asyncio
import hmac
import json
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

from aiohttp import web

from ...embedded import free_port
from ...sinks.http.signing import signature, signing_key
from .load import Change

HOST = "127.0.0.1"
PATH = "/orders"
_TOLERANCE_SECONDS = 300
_SHOWN_HEADERS = ("content-type", "nats-msg-id", "webhook-id", "webhook-timestamp", "webhook-signature")


class Number(str):
    """A number with digits after the point, as it was written: 42.50, where Python would make 42.5 of it."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Arrival:
    """An event as it came. `where`: its subject or path; `at`: epoch seconds."""

    where: str
    headers: Mapping[str, str]
    event: Mapping[str, Any]
    at: float

    @property
    def change(self) -> Change:
        """Which row change it tells of."""
        found = self.event["data"]
        return Change(str(found["source"]["txId"]), found["action"], self.event["partitionkey"])


@dataclass(slots=True, eq=False)
class Arrivals:
    """All that came to one sink, in order."""

    sink: str
    all: list[Arrival] = field(default_factory=list)
    changes: set[Change] = field(default_factory=set)
    news: asyncio.Event = field(default_factory=asyncio.Event)

    def add(self, where: str, headers: Mapping[str, str], body: bytes) -> None:
        """Takes in one message, with one event or a batch of them."""
        at = time.time()
        shown = {name: text for name, text in headers.items() if name.lower() in _SHOWN_HEADERS}
        for event in _events(headers, body):
            arrival = Arrival(where, shown, event, at)
            self.all.append(arrival)
            self.changes.add(arrival.change)
        self.news.set()


def _events(headers: Mapping[str, str], body: bytes) -> list[Mapping[str, Any]]:
    """Structured, a batch of such, or Binary, whose attributes are headers."""
    content = json.loads(body, parse_float=Number)
    if isinstance(content, list):
        return content
    attributes = {name[3:].lower(): unquote(text) for name, text in headers.items() if name.lower().startswith("ce-")}
    return [attributes | {"data": content} if attributes else content]


@asynccontextmanager
async def endpoint(secret: str, arrivals: Arrivals) -> AsyncIterator[str]:
    """An HTTP server whose URL is given; it answers 401 to what is not signed with `secret` (Standard Webhooks)."""
    key = signing_key(secret)

    async def receive(request: web.Request) -> web.Response:
        body = await request.read()
        if not _signed(key, request.headers, body):
            return web.Response(status=401)
        arrivals.add(request.path, dict(request.headers), body)
        return web.Response(status=204)

    application = web.Application(client_max_size=8 << 20)
    application.router.add_post(PATH, receive)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    try:
        port = free_port()
        await web.TCPSite(runner, HOST, port).start()
        yield f"http://{HOST}:{port}{PATH}"
    finally:
        await runner.cleanup()


def _signed(key: bytes, headers: Mapping[str, str], body: bytes) -> bool:
    """Whether one of the request's signatures is ours over its id, its time and its body, and the time is now."""
    stamp = headers.get("webhook-timestamp", "")
    if not stamp.isascii() or not stamp.isdigit() or abs(time.time() - int(stamp)) > _TOLERANCE_SECONDS:
        return False
    expected = signature((key,), headers.get("webhook-id", ""), int(stamp), body)
    given = headers.get("webhook-signature", "").split()
    return any(hmac.compare_digest(expected.encode(), each.encode()) for each in given)
