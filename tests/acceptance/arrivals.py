"""Events as the two sinks got them, in the words of the checker."""

from __future__ import annotations

import asyncio
import json
import random
import re
import time
from collections.abc import Callable
from typing import Any

from aiohttp import web

from ..conftest import HttpReceiver, ReceivedRequest, Stream, poll
from .checker import Arrival, Change

_REPLAY = re.compile(rb',"replay":[0-9]+(?=,"data":)')


def arrival(event_id: str, body: bytes) -> Arrival:
    """A CloudEvent of table `account`, or its data alone. Raises KeyError or ValueError for anything else."""
    event = json.loads(body)
    if "specversion" not in event:
        return change_of(event, event_id, body)
    # A replay says that it is one, and has another id on its way; all else must be as it was.
    event_id, _, number = event_id.partition("/r")
    assert event.get("replay") == (int(number) if number else None), f"replay {number} beside {event.get('replay')}"
    body = _REPLAY.sub(b"", body)
    assert event["id"] == event_id, f"id {event['id']} in the body, {event_id} beside it"
    return change_of(event["data"], event_id, body)


def change_of(row: dict[str, Any], event_id: str, body: bytes) -> Arrival:
    """The change that `row`, the data of an event, tells."""
    key = str(row["key"]["key"])
    version = row["context"]["versions"][key] if row["action"] == "delete" else row["after"]["version"]
    return Arrival(key, int(version), event_id, body)


async def streamed(stream: Stream) -> list[Arrival]:
    """All that the stream holds, in its order."""
    return [arrival(found.headers["Nats-Msg-Id"], found.data) for found in await stream.messages()]


async def streamed_all(stream: Stream, wanted: set[Change], seconds: float = 40.0) -> list[Arrival]:
    """What the stream holds once all of `wanted` is there, or after `seconds`: the checker tells what is missing."""
    deadline = time.monotonic() + seconds
    while True:
        late = time.monotonic() > deadline
        if late or await stream.count() >= len(wanted):
            found = await streamed(stream)
            if late or wanted <= {entry.change for entry in found}:
                return found
        await asyncio.sleep(0.1)


class Endpoint:
    """A consumer behind the HTTP receiver. `attempts` is every event, `accepted` what it took for its own.

    gaps: the `gap` of each gap event, however often it came; these are no attempts.

    refused: keys whose events it answers with 400. trouble: share of requests that it answers with a fault. Half of
    those it has taken all the same: the sender cannot know, and must send them again. distaste: share of batches of
    several that it refuses to read; batches: the most events of one.
    """

    def __init__(self, receiver: HttpReceiver, seed: int = 1) -> None:
        self._receiver = receiver
        self._chance = random.Random(seed)
        self.refused: set[str] = set()
        self.trouble = 0.0
        self.distaste = 0.0
        self.batches = 0
        self.attempts: list[Arrival] = []
        self.accepted: list[Arrival] = []
        self.malformed: list[str] = []
        self.gaps: list[dict[str, Any]] = []
        self._gaps: set[str] = set()
        receiver.respond = self._answer

    @property
    def url(self) -> str:
        return self._receiver.url

    async def die(self) -> None:
        """Nobody listens any more; requests under way get no answer."""
        await self._receiver.stop()

    async def rise(self) -> None:
        """Listens again, on the same port."""
        await self._receiver.start()

    async def accepts(self, more: int, seconds: float = 40.0) -> None:
        """Returns once it has accepted that many more than now."""
        goal = len(self.accepted) + more
        await poll(lambda: len(self.accepted) >= goal, seconds)

    async def accepted_all(self, wanted: set[Change], seconds: float = 40.0) -> list[Arrival]:
        """What it accepted once all of `wanted` is there, or after `seconds`."""
        await _until(lambda: wanted <= {entry.change for entry in self.accepted}, seconds)
        assert self.malformed == []
        return self.accepted

    def _answer(self, request: ReceivedRequest) -> web.Response:
        if b"io.tablewatcher.gap" in request.body:
            event = json.loads(request.body)
            if isinstance(event, list):
                (event,) = event  # nothing may be sent beside it
            if event["id"] not in self._gaps:
                self._gaps.add(event["id"])
                self.gaps.append(event["data"]["gap"])
            return web.Response(status=204)
        try:
            found = self._arrivals(request)
        except (AssertionError, KeyError, ValueError) as error:
            self.malformed.append(f"{error!r} in {request.body!r}")
            return web.Response(status=400)
        self.attempts += found
        if len(found) > 1 and self._chance.random() < self.distaste:
            return web.Response(status=413)
        if any(each.key in self.refused for each in found):
            return web.Response(status=400)
        if self._chance.random() >= self.trouble:
            self.accepted += found
            return web.Response(status=204)
        if self._chance.random() < 0.5:
            self.accepted += found
        return web.Response(status=self._chance.choice([500, 503]))

    def _arrivals(self, request: ReceivedRequest) -> list[Arrival]:
        if "batch" not in request.headers["content-type"]:
            return [arrival(request.headers["webhook-id"], request.body)]
        found = json.loads(request.body)
        self.batches = max(self.batches, len(found))
        # Bytes of its own for each: the same event must be the same text in another batch.
        return [change_of(each["data"], each["id"], json.dumps(each).encode()) for each in found]


async def _until(condition: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(0.05)
    return True
