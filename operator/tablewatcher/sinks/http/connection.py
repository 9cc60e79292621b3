"""One connection to an endpoint: what it says that is odd, and which of a name's addresses it is made to.

What of the client's library is touched here is not all documented, and every test of this sink would show a change; so
the library is pinned.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import aiohttp
from aiohttp.abc import ResolveResult
from aiohttp.client_proto import ResponseHandler
from aiohttp.connector import Connection
from aiohttp.http import HttpVersion11, RawResponseMessage
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.streams import EMPTY_PAYLOAD, StreamReader
from aiohttp.tracing import Trace
from multidict import CIMultiDict, CIMultiDictProxy

from .guard import DIALLED, Guard
from .status import SERVER_ERROR, said_status

# Of what comes before an answer is complete: enough for what may precede its first line.
_SAID_BYTES = 16 << 10
_SWITCHING = 101
_NO_HEADERS: CIMultiDictProxy[str] = CIMultiDictProxy(CIMultiDict())


class Connector(aiohttp.TCPConnector):
    """Takes no kept connection on which something came unasked: it would pass for the answer to the next request.

    Of the addresses that a name stands for, those from which no answer came are tried last.
    """

    def __init__(self, guard: Guard, *, limit: int, keep: bool, tls: ssl.SSLContext | None) -> None:
        super().__init__(
            limit=limit,
            force_close=not keep,
            ssl=tls if tls is not None else True,
            resolver=guard,
            socket_factory=guard.make_socket,
        )
        self._guard = guard
        made: Callable[..., ResponseHandler] = _Answers
        self._factory = partial(made, loop=asyncio.get_running_loop())

    async def connect(
        self,
        req: aiohttp.ClientRequest,
        traces: list[Trace],
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109 - as the library has it
    ) -> Connection:
        while True:
            found = await super().connect(req, traces, timeout)
            if DIALLED.get() or found.protocol is None or not found.protocol.should_close:
                return found
            found.close()

    async def _resolve_host(self, host: str, port: int, traces: Sequence[Trace] | None = None) -> list[ResolveResult]:
        # Here, behind the library's memory of names, which turns the addresses round.
        return self._guard.best_first(await super()._resolve_host(host, port, traces))


class _Answers(ResponseHandler):
    """What comes over one connection. A status line is an answer, whatever follows it; the rest is of no use to us.

    The library would take what it cannot parse for no answer at all, so that the event is sent for ever: a header that
    is too long, a body where there must be none. And it would keep what comes unasked, without end.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self._said = b""
        self._answered = False

    def set_response_params(self, **params: Any) -> None:  # noqa: ANN401 - as the library has it
        """A request begins."""
        self._said, self._answered = b"", False
        super().set_response_params(**params)

    def data_received(self, data: bytes) -> None:
        if data and self._answered and (self._payload is None or self._payload.is_eof()):
            self.force_close()
            if self.transport is not None:
                self.transport.abort()
            return
        if not self._answered and len(self._said) < _SAID_BYTES:
            self._said += data[:_SAID_BYTES]
        super().data_received(data)

    def feed_data(self, data: tuple[RawResponseMessage, StreamReader], size: int = 0) -> None:
        """An answer has come, or what precedes it (1xx)."""
        code = data[0].code
        if code >= 200 or code == _SWITCHING:
            self._said, self._answered = b"", True
        if code >= SERVER_ERROR:
            self.force_close()  # of several servers behind a name, another may be well
        super().feed_data(data, size)

    def set_exception(self, exc: BaseException, exc_cause: BaseException | None = None) -> None:
        status = said_status(self._said) if isinstance(exc, HttpProcessingError) and not self._answered else None
        if status is not None:
            self.force_close()
            message = RawResponseMessage(
                HttpVersion11,
                status,
                "",
                _NO_HEADERS,
                (),
                True,
                None,
                False,
                False,
            )
            self.feed_data((message, EMPTY_PAYLOAD))
        elif exc_cause is None:
            super().set_exception(exc)
        else:
            super().set_exception(exc, exc_cause)
