"""The NATS client library with short ways in and out. All that touches what the library does not document is here.

Building a message in the library's `publish`, a task's turn for each write, and parsing and queueing each answer cost
more than all else in a delivery. Nothing but this module would notice a change of the library, and every test of this
sink fails if that comes; so the library is pinned.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from nats import errors as nats_errors
from nats.aio.client import Client
from nats.protocol.parser import AWAITING_CONTROL_LINE, Parser

from . import pub_ack

# More than an acknowledgement ever has.
_ANSWER_BYTES = 2048


class PipelinedClient(Client):
    """A client that writes whole commands at once, and hands over answers without a task for each.

    on_delivered: gets the numbers (digits) in the subjects of good acknowledgements that came together.
    encrypted_only: nothing is sent to a server that offers no TLS.
    on_answer: gets subject and content of every other answer that has no headers.
    """

    def __init__(self, stream: str | None) -> None:
        super().__init__()
        self.inbox = ""
        self.encrypted_only = False
        self.on_delivered: Callable[[Sequence[bytes]], None]
        self.on_answer: Callable[[bytes, bytes], None]
        self._answer_prefix = b"\n"
        self._stream = stream
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
        await drain()

    async def _process_info(self, info: dict[str, Any], initial_connection: bool = False) -> None:
        # Credentials follow. The library would send them in the clear where the server, or whoever stands between us,
        # does not ask for TLS; and where TLS is only offered, it would not take it.
        if initial_connection and self.encrypted_only and not self.options["tls_handshake_first"]:
            if not (info.get("tls_required") or info.get("tls_available")):
                raise nats_errors.SecureConnRequiredError
            info["tls_required"] = True
        await super()._process_info(info, initial_connection)

    async def _process_msg(self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes) -> None:
        if headers is None and subject.startswith(self._answer_prefix):
            self.on_answer(subject, data)
        else:
            await super()._process_msg(sid, subject, reply, data, headers)


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
