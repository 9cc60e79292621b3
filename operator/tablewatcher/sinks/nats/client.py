"""The NATS client library with short ways in and out. All that touches what the library does not document is here.

Building a message in the library's `publish`, a task's turn for each write, and parsing and queueing each answer cost
more than all else in a delivery. Nothing but this module would notice a change of the library, and every test of this
sink fails if that comes; so the library is pinned.
"""

from __future__ import annotations

import asyncio
import logging
import re
import ssl
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any
from urllib.parse import ParseResult

from nats import errors as nats_errors
from nats.aio.client import DEFAULT_FLUSH_TIMEOUT, Client, Srv
from nats.aio.msg import Msg
from nats.aio.transport import TcpTransport
from nats.protocol.parser import AWAITING_CONTROL_LINE, PERMISSIONS_ERR, Parser

from . import pub_ack
from .cancelling import cancellable

_log = logging.getLogger(__name__)
# More than an acknowledgement ever has.
_ANSWER_BYTES = 2048
# Of a line, the longest of which says how a server is set up, and of a message, the longest of which tells of a stream.
_LONGEST_LINE = 1 << 20
_LONGEST_MESSAGE = 8 << 20
_LAST_WORDS = re.compile(rb"^-ERR ([^\r\n]+)\r\n", re.MULTILINE)


class PipelinedClient(Client):
    """A client that writes whole commands at once, and hands over answers without a task for each.

    address: where the one server it is given is to be found; the server's name remains what a certificate must be for.
    on_delivered: gets the numbers (digits) in the subjects of good acknowledgements that came together.
    encrypted_only: nothing is sent to a server that offers no TLS.
    on_answer: gets subject and content of every other answer that has no headers.
    on_lost: called with the fault that made an established connection useless; it is not made again.
    """

    def __init__(self, stream: str | None, address: str) -> None:
        super().__init__()
        self._address = address
        self.inbox = ""
        self.encrypted_only = False
        self.on_delivered: Callable[[Sequence[bytes]], None]
        self.on_answer: Callable[[bytes, bytes], None]
        self.on_lost: Callable[[Exception], None]
        self._answer_prefix = b"\n"
        self._stream = stream
        self._socket: _Socket | None = None
        self._answers = self._ps = _AnswerParser(self)

    def answers_to(self, inbox: str) -> None:
        """Take what comes to subjects that start with `inbox` as answers to publishes."""
        self.inbox = inbox
        self._answer_prefix = inbox.encode()
        self._answers.expect(self._answer_prefix, pub_ack.good_answer(self._stream))

    async def send(self, commands: bytes) -> None:
        """Hand over whole protocol commands, and wait while the socket's buffer is full.

        ConnectionClosedError or OSError where there is no connection to use.
        """
        if not self.is_connected or self._transport is None:
            raise nats_errors.ConnectionClosedError
        drain: Callable[[], Awaitable[None]] = self._transport.drain
        self._transport.write(commands)
        try:
            await drain()
        except OSError as error:
            # Known here before the reader has had its turn. It must not wait for that: whoever sends again at once
            # would be refused at once, again and again, and nobody else would ever get a turn.
            await self._process_op_err(error)
            raise

    async def request(
        self,
        subject: str,
        payload: bytes = b"",
        timeout: float = 0.5,  # noqa: ASYNC109 - as the library has it
        old_style: bool = False,
        headers: dict[str, Any] | None = None,
    ) -> Msg:
        return await cancellable(super().request(subject, payload, timeout, old_style, headers))

    async def flush(self, timeout: float = DEFAULT_FLUSH_TIMEOUT) -> None:  # noqa: ASYNC109 - as the library has it
        """Until the server has read all that was handed over before. ConnectionClosedError, TimeoutError."""
        # Not the library's own. That sends its PING at once and what is pending a turn later, so that the answer proves
        # nothing of it; takes a connection that nobody reads any more for one that has answered; and gives up waiting
        # by cancelling what the PONG sets: coming late, it ends the library's reader.
        pending, reader = self._flush_queue, self._reading_task
        if not self.is_connected or pending is None or reader is None:
            raise nats_errors.ConnectionClosedError
        loop = asyncio.get_running_loop()
        written: asyncio.Future[None] = loop.create_future()
        pong: asyncio.Future[bool] = loop.create_future()
        async with asyncio.timeout(timeout):
            await pending.put(written)
            await asyncio.wait({written})
            if reader.done():
                await self._process_op_err(nats_errors.UnexpectedEOF())
                raise nats_errors.ConnectionClosedError
            await self._send_ping(pong)
            await asyncio.wait({pong})

    def bound_by(self, max_payload: int) -> None:
        """From now on the server takes messages of so many bytes."""
        self._max_payload = max_payload

    def abort(self) -> None:
        """Cut the socket, whatever is still to be written."""
        if self._socket is not None:
            self._socket.abort()

    async def _connect_to_server(self, s: Srv) -> None:
        if self._socket is None:
            make: Callable[[str], _Socket] = _Socket
            self._transport = self._socket = make(self._address)
        await super()._connect_to_server(s)

    async def _process_op_err(self, e: Exception) -> None:
        # The library would connect again by itself, and may get there after it was closed: tasks and a socket that
        # nobody knows of.
        if self.is_connected:
            self._process_disconnect()
            self.on_lost(e)

    async def _process_err(self, err_msg: str) -> None:
        # The library would close itself, in a task of its own that nobody can wait for.
        if PERMISSIONS_ERR in err_msg:
            await super()._process_err(err_msg)
        else:
            await self._process_op_err(nats_errors.Error(f"nats: {err_msg}"))

    async def _process_info(self, info: dict[str, Any], initial_connection: bool = False) -> None:
        # The servers that this one knows of may lead nowhere from here: those of the manifest are tried, and no others.
        info.pop("connect_urls", None)
        # Credentials follow. The library would send them in the clear where the server, or whoever stands between us,
        # does not ask for TLS; and where TLS is only offered, it would not take it.
        if initial_connection and self.encrypted_only and not self.options["tls_handshake_first"]:
            if not (info.get("tls_required") or info.get("tls_available")):
                raise nats_errors.SecureConnRequiredError
            info["tls_required"] = True
        await super()._process_info(info, initial_connection)
        # Who we are may have a lower bound than the server: known once we have signed in, and not read by the library.
        if not initial_connection and isinstance(bound := info.get("max_payload"), int) and bound > 0:
            self.bound_by(bound)

    async def _process_msg(self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes) -> None:
        if headers is None and subject.startswith(self._answer_prefix):
            self.on_answer(subject, data)
        else:
            await super()._process_msg(sid, subject, reply, data, headers)


class _Socket(TcpTransport):
    """The library's socket, which can be cut, and whose faults are those of a connection on every event loop."""

    def __init__(self, address: str) -> None:
        begin: Callable[[], None] = super().__init__
        begin()
        self._address = f"[{address}]" if ":" in address else address

    async def connect(self, uri: ParseResult, buffer_size: int, connect_timeout: int) -> None:
        await super().connect(uri._replace(netloc=f"{self._address}:{uri.port}"), buffer_size, connect_timeout)

    def __bool__(self) -> bool:
        # Else the library takes one of its own: what it asks is whether there is one.
        return True

    def write(self, payload: bytes) -> None:
        # To a closed socket: uvloop raises this, asyncio drops the bytes. The reader learns of the end either way.
        write: Callable[[bytes], None] = super().write
        with suppress(RuntimeError):
            write(payload)

    async def drain(self) -> None:
        drain: Callable[[], Awaitable[None]] = super().drain
        try:
            await drain()
        except OSError as error:
            # A server that lets nobody in says why and hangs up, and what we write meanwhile fails before that is read.
            if said := _LAST_WORDS.search(bytes(getattr(self._io_reader, "_buffer", b""))):
                raise ConnectionError(f"nats: {said[1].decode(errors='replace')}") from error
            raise

    async def connect_tls(
        self, uri: str | ParseResult, ssl_context: ssl.SSLContext, buffer_size: int, connect_timeout: int
    ) -> None:
        # A name may end in a dot, to be looked up as it is; the one in a certificate, and in a handshake, does not.
        name = uri.rstrip(".") if isinstance(uri, str) else uri
        try:
            await super().connect_tls(name, ssl_context, buffer_size, connect_timeout)
        except RuntimeError as error:  # likewise
            raise ConnectionResetError(str(error)) from None

    def abort(self) -> None:
        for writer in (self._io_writer, self._bare_io_writer):
            # Debian 12's Python (3.11.2) raises this where TLS has been closed already.
            with suppress(AttributeError):
                if writer is not None:
                    writer.transport.abort()


class _AnswerParser(Parser):
    """The library's parser, which gets only what is no run of good acknowledgements."""

    nc: PipelinedClient

    def __init__(self, client: PipelinedClient) -> None:
        super().__init__(client)
        self._start = b"\n"
        self._run = self._number = re.compile(rb"(?!)")

    def expect(self, inbox: bytes, good: bytes) -> None:
        """From now on messages to `inbox` and a number, with content `good` (a pattern), need no parsing."""
        self._start = b"MSG " + inbox
        line = rb"%b([0-9]+) [0-9]+ [0-9]+\r\n" % re.escape(self._start)
        self._number = re.compile(line)
        self._run = re.compile(rb"(?:%b%b\r\n)+" % (line, good))

    async def parse(self, data: bytes = b"") -> None:
        try:
            await self._parse(data)
        except (OSError, nats_errors.ProtocolError):
            raise
        except Exception as error:
            # The library's reader would end by it without a word: nobody reads any more, and all takes the connection
            # for a sound one until an answer has failed to come.
            _log.exception("what NATS has sent was not understood; connecting anew")
            raise nats_errors.ProtocolError from error

    async def _parse(self, data: bytes) -> None:
        if self.state == AWAITING_CONTROL_LINE:
            data = bytes(self.buf) + data
            self.buf.clear()
            if run := self._run.match(data):
                self.nc.on_delivered(self._number.findall(data, 0, run.end()))
                data = data[run.end() :]
            if len(data) < _ANSWER_BYTES and data.startswith(self._start) and data.count(b"\n") < 2:
                # Half an acknowledgement: parsed as one, it would leave the next run to the slow way.
                self.buf.extend(data)
                return
        await super().parse(data)
        # The library keeps whatever comes until it is whole: without end, or of a length that only the server knows.
        if self.state == AWAITING_CONTROL_LINE:
            if len(self.buf) > _LONGEST_LINE:
                raise nats_errors.ProtocolError
        elif self.needed > _LONGEST_MESSAGE:
            raise nats_errors.ProtocolError
