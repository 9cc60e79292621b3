"""Which stream stores what is published, asked of JetStream before the first event is sent."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nats import errors as nats_errors
from nats.js.api import DiscardPolicy, StorageType, StreamConfig
from nats.js.errors import APIError, NotFoundError
from nats.js.errors import Error as JetStreamError

from ...errors import Reason, SinkError, in_short
from .advice import DUPLICATE_WINDOW_SECONDS
from .subject import covered

if TYPE_CHECKING:
    from ...spec.model import CreateStream
    from .connection import Connection

_SECONDS = 2
_NAME_IN_USE = 10058
_NO_LEADER = 10008


async def find_streams(connection: Connection, patterns: Sequence[str], stream: str | None) -> list[StreamConfig]:
    """The streams that store `patterns` (NATS wildcard subjects), each once: `stream`, or if None whatever does.

    Raises SinkError NoStreamForSubject with the subject and the remedy, SinkAuthFailed where the inbox or the
    JetStream API is refused to this user, SinkUnreachable where it does not answer.
    """
    with _said(connection, patterns[0]):
        if stream is not None:
            return [await _named(connection, patterns, stream)]
        found: list[StreamConfig] = []
        for pattern in patterns:
            # All watchers look, and often: what is taken by a stream that was found is not asked for.
            if not any(covered(config.subjects or (), pattern) for config in found):
                found.append(await _any(connection, pattern))
        return found


def _without_leader(error: Exception) -> bool:
    return isinstance(error, APIError) and error.err_code == _NO_LEADER


@contextmanager
def _said(connection: Connection, pattern: str) -> Iterator[None]:
    """Faults of the JetStream API as SinkErrors."""
    if connection.refusal:
        raise SinkError(Reason.SINK_AUTH_FAILED, connection.refusal)
    try:
        yield
    except (nats_errors.NoRespondersError, JetStreamError) as error:
        if _without_leader(error):
            raise SinkError(
                Reason.SINK_UNREACHABLE,
                "JetStream is unavailable for now: most servers of its cluster must run and reach each other",
            ) from None
        why = f" ({in_short(error.description)})" if isinstance(error, APIError) and error.description else ""
        raise _no_stream(
            pattern,
            f"JetStream is not enabled for this account{why}: turn it on (`nats-server --jetstream`, or `jetstream` in"
            " the configuration of server and account)",
        ) from None
    except (nats_errors.Error, OSError, TimeoutError) as error:
        if connection.refusal:
            raise SinkError(Reason.SINK_AUTH_FAILED, connection.refusal) from None
        raise _silent(connection, "JetStream", error) from None


def _silent(connection: Connection, who: str, error: Exception) -> SinkError:
    if connection.loss:
        return SinkError(Reason.SINK_UNREACHABLE, connection.loss)
    return SinkError(Reason.SINK_UNREACHABLE, f"{who} does not answer ({type(error).__name__}): check the server")


async def answers(connection: Connection) -> None:
    """Hold that the server answers and lets us listen for its answers; SinkError as `find_streams`."""
    if connection.refusal:
        raise SinkError(Reason.SINK_AUTH_FAILED, connection.refusal)
    try:
        await connection.round_trip(_SECONDS)
    except (nats_errors.Error, OSError, TimeoutError) as error:
        raise _silent(connection, "NATS", error) from None


@dataclass(frozen=True, slots=True)
class StreamToMake:
    """Stream `name` over `subjects` (NATS wildcard subjects), as the manifest has us make it where there is none."""

    name: str
    subjects: Sequence[str]
    wanted: CreateStream


async def missing(connection: Connection, stream: StreamToMake) -> StreamConfig | None:
    """What `stream` would be, where there is none, and None where it is there. Makes nothing.

    Raises SinkError NoStreamForSubject where another stream has one of the subjects already, as far as this user may
    see that, and as `find_streams`. Whether the server has the room for it, only making it shows.
    """
    with _said(connection, stream.subjects[0]):
        config = await _unless_there(connection, stream)
    if config is None:
        return None
    for pattern in stream.subjects:
        try:
            others = await _names(connection, pattern)
        except (nats_errors.Error, JetStreamError, OSError, TimeoutError):
            break  # a user who may make a stream need not be one who may ask for the names of others
        if others:
            raise _not_made(pattern, stream.name, f"its subjects overlap with those of stream {', '.join(others)}")
    return config


async def create_missing(connection: Connection, stream: StreamToMake) -> None:
    """Make `stream` where there is none; one that is there is left as it is.

    Raises SinkError NoStreamForSubject where the server refuses it, and as `find_streams`.
    """
    with _said(connection, stream.subjects[0]):
        config = await _unless_there(connection, stream)
        if config is None:
            return
        try:
            await connection.client.jsm(timeout=_SECONDS).add_stream(config)
        except APIError as error:
            if _without_leader(error):
                raise
            # Another listener may have made it meanwhile: whether it will do is looked at next.
            if error.err_code != _NAME_IN_USE:
                raise _not_made(stream.subjects[0], stream.name, in_short(error.description)) from None


async def _unless_there(connection: Connection, stream: StreamToMake) -> StreamConfig | None:
    """The configuration to make `stream` with; None where one of its name is there."""
    if await config_of(connection, stream.name) is not None:
        return None
    return StreamConfig(
        name=stream.name,
        subjects=list(stream.subjects),
        storage=StorageType.FILE,
        discard=DiscardPolicy.OLD,
        max_bytes=stream.wanted.max_bytes,
        num_replicas=stream.wanted.replicas or 1,
        duplicate_window=DUPLICATE_WINDOW_SECONDS,
        allow_batched=connection.takes_batches or None,
    )


async def _named(connection: Connection, patterns: Sequence[str], stream: str) -> StreamConfig:
    config = await config_of(connection, stream)
    if config is None:
        remedy = "create it, or correct spec.sink.nats.jetStream.stream"
        raise _no_stream(patterns[0], f"stream {stream!r} does not exist: {remedy}")
    return _checked(config, patterns)


async def _any(connection: Connection, pattern: str) -> StreamConfig:
    found = await _names(connection, pattern)
    if not found:
        remedy = (
            "create a stream that takes it (jetStream: {stream: NAME, create: {}} has the listener do that), add it to"
            " the subjects of one, or correct spec.sink.nats.subject"
        )
        raise _no_stream(pattern, remedy)
    # The server names every stream that overlaps with the pattern: at most one of them takes all of it.
    configs = [config for name in found if (config := await config_of(connection, name)) is not None]
    best = next((config for config in configs if covered(config.subjects or (), pattern)), None)
    if best is None:
        names = ", ".join(found)
        raise _no_stream(pattern, f"{names} takes only some of its subjects: add {pattern!r} to one stream")
    return _checked(best, [pattern])


async def _names(connection: Connection, pattern: str) -> list[str]:
    request = json.dumps({"subject": pattern}).encode()
    answer = await connection.client.request("$JS.API.STREAM.NAMES", request, timeout=_SECONDS)
    content = json.loads(answer.data)
    if "error" in content:
        APIError.from_error(content["error"])  # which raises
    return list(content.get("streams") or ())


async def config_of(connection: Connection, name: str) -> StreamConfig | None:
    """The configuration of stream `name`, None where there is none."""
    try:
        info = await connection.client.jsm(timeout=_SECONDS).stream_info(name)
    except NotFoundError:
        return None
    return info.config


def _checked(config: StreamConfig, patterns: Sequence[str]) -> StreamConfig:
    for pattern in patterns:
        if not covered(config.subjects or (), pattern):
            remedy = "add it to the stream's subjects, or correct spec.sink.nats (subject, jetStream.stream)"
            raise _no_stream(pattern, f"stream {config.name!r} does not take it: {remedy}")
    if config.no_ack:
        raise _no_stream(patterns[0], f"stream {config.name!r} has no_ack set and never acknowledges: clear no_ack")
    if config.sealed:
        raise _no_stream(patterns[0], f"stream {config.name!r} is sealed and stores nothing more: use another")
    if config.allow_msg_counter:
        raise _no_stream(
            patterns[0], f"stream {config.name!r} has allow_msg_counter set and takes nothing but counts: use another"
        )
    return config


def _not_made(pattern: str, name: str, why: str) -> SinkError:
    return _no_stream(
        pattern,
        f"stream {name!r} cannot be created ({why}): change spec.sink.nats.jetStream, or create a stream yourself",
    )


def _no_stream(pattern: str, remedy: str) -> SinkError:
    return SinkError(Reason.NO_STREAM_FOR_SUBJECT, f"no stream stores subject {pattern!r}: {remedy}")
