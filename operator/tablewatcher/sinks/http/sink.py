"""Delivery to an HTTP endpoint: one event a request, or several as a batch."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from ...event import DATA_CONTENT_TYPE, STRUCTURED_CONTENT_TYPE, Event, attributes
from ...naming import token
from ...spec.model import Format, Table
from ...spec.model import HttpSink as HttpSpec
from ..base import DELIVERED, Limits, Outcome
from ..binary_mode import ce_headers
from ..shared_look import SharedLooks
from .batch import BATCH_CONTENT_TYPE, Call, batch_body, batch_id
from .body_length import BodyLength
from .channel import Channel
from .endpoint import EndpointSource

if TYPE_CHECKING:
    from ...spec.secrets import Secrets
    from ..address import AddressPolicy

# The caller counts bodies, we commas and brackets too: else the last event of a full call went by itself. A structured
# event has 300 bytes at the least.
_COMMA_SHARE = 256


class HttpSink:
    """A Sink over HTTP. Safe for several `deliver` calls at once on one event loop."""

    def __init__(
        self,
        spec: HttpSpec,
        *,
        format: Format,  # noqa: A002 - the word of the manifest
        source: str,
        namespace: str,
        table: Table,
        secrets: Secrets,
        addresses: AddressPolicy,
        looks: SharedLooks | None = None,
    ) -> None:
        self._batched = spec.batch.max_events > 1
        self._binary = format is Format.BINARY
        self._limits = _limits(spec)
        self._seconds = float(spec.timeout_seconds)
        self._length = BodyLength(spec.batch.max_bytes)
        # Events of a call's first request at the most: less where looking for a refused one took longer than a call.
        self._size = spec.batch.max_events
        self._source = source
        self._table = f"{token(table.schema)}.{token(table.name)}"
        alone = DATA_CONTENT_TYPE if self._binary else STRUCTURED_CONTENT_TYPE
        self._channel = Channel(
            EndpointSource(spec, secrets),
            addresses,
            looks or SharedLooks(),
            namespace=namespace,
            limit=spec.concurrency,
            content_type=BATCH_CONTENT_TYPE if self._batched else alone,
        )

    @property
    def limits(self) -> Limits:
        if not self._length.is_bounded:
            return self._limits
        return replace(self._limits, max_bytes=_bodies(self._length.most(time.monotonic())))

    @property
    def timeout(self) -> float:
        return self._seconds

    @property
    def notes(self) -> tuple[str, ...]:
        return ()

    async def open(self) -> None:
        """Read what Secrets hold for us; resolve, connect, shake hands, send nothing. SinkError if any of it fails."""
        await self._channel.open()

    async def look(self) -> tuple[str, ...]:
        """As `open`, which makes nothing either."""
        await self._channel.look()
        return ()

    async def check(self) -> None:
        """Resolve, connect, shake hands, send nothing."""
        await self._channel.check()

    async def close(self) -> None:
        await self._channel.close()

    async def deliver(self, events: Sequence[Event]) -> Sequence[Outcome]:
        """One request after another: one an event, or as few as the bounds of a batch allow."""
        if not events:
            return []
        if not self._batched:
            return [await self._deliver_alone(event) for event in events]
        return await self._deliver_batches(events)

    async def _deliver_alone(self, event: Event) -> Outcome:
        headers = {"traceparent": event.traceparent} if event.traceparent else {}
        if self._binary:
            headers |= ce_headers(attributes(event, source=self._source, table=self._table))
        return await self._channel.send(event.message_id, event.body, headers, self._seconds)

    async def _deliver_batches(self, events: Sequence[Event]) -> Sequence[Outcome]:
        clock, length = time.monotonic, self._length
        begin = clock()
        call = Call(events, size=self._size, max_events=self._limits.max_batch, max_bytes=length.begin(begin))
        self._size = self._limits.max_batch
        while sent := call.request():
            left = begin + self._seconds - clock()
            if left < self._seconds / 2:  # too short for no answer to be the endpoint's fault
                self._size = call.size
                call.give_up()
                continue
            body = batch_body(sent)
            outcome = await self._channel.send(batch_id(sent), body, {}, left)
            if outcome is DELIVERED:
                length.accepted(len(body), clock())
                if len(sent) == len(events):
                    return [DELIVERED] * len(events)
            elif outcome.too_long and length.refused(len(body), clock(), alone=len(sent) == 1):
                call.shorten(length.begin(clock()))
                continue
            call.settle(outcome)
        return call.outcomes


def _limits(spec: HttpSpec) -> Limits:
    batch = spec.batch
    if batch.max_events == 1:
        return Limits(max_batch=1, concurrency=spec.concurrency, ordered=True)
    return Limits(
        max_batch=batch.max_events,
        concurrency=spec.concurrency,
        ordered=True,
        max_bytes=_bodies(batch.max_bytes),
        linger=batch.linger_milliseconds / 1000,
    )


def _bodies(length: int) -> int:
    """Bytes of events that make a body of `length`, as the caller counts them."""
    return length - length // _COMMA_SHARE - 2
