"""What is allowed, works, and may still cost somebody events: said in words for `plan` and `doctor`. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from nats.js.api import DiscardPolicy, PersistMode, RetentionPolicy, StorageType

if TYPE_CHECKING:
    from nats.js.api import StreamConfig

# As long as the server's own default: repeats after a short fault fall into it.
DUPLICATE_WINDOW_SECONDS = 120.0

CORE = (
    "core NATS delivers at most once: an event that nobody is listening for is lost; leave "
    "spec.sink.nats.jetStream.enabled out to store events in a stream"
)


def notes(configs: Iterable[StreamConfig], *, batches: bool) -> tuple[str, ...]:
    """One sentence for each doubtful setting of the streams. batches: the server could do fast ingest."""
    return tuple(f"stream {config.name!r} {text}" for config in configs for text in _texts(config, batches))


def too_small(max_event_bytes: int, max_payload: int, max_stored: int | None) -> tuple[str, ...]:
    """What is to be said where events that capture sends whole are more than the server, or the stream, takes."""
    stream = max_stored is not None and max_stored < max_payload
    bound = max_stored if stream and max_stored is not None else max_payload
    if max_event_bytes < bound:
        return ()
    whose = "the stream takes messages of" if stream else "the NATS server takes messages of"
    raised = "max_msg_size of the stream" if stream else "max_payload of the server"
    note = (
        f"spec.capture.maxEventBytes is {max_event_bytes}, and {whose} {bound} bytes: an event that is between the two"
        " is refused, and put aside; set it some KiB below that, so that such an event is sent as its key, or raise"
        f" {raised}"
    )
    return (note,)


def _texts(config: StreamConfig, batches: bool) -> Iterator[str]:
    window = config.duplicate_window
    if window < DUPLICATE_WINDOW_SECONDS:
        yield f"forgets event ids after {window:g} s: set its duplicate_window to 2m, or repeats may stay in it"
    if config.discard != DiscardPolicy.NEW and _bounded(config):
        yield "drops its oldest messages when it is full, read or not: set discard to new, or its bounds high enough"
    if config.retention == RetentionPolicy.INTEREST:
        yield "drops what no consumer is there for when it comes: set retention to limits, or make its consumers first"
    if config.persist_mode == PersistMode.ASYNC:
        yield "acknowledges before it has written: set persist_mode to default"
    if config.storage == StorageType.MEMORY:
        yield "is kept in memory and lost when NATS restarts: use file storage"
    if (config.num_replicas or 1) == 1:
        yield "has one copy: what is stored is lost with that server's disk; set its replicas to 3 in a cluster"
    if batches and not config.allow_batched:
        yield "does not allow batches: set allow_batched to have many events of one row under way at once"


def _bounded(config: StreamConfig) -> bool:
    bounds = (config.max_bytes, config.max_msgs, config.max_msgs_per_subject)
    return any(bound is not None and bound > 0 for bound in bounds)
