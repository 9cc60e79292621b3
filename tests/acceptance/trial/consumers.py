"""Who gets the events: an endpoint with moods, a reader of a stream, a subscriber. They keep what came, by watcher."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections import defaultdict
from dataclasses import replace
from typing import Any

import nats
from aiohttp import web
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy, StreamConfig

from tablewatcher.embedded import free_port

from .events import binary, parsed
from .leases import Call
from .truth import Arrival
from .wide import loads

STREAM = "TRIAL"
# Below this are the subjects of core NATS.
CORE = "core"
OK = "ok"
# Takes nothing.
REFUSING = "429"
MOODS = ("500", "503", "429", "410", "401", "408", "hang", "reset", "late", "close")
# The header in which each listener says which one it is.
LISTENER = "X-Listener"


class Endpoint:
    """moods: of each watcher; what is not named is well. refused: keys whose events it answers with 400.

    refused_by: of some watchers alone, in every mood.
    unwell: watchers of whom it takes nothing. calls: all requests since somebody has last looked;
    latest: when the newest came of each listener.
    """

    def __init__(self, seed: str) -> None:
        self.port = free_port()
        self.moods: dict[str, str] = {}
        self.refused: set[str] = set()
        self.refused_by: dict[str, set[str]] = {}
        self.unwell: set[str] = set()
        self.attempts: dict[str, list[Arrival]] = defaultdict(list)
        self.ids: dict[str, set[str]] = defaultdict(set)
        self.gaps: dict[str, list[dict[str, Any]]] = defaultdict(list)
        self.malformed: list[str] = []
        self.calls: list[Call] = []
        self.latest: dict[int, float] = {}
        self._chance = random.Random(f"{seed}/endpoint")
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        application = web.Application(client_max_size=64 << 20)
        application.router.add_post("/{name}", self._receive)
        self._runner = web.AppRunner(application, shutdown_timeout=0.05, access_log=None)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port).start()

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    def accepted(self, name: str) -> list[Arrival]:
        return [each for each in self.attempts[name] if each.accepted]

    async def _receive(self, request: web.Request) -> web.StreamResponse:
        name = request.match_info["name"]
        listener, now = int(request.headers[LISTENER]), time.monotonic()
        self.calls.append(Call(name, listener, now))
        self.latest[listener] = now
        body = await request.read()
        mood = REFUSING if name in self.unwell else self.moods.get(name, OK)
        try:
            found = self._events(request, body)
        except Exception as error:  # noqa: BLE001
            self.malformed.append(f"{error!r} in {body[:500]!r}")
            return web.Response(status=204)
        keys = {key for _, each, _ in found for key in (each.key, each.old_key)}
        if (mood == OK and keys & self.refused) or keys & self.refused_by.get(name, set()):
            self._keep(name, found, accepted=False)
            return web.Response(status=400)
        # Of faults it may have taken them all the same: the sender cannot know.
        taken = mood in (OK, "late") or (
            mood in ("500", "503", "hang", "reset", "close") and self._chance.random() < 0.5
        )
        self._keep(name, found, accepted=taken)
        return await self._answer(request, mood)

    async def _answer(self, request: web.Request, mood: str) -> web.StreamResponse:
        if mood == OK:
            return web.Response(status=204)
        if mood == "late":
            await asyncio.sleep(self._chance.uniform(0.0, 1.0))
            return web.Response(status=202, text="taken")
        if mood == "hang":
            await asyncio.sleep(8)
            return web.Response(status=204)
        if mood in ("reset", "close"):
            if request.transport is not None:
                request.transport.abort() if mood == "reset" else request.transport.close()
            return web.Response(status=503)
        headers = {"Retry-After": "1"} if mood in ("429", "503") and self._chance.random() < 0.5 else {}
        return web.Response(status=int(mood), headers=headers)

    def _events(self, request: web.Request, body: bytes) -> list[tuple[str, Arrival, dict[str, Any]]]:
        kind = request.headers["content-type"]
        if "batch" in kind:
            events = loads(body)
        elif "cloudevents" in kind:
            events = [loads(body)]
        else:
            events = [binary({name.lower(): text for name, text in request.headers.items()}, body)]
        return [parsed(event, accepted=False) for event in events]

    def _keep(self, name: str, found: list[tuple[str, Arrival, dict[str, Any]]], *, accepted: bool) -> None:
        for watcher, each, data in found:
            if watcher != name:
                self.malformed.append(f"an event of {watcher} came to {name}")
            if each.action == "gap":
                self.gaps[name].append(data["gap"])
                continue
            self.attempts[name].append(replace(each, accepted=accepted))
            if accepted:
                self.ids[name].add(each.event_id)


class Reader:
    """Reads the stream from its beginning, in its order, whatever happens to the server."""

    def __init__(self, url: str) -> None:
        self._url = url
        self.next = 1
        self.arrivals: dict[str, list[Arrival]] = defaultdict(list)
        self.ids: dict[str, set[str]] = defaultdict(set)
        self.gaps: dict[str, list[dict[str, Any]]] = defaultdict(list)
        self.malformed: list[str] = []
        self.skipped = 0

    async def make(self, *, allow_batched: bool) -> None:
        async with await nats.connect(self._url) as client:
            await client.jetstream().add_stream(
                StreamConfig(name=STREAM, subjects=["trial.>"], allow_batched=allow_batched, duplicate_window=120.0)
            )

    async def configure(self, *, allow_batched: bool) -> None:
        async with await nats.connect(self._url, connect_timeout=2, allow_reconnect=False) as client:
            await client.jetstream().update_stream(
                StreamConfig(name=STREAM, subjects=["trial.>"], allow_batched=allow_batched, duplicate_window=120.0)
            )

    async def purge(self) -> None:
        """Drops what has been read."""
        async with await nats.connect(self._url, connect_timeout=2, allow_reconnect=False) as client:
            await client.jetstream().purge_stream(STREAM, seq=self.next)

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            with contextlib.suppress(Exception):
                await self._read()
            await asyncio.sleep(0.2)

    async def subscribe(self) -> None:
        """The same for what goes by core NATS, as far as there is a connection just then."""
        while True:
            with contextlib.suppress(Exception):
                await self._listen()
            await asyncio.sleep(0.2)

    async def _listen(self) -> None:
        closed = asyncio.Event()

        async def is_closed() -> None:
            closed.set()

        quiet = {"error_cb": _silent, "closed_cb": is_closed}
        client = await nats.connect(
            self._url, connect_timeout=2, allow_reconnect=False, max_reconnect_attempts=0, **quiet
        )
        try:
            await client.subscribe(f"{CORE}.>", cb=self._take_core)
            await closed.wait()
        finally:
            await _closed(client)

    async def _take_core(self, message: Any) -> None:
        self._keep(message)

    async def _read(self) -> None:
        quiet = {"error_cb": _silent, "disconnected_cb": None}
        client = await nats.connect(
            self._url, connect_timeout=2, allow_reconnect=False, max_reconnect_attempts=0, **quiet
        )
        try:
            subscription = await client.jetstream().pull_subscribe(
                "",
                stream=STREAM,
                config=ConsumerConfig(
                    deliver_policy=DeliverPolicy.BY_START_SEQUENCE,
                    opt_start_seq=self.next,
                    ack_policy=AckPolicy.NONE,
                    inactive_threshold=30.0,
                ),
            )
            while not client.is_closed:
                try:
                    messages = await subscription.fetch(2000, timeout=1)
                except (TimeoutError, nats.errors.TimeoutError):
                    continue
                for message in messages:
                    self._take(message)
        finally:
            await _closed(client)

    def _take(self, message: Any) -> None:
        number = message.metadata.sequence.stream
        if number < self.next:
            return
        if number != self.next:
            self.skipped += number - self.next
        self.next = number + 1
        self._keep(message)

    def _keep(self, message: Any) -> None:
        headers = dict(message.headers or {})
        try:
            name = headers.get("Nats-Msg-Id", "")
            event = binary(headers, message.data) if "ce-id" in headers else loads(message.data)
            watcher, each, data = parsed(event, accepted=True)
            if name != (f"{each.event_id}/r{each.replay}" if each.replay else each.event_id):
                raise ValueError(f"id {name} beside {each.event_id}")
            each = replace(each, subject=message.subject)
        except Exception as error:  # noqa: BLE001
            self.malformed.append(f"{error!r} in {message.subject} {message.data[:500]!r}")
            return
        if each.action == "gap":
            self.gaps[watcher].append(data["gap"])
        else:
            self.arrivals[watcher].append(each)
            self.ids[watcher].add(each.event_id)


async def _closed(client: Any) -> None:
    with contextlib.suppress(Exception):
        async with asyncio.timeout(2):
            await client.close()


async def _silent(_: Exception) -> None:
    """No log for what is done on purpose."""
