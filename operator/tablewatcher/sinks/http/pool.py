"""Connections to one endpoint, kept open between requests; the one door to the HTTP client."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping, Sequence

import aiohttp
from yarl import URL

from .connection import Connector
from .guard import DIALLED, Guard
from .status import SERVER_ERROR

_BODY_BYTES = 64 << 10
_BODY_SECONDS = 1.0

_TIMED_OUT = 408

FAULTS = (aiohttp.ClientError, OSError, TimeoutError)


def hung_up(error: BaseException) -> bool:
    """Whether a connection that had been made was ended without an answer, of `FAULTS`."""
    return isinstance(error, aiohttp.ServerDisconnectedError) or (
        isinstance(error, aiohttp.ClientOSError) and not isinstance(error, aiohttp.ClientConnectorError)
    )


class Pool:
    """At most `limit` connections. `retire` ends it as soon as no request is under way, `close` at once."""

    def __init__(self, guard: Guard, tls: ssl.SSLContext | None, limit: int) -> None:
        self._guard = guard
        self._sessions = [_session(guard, tls, limit, keep=keep) for keep in (True, False)]
        self._requests = 0
        self._retired = False

    async def post(
        self, url: URL, body: bytes, headers: Mapping[str, str], *, seconds: float
    ) -> tuple[int, str | None, str | None]:
        """Status, Retry-After and Date of the answer; one of FAULTS where there is none within `seconds`."""
        self._requests += 1
        answer: tuple[int, str | None, str | None] | None = None
        dialled: list[str] = []
        DIALLED.set(dialled)
        try:
            # A deadline over everything: name, connection, request, answer.
            async with asyncio.timeout(seconds), await self._request(url, body, headers, dialled) as response:
                answer = response.status, response.headers.get("Retry-After"), response.headers.get("Date")
                if not response.content.at_eof():
                    await _read_away(response)
        except FAULTS:
            if answer is None:
                # The name may lead elsewhere by now; the library remembers for ten seconds where it led.
                for session in self._sessions:
                    _forget_names(session)
                raise
        finally:
            self._requests -= 1
            if answer is None or answer[0] >= SERVER_ERROR:
                self._guard.useless(dialled)
            if self._retired and not self._requests:
                await self.close()
        return answer

    async def retire(self) -> None:
        """No request will be made any more."""
        self._retired = True
        if not self._requests:
            await self.close()

    async def close(self) -> None:
        """Ends every connection; requests under way fail."""
        for session in self._sessions:
            await session.close()

    async def _request(
        self, url: URL, body: bytes, headers: Mapping[str, str], dialled: Sequence[str]
    ) -> aiohttp.ClientResponse:
        kept, fresh = self._sessions
        try:
            response = await _post(kept, url, body, headers)
            if response.status != _TIMED_OUT or dialled:
                return response
            response.close()  # that the connection was idle for too long: said as our request was on its way
        except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError) as error:
            # A connection kept from an earlier request, ended by the server before it saw this one: it was idle for too
            # long, or the server restarts. That is no fault of the endpoint, and an event may arrive twice anyway.
            if dialled or not _is_silent(error):
                raise
        return await _post(fresh, url, body, headers)


def _is_silent(error: BaseException) -> bool:
    """As `hung_up`, and nothing of an answer had come: else that is its message."""
    return hung_up(error) and isinstance(getattr(error, "message", ""), str)


async def _post(
    session: aiohttp.ClientSession, url: URL, body: bytes, headers: Mapping[str, str]
) -> aiohttp.ClientResponse:
    if session.closed:
        raise aiohttp.ServerDisconnectedError
    return await session.post(url, data=body, headers=headers, allow_redirects=False)


def _session(guard: Guard, tls: ssl.SSLContext | None, limit: int, *, keep: bool) -> aiohttp.ClientSession:
    connector = Connector(guard, limit=limit, keep=keep, tls=tls)
    return aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=None),
        trust_env=False,
        auto_decompress=False,
        skip_auto_headers=("Accept-Encoding",),
    )


def _forget_names(session: aiohttp.ClientSession) -> None:
    if isinstance(session.connector, aiohttp.TCPConnector):
        session.connector.clear_dns_cache()


async def _read_away(response: aiohttp.ClientResponse) -> None:
    """Read the answer's body so that the connection can be used again; drop both if it is long or slow."""
    try:
        async with asyncio.timeout(_BODY_SECONDS):
            left = _BODY_BYTES
            while left > 0 and (chunk := await response.content.read(left)):
                left -= len(chunk)
    except FAULTS:
        left = 0
    if left <= 0:
        response.close()
