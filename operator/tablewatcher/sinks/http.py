"""Delivery to an HTTP endpoint: one event a request, signed as Standard Webhooks say."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import aiohttp
from yarl import URL

from .. import __version__
from ..errors import Reason, SinkError, TableWatcherError
from ..event import DATA_CONTENT_TYPE, STRUCTURED_CONTENT_TYPE, Event, attributes
from ..naming import token
from ..spec.model import Format, SecretKey, Table
from ..spec.model import HttpSink as HttpSpec
from . import http_status
from .base import Limits, Outcome, Verdict
from .binary_mode import ce_headers
from .http_guard import Guard, connect_once, fault
from .signing import signature, signing_key

if TYPE_CHECKING:
    from ..spec.secrets import Secrets

_CONCURRENCY = 16
_KEYS_SECONDS = 60.0
_BODY_BYTES = 64 << 10
_BODY_SECONDS = 1.0
_REFUSED_STATUS = frozenset({401, 403})


class HttpSink:
    """A Sink over HTTP. Safe for several `deliver` calls at once on one event loop."""

    def __init__(
        self,
        spec: HttpSpec,
        *,
        format: Format,  # noqa: A002 - the word of the manifest
        source: str,
        table: Table,
        secrets: Secrets,
        allow_private: bool,
    ) -> None:
        self._url = URL(spec.url)
        self._seconds = float(spec.timeout_seconds)
        self._signing = spec.signing
        self._source = source
        self._table = f"{token(table.schema)}.{token(table.name)}"
        self._binary = format is Format.BINARY
        self._secrets = secrets
        self._guard = Guard(allow_private=allow_private)
        # A URL may hold a password or a token: only this much of it is ever shown.
        self._where = f"{self._url.host}:{self._url.port}"
        self._tls = ssl.create_default_context() if self._url.scheme == "https" else None
        self._session: aiohttp.ClientSession | None = None
        self._keys: tuple[bytes, ...] = ()
        self._keys_until = 0.0

    @property
    def limits(self) -> Limits:
        return Limits(max_batch=1, concurrency=_CONCURRENCY)

    @property
    def timeout(self) -> float:
        return self._seconds

    async def open(self) -> None:
        """Read the signing keys; resolve, connect, shake hands, send nothing. SinkError if any fails."""
        await self.close()
        self._read_keys()
        await self.check()
        self._session = self._new_session()

    async def check(self) -> None:
        """Resolve, connect, shake hands, send nothing."""
        host, port = self._url.host, self._url.port
        if self._url.scheme not in ("http", "https") or host is None or port is None:
            raise SinkError(Reason.SPEC_INVALID, "spec.sink.http.url: give an http or https URL with a host")
        try:
            await connect_once(host, port, self._tls, self._guard)
        except (OSError, TimeoutError, UnicodeError) as error:
            raise fault(error, self._where) from None

    async def close(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def deliver(self, events: Sequence[Event]) -> Sequence[Outcome]:
        """One request for each of `events`."""
        return await asyncio.gather(*(self._deliver(event) for event in events))

    async def _deliver(self, event: Event) -> Outcome:
        session = self._session
        if session is None or session.closed:
            text = f"not connected to {self._where}"
            return Outcome(Verdict.RETRY, Reason.SINK_UNREACHABLE, text, endpoint=True)
        outcome: Outcome | None = None
        try:
            # A deadline over everything: name, connection, request, answer.
            async with (
                asyncio.timeout(self._seconds),
                session.post(
                    self._url, data=event.body, headers=self._headers(event), allow_redirects=False
                ) as response,
            ):
                outcome = http_status.outcome(response.status, response.headers.get("Retry-After"), time.time())
                if response.status in _REFUSED_STATUS:
                    self._keys_until = 0.0
                await _read_away(response)
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            if outcome is None:
                failure = fault(error, self._where)
                outcome = Outcome(Verdict.RETRY, failure.reason, failure.message, endpoint=True)
        return outcome

    def _new_session(self) -> aiohttp.ClientSession:
        connector = aiohttp.TCPConnector(
            limit=_CONCURRENCY,
            ssl=self._tls if self._tls is not None else True,
            socket_factory=self._guard.socket,
        )
        return aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None),
            trust_env=False,
            auto_decompress=False,
            skip_auto_headers=("Accept-Encoding",),
            headers={
                "User-Agent": f"tablewatcher/{__version__}",
                "Content-Type": DATA_CONTENT_TYPE if self._binary else STRUCTURED_CONTENT_TYPE,
            },
        )

    def _headers(self, event: Event) -> dict[str, str]:
        now = int(time.time())
        headers = {"webhook-id": event.event_id, "webhook-timestamp": str(now)}
        if event.traceparent:
            headers["traceparent"] = event.traceparent
        if self._binary:
            headers |= ce_headers(attributes(event, source=self._source, table=self._table))
        if self._signing:
            headers["webhook-signature"] = signature(self._signing_keys(), event.event_id, now, event.body)
        return headers

    def _signing_keys(self) -> tuple[bytes, ...]:
        if time.monotonic() >= self._keys_until:
            # A Secret that is gone meanwhile must not stop what works: the keys read last go on.
            with contextlib.suppress(SinkError):
                self._read_keys()
            self._keys_until = time.monotonic() + _KEYS_SECONDS
        return self._keys

    def _read_keys(self) -> None:
        self._keys = tuple(self._read_key(place) for place in self._signing)
        self._keys_until = time.monotonic() + _KEYS_SECONDS

    def _read_key(self, place: SecretKey) -> bytes:
        try:
            values = self._secrets.read(place.name)
        except TableWatcherError as error:
            raise SinkError(error.reason, error.message) from None
        if place.key not in values:
            raise SinkError(
                Reason.SECRET_KEY_MISSING,
                f"Secret {place.name!r} has no key {place.key!r}: add the signing key",
            )
        try:
            return signing_key(values[place.key])
        except ValueError as error:
            raise SinkError(
                Reason.SECRET_KEY_MISSING,
                f"key {place.key!r} of Secret {place.name!r} is no signing key: {error}",
            ) from None


async def _read_away(response: aiohttp.ClientResponse) -> None:
    """Read the answer's body so that the connection can be used again; drop both if it is long or slow."""
    try:
        async with asyncio.timeout(_BODY_SECONDS):
            left = _BODY_BYTES
            while left > 0 and (chunk := await response.content.read(left)):
                left -= len(chunk)
    except (aiohttp.ClientError, OSError, TimeoutError):
        left = 0
    if left <= 0:
        response.close()
