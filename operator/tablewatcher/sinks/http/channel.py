"""Requests to one endpoint: signed, sent over kept connections, and judged by their answers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import replace

from ... import __version__
from ...errors import Reason, SinkError
from ..address import AddressPolicy
from ..base import Outcome, Verdict
from ..shared_look import SharedLooks
from .endpoint import Endpoint, EndpointSource
from .fault import fault
from .guard import Guard, connect_once
from .pool import FAULTS, Pool, hung_up
from .signing import signature
from .status import clocks_apart, outcome

# What the endpoint refuses may be what a Secret held before it was changed.
_REFUSED_STATUS = frozenset({401, 403, 410})
# For so long after an answer nobody looks.
FRESH_SECONDS = 2.0
# An endpoint that does one thing at a time shakes no hands beside a request. No longer than from an answer to the end
# of the next look: one that is gone is told as soon as it was.
_BUSY_SECONDS = 4.0
_AGENT = f"tablewatcher/{__version__}"


class Channel:
    """The way to the endpoint of `endpoints`, at most `limit` requests at a time. Safe for several `send` at once."""

    def __init__(
        self,
        endpoints: EndpointSource,
        addresses: AddressPolicy,
        looks: SharedLooks,
        *,
        namespace: str,
        limit: int,
        content_type: str,
    ) -> None:
        self._endpoints = endpoints
        self._addresses = addresses
        self._looks = looks
        self._namespace = namespace
        self._limit = limit
        self._content_type = content_type
        self._headers: dict[str, str] = {}
        self._endpoint: Endpoint | None = None
        self._pool: Pool | None = None
        self._guard: Guard | None = None
        self._answered = float("-inf")
        self._refusal: SinkError | None = None

    async def open(self) -> None:
        """`look`, and keep what was read for what is to be sent. SinkError as that."""
        await self.close()
        self._use(await self.look())

    async def look(self) -> Endpoint:
        """Read the endpoint; resolve, connect, shake hands, send nothing. SinkError if any fails."""
        endpoint = self._endpoints.read()
        await self._look_at(endpoint)
        return endpoint

    async def check(self) -> None:
        """Resolve, connect, shake hands, send nothing; not even that where answers come. SinkError if any fails.

        Silence is no fault of an endpoint that has answered a moment ago: it may be busy with what was sent. So it is
        waited until that is a moment longer ago, or there is another answer: the next look may come late.
        """
        if self._pool is not None and (left := self._answered + FRESH_SECONDS - time.monotonic()) > 0:
            await asyncio.sleep(left)
        if self._pool is None or not self._answered_within(FRESH_SECONDS):
            await self._look_at(self._endpoints.current(), busy=self._pool is not None)

    def _answered_within(self, seconds: float) -> bool:
        return time.monotonic() - self._answered <= seconds

    async def close(self) -> None:
        """Ends what is under way."""
        pool, self._pool, self._endpoint = self._pool, None, None
        if pool is not None:
            await pool.close()

    async def send(self, webhook_id: str, body: bytes, headers: Mapping[str, str], seconds: float) -> Outcome:
        """Posts `body` with the fixed headers and `headers`; what came of it, within `seconds`."""
        endpoint, pool = self._endpoint, self._pool
        if endpoint is None or pool is None:
            return Outcome(Verdict.RETRY, Reason.SINK_UNREACHABLE, "not connected to the endpoint", endpoint=True)
        newest = self._endpoints.current()
        if newest is not endpoint:
            before, endpoint, pool = pool, newest, self._use(newest)
            if before is not pool:
                await before.retire()
        now = int(time.time())
        sent = {**self._headers, "webhook-id": webhook_id, "webhook-timestamp": str(now), **headers}
        if endpoint.keys:
            sent["webhook-signature"] = signature(endpoint.keys, webhook_id, now, body)
        try:
            status, retry_after, date = await pool.post(endpoint.url, body, sent, seconds=seconds)
        except FAULTS as error:
            failure = self._fault(error, endpoint)
            return Outcome(Verdict.RETRY, failure.reason, failure.message, endpoint=True)
        self._answered, self._refusal = time.monotonic(), None
        found = outcome(status, retry_after, time.time())
        if endpoint.keys and 400 <= status < 500:
            found = replace(found, message=found.message + clocks_apart(date, time.time()))
        if status in _REFUSED_STATUS:
            self._endpoints.distrust()
            return replace(found, message=self._endpoints.with_fault(found.message))
        return found

    async def _look_at(self, endpoint: Endpoint, *, busy: bool = False) -> None:
        """busy: it may be, with requests of ours."""
        try:
            # What the address policy says of an endpoint depends on the namespace, too.
            await self._looks.at(
                (endpoint.peer, self._namespace),
                lambda: connect_once(endpoint.host, endpoint.port, endpoint.tls, self._guard_of(endpoint)),
                by=self,
            )
        except (OSError, TimeoutError) as error:
            if busy and isinstance(error, TimeoutError) and self._answered_within(_BUSY_SECONDS):
                return
            found = fault(error, endpoint.where)
            self._refusal = found if found.reason is Reason.TLS_FAILED else None
            raise self._told(found) from None
        self._refusal = None

    def _fault(self, error: BaseException, endpoint: Endpoint) -> SinkError:
        """What came of a request that got no answer."""
        if self._refusal is not None and hung_up(error):
            # With TLS 1.3 a server says what it has against our certificate while we send already, and that is lost
            # where it hangs up on what it has not read. The last look had waited for it.
            return self._told(self._refusal)
        return self._told(fault(error, endpoint.where))

    def _told(self, found: SinkError) -> SinkError:
        """`found`; where it is about certificates, with what keeps those that are there now from being used."""
        if found.reason is not Reason.TLS_FAILED:
            return found
        # The endpoint's certificate may be of a new authority, or ours may have expired.
        self._endpoints.distrust()
        return SinkError(found.reason, self._endpoints.with_fault(found.message))

    def _guard_of(self, endpoint: Endpoint) -> Guard:
        """One for all looks: it asks for a name once at a time."""
        if self._guard is None or self._guard.host != endpoint.host:
            self._guard = Guard(self._addresses, endpoint.host, self._namespace)
        return self._guard

    def _use(self, endpoint: Endpoint) -> Pool:
        """The connections to `endpoint`: those there are, or new ones where it is somewhere else or its TLS another."""
        before, self._endpoint = self._endpoint, endpoint
        self._headers = {"User-Agent": _AGENT, "Content-Type": self._content_type}
        for name, value in endpoint.headers:
            if name.lower() == "user-agent":
                del self._headers["User-Agent"]
            self._headers[name] = value
        if self._pool is None or before is None or before.peer != endpoint.peer:
            guard = Guard(self._addresses, endpoint.host, self._namespace)
            self._pool = Pool(guard, endpoint.tls, self._limit)
        return self._pool
