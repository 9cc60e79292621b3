"""A stream from the other end: made, and read back as its consumers see it. For `tablewatcher demo`.

It stands here because the NATS client enters the project through this package only.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import nats
from nats.errors import Error
from nats.js.api import StreamConfig

from ...errors import Reason, SinkError
from .faults import fault

if TYPE_CHECKING:
    from nats.aio.msg import Msg


@dataclass(frozen=True, slots=True)
class Stored:
    """A message as the stream gives it to a consumer."""

    subject: str
    headers: Mapping[str, str]
    body: bytes


@asynccontextmanager
async def reading(
    url: str, stream: str, subjects: Sequence[str], take: Callable[[Stored], None]
) -> AsyncIterator[None]:
    """Makes `stream` over `subjects` and hands each message to `take`, in stream order, until the context ends.

    Raises SinkError where the server cannot be reached or refuses the stream.
    """

    async def pass_on(message: Msg) -> None:
        take(Stored(message.subject, dict(message.headers or {}), message.data))

    try:
        client = await nats.connect(url, allow_reconnect=False)
    except (Error, OSError) as error:
        raise fault(error, [url]) from None
    try:
        jetstream = client.jetstream()
        try:
            await jetstream.add_stream(StreamConfig(name=stream, subjects=list(subjects), allow_batched=True))
            await jetstream.subscribe(">", stream=stream, ordered_consumer=True, cb=pass_on)
        except Error as error:
            raise SinkError(
                Reason.SINK_UNREACHABLE, f"stream {stream!r} cannot be made and read: {type(error).__name__}"
            ) from error
        yield
    finally:
        await client.close()
