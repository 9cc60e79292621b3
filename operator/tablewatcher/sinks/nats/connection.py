"""One connection to a NATS server, from connect to loss. A lost one is thrown away, never repaired.

The client library could reconnect by itself. It would then send what its buffer still held before the loss,
which may be minutes later, after another listener has taken over; and some errors (expired credentials, a
payload over the limit) close it for good all the same. So a connection that is lost stays lost, and a new one
is made.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from nats import errors as nats_errors

from ...errors import Reason, SinkError, in_short
from ..base import Outcome, Verdict
from . import fast_batch, pub_ack
from .ack_window import AckWindows
from .cancelling import cancelled
from .client import PipelinedClient
from .fast_batch import FastBatch
from .faults import fault, server_names

if TYPE_CHECKING:
    from nats.aio.msg import Msg

    from .login import Login

CONNECT_SECONDS = 2.5
_HANDSHAKE_SECONDS = 2
_CLOSE_SECONDS = 1.0
_PING_SECONDS = 10
_RETRY_SECONDS = 0.1
_CUT_TRIES = 6
_FIRST_WITH_BATCHES = (2, 14)
# The client hands on what the server says in lower case, which no subject of the API is in.
_NEEDS = (
    "said in lower case; it publishes on the subject, $JS.API.STREAM.NAMES and $JS.API.STREAM.INFO.*, and subscribes on"
    " _INBOX.>"
)


@dataclass(slots=True, eq=False)
class OpenBatch:
    """A batch of fast ingest under its name. `changed` is set with every answer, and is for its publisher to clear."""

    name: str
    batch: FastBatch
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def end(self, fault: Outcome) -> None:
        """Nothing more will come, because of `fault`."""
        self.batch.end(fault)
        self.changed.set()


class Connection:
    """A client, its acknowledgement inbox, and what still waits for answers: windows and batches.

    It is to `server` (a URL of the manifest) at `address`, one that its name stands for. `on_lost` is called once, with
    this connection, at the moment it can no longer be used. refusal: what this user may not do, as the server has said
    last, until somebody clears it to ask again. loss: why it is lost.
    """

    def __init__(
        self, login: Login, stream: str | None, on_lost: Callable[[Connection], None], *, server: str, address: str
    ) -> None:
        self.client = PipelinedClient(stream, address)
        self.client.encrypted_only = login.encrypted
        self.client.on_answer = self._on_answer
        self.client.on_lost = self._on_fault
        self.windows = AckWindows()
        self.client.on_delivered = self.windows.settle_delivered
        self._batches: dict[str, OpenBatch] = {}
        self._last_batch = 0
        self.lost = False
        self.refusal: str | None = None
        self.loss = ""
        self._login = login
        self._server = server
        self._stream = stream
        self._on_lost = on_lost
        self._connected = False
        self._failures: list[BaseException] = []
        self._failed = asyncio.Event()

    async def connect(self, options: Mapping[str, Any]) -> None:
        """Connect with `options` of the login, and subscribe; SinkError, after 2.5 s at most."""
        attempt = asyncio.ensure_future(self._connect(options))
        giving_up = asyncio.ensure_future(self._failed.wait())
        try:
            await asyncio.wait({attempt, giving_up}, timeout=CONNECT_SECONDS, return_when=asyncio.FIRST_COMPLETED)
            if attempt.done() and not attempt.cancelled():
                attempt.result()
                # Cut in the moment of the first round trip, it would be taken for a sound one.
                if self.refusal is None and not self._failed.is_set():
                    return
        except (OSError, nats_errors.Error, ValueError, AttributeError, TypeError) as error:
            # The last two are what the library makes of a greeting that is none.
            await self._give_up(attempt)
            raise self._fault(error) from None
        except BaseException:
            await self._give_up(attempt)
            raise
        finally:
            giving_up.cancel()
        await self._give_up(attempt)
        if self.refusal is not None:
            raise SinkError(Reason.SINK_AUTH_FAILED, self.refusal)
        raise self._most_telling()

    def _fault(self, error: BaseException | None) -> SinkError:
        return fault(error, self._login.servers, encrypted=self._login.encrypted)

    def _most_telling(self) -> SinkError:
        causes: list[BaseException | None] = [*self._failures] or [None]
        # What the server has said comes before that it hung up, and a fault of ours to mend before all.
        said = [error for error in causes if not _is_cut(error)]
        found = [self._fault(error) for error in (*said, causes[-1])]
        return next((each for each in found if each.reason is not Reason.SINK_UNREACHABLE), found[0])

    async def _give_up(self, attempt: asyncio.Future[None]) -> None:
        try:
            await cancelled(attempt)
        finally:  # told to give up once more meanwhile: the socket must not stay
            await self.close()

    async def _connect(self, options: Mapping[str, Any]) -> None:
        await self.client.connect(
            servers=[self._server],
            name="tablewatcher",
            connect_timeout=_HANDSHAKE_SECONDS,
            max_reconnect_attempts=-1,
            reconnect_time_wait=0,
            ping_interval=_PING_SECONDS,
            pending_size=0,
            skip_subject_validation=True,
            error_cb=self._on_error,
            **options,
        )
        inbox = f"{self.client.new_inbox()}."
        self.client.answers_to(inbox)
        await self.client.subscribe(f"{inbox}>", cb=self._on_message, pending_msgs_limit=0, pending_bytes_limit=0)
        # A round trip: a refused subscription is known after it.
        await self.client.flush(timeout=_HANDSHAKE_SECONDS)
        self._connected = True

    @property
    def inbox(self) -> str:
        """What the reply subject of every publish starts with; the number of the message follows."""
        return self.client.inbox

    async def round_trip(self, seconds: int) -> None:
        """Until the server has read all that was sent before; TimeoutError, or an error of the library or socket."""
        await self.client.flush(timeout=seconds)

    @property
    def takes_batches(self) -> bool:
        """Whether the server is new enough for fast ingest."""
        version = self.client.connected_server_version
        with suppress(ValueError):  # a build of somebody's own
            return (version.major, version.minor) >= _FIRST_WITH_BATCHES
        return False

    async def close(self) -> None:
        """Close in any state; what still waits for an answer is settled as a retry."""
        self._lose(pub_ack.unreachable("the connection to NATS was closed"))
        # Bounded: the client waits for its socket buffer, which a dead peer never empties. And a task of its
        # own: after a lost connection the client's close may end as cancelled, and would cancel the caller.
        closing = asyncio.ensure_future(self.client.close())
        try:
            await asyncio.wait({closing}, timeout=_CLOSE_SECONDS)
        finally:
            self.client.abort()
            closing.cancel()
            await asyncio.gather(closing, return_exceptions=True)

    @contextmanager
    def batch(self, size: int, stream: str) -> Iterator[OpenBatch]:
        """A batch of `size` messages for `stream`, which gets its answers until the context ends."""
        self._last_batch += 1
        # Unique in the stream, not only here: the inbox is.
        name = f"{self.inbox.split('.')[-2]}{self._last_batch}"
        opened = self._batches[name] = OpenBatch(name, FastBatch(size, stream))
        if self.lost:
            opened.end(self._gone())
        try:
            yield opened
        finally:
            del self._batches[name]

    def _on_answer(self, subject: bytes, content: bytes, headers: Mapping[str, str] | None = None) -> None:
        """An answer to a publish, but for good acknowledgements that come in runs."""
        rest = subject[len(self.inbox) :].decode()
        if rest.isdigit():
            self.windows.settle(int(rest), pub_ack.outcome(content, headers, self._stream))
            return
        name, _, rest = rest.partition(".")
        opened = self._batches.get(name)
        if opened is not None:
            self.windows.answers += 1
            _, _, number, operation, *_ = rest.split(".")
            asked = operation == str(fast_batch.PING)
            opened.batch.answer(int(number), content, headers, asked=asked)
            opened.changed.set()

    async def _on_message(self, message: Msg) -> None:
        """What comes with headers: "no responders"."""
        self._on_answer(message.subject.encode(), message.data, message.headers)

    async def _on_error(self, error: Exception) -> None:
        if "permissions violation" in str(error).lower():
            self.refusal = f"NATS refuses an operation: {in_short(error)}; grant it to this user ({_NEEDS})"
            refused = Outcome(Verdict.RETRY, Reason.SINK_AUTH_FAILED, self.refusal, endpoint=True)
            if "subscription" in str(error).lower():
                self._lose(refused)  # of no use any more: no answer will come
            else:
                self._settle_all(refused)
        elif not self._connected:
            await self._note_failure(error)

    async def _note_failure(self, error: Exception) -> None:
        self._failures.append(error)
        # A server that refuses a log-in often cuts the connection before its answer is read: ask again.
        if len(self._failures) >= (_CUT_TRIES if _is_cut(error) else 1):
            self._failed.set()
        # The client waits for this before it tries again; its own pause counts in whole seconds.
        await asyncio.sleep(_RETRY_SECONDS)

    def _on_fault(self, error: Exception) -> None:
        if self._connected:
            self._lose(self._gone(f" ({in_short(error)})"))
        else:
            # Cut between the greeting and the first round trip.
            self._failures.append(error)
            self._failed.set()

    def _gone(self, why: str = "") -> Outcome:
        return pub_ack.unreachable(f"the connection to NATS at {server_names([self._server])} was lost{why}")

    def _settle_all(self, outcome: Outcome) -> None:
        self.windows.settle_all(outcome)
        for opened in self._batches.values():
            opened.end(outcome)

    def _lose(self, outcome: Outcome) -> None:
        self._settle_all(outcome)
        if self._connected and not self.lost:
            self.lost, self.loss = True, outcome.message
            self._on_lost(self)


def _is_cut(error: BaseException | None) -> bool:
    return isinstance(error, ConnectionResetError | BrokenPipeError | nats_errors.UnexpectedEOF)
