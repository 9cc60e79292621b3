"""What a sink is, and what may come of a delivery. Pure: no event loop, clock or network here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from ..errors import Reason
from ..event import Event


class Verdict(Enum):
    """delivered: the sink has it. retry: try again later. rejected: the sink refuses this very event."""

    DELIVERED = "delivered"
    RETRY = "retry"
    REJECTED = "rejected"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one attempt.

    endpoint: the fault is the endpoint's rather than the event's (no connection, time-out, 5xx, 429).
    retry_after: seconds the endpoint asked us to wait, above 0; None where it named none. message: for logs and
    status; no secrets. too_long: what was sent is refused for its length alone. answered: this is what the endpoint has
    said to these very events: where it accepts others, it is about them, whatever it says of itself.
    """

    verdict: Verdict
    reason: Reason = Reason.ACKNOWLEDGED
    message: str = ""
    endpoint: bool = False
    retry_after: float | None = None
    too_long: bool = False
    answered: bool = False


DELIVERED = Outcome(Verdict.DELIVERED)


@dataclass(frozen=True, slots=True)
class Limits:
    """How a sink wants to be fed: events a call, calls at a time.

    ordered: the events of one call arrive in the order given, and after one that is not delivered no later one of the
    same key in that call is; such a call may hold several events of one key. max_bytes: of all bodies of a call, None:
    no bound (one event may always pass it). linger: seconds to wait for a call to fill.
    """

    max_batch: int
    concurrency: int
    ordered: bool = False
    max_bytes: int | None = None
    linger: float = 0.0


class Sink(Protocol):
    """A connection to one endpoint.

    `open` connects and checks that the promise can be kept (JetStream: a stream covers the subject; HTTP: the name
    resolves, TCP and TLS connect; no request is sent as a probe); it raises SinkError and may be called again after
    that. What is missing and may be made (a JetStream stream), it makes. `look` looks at the same things on a sink
    that is not open, makes nothing and leaves it so; it returns what `open` would make, a sentence each, and raises
    SinkError where `open` would, as far as that can be seen. `check` looks at the same things on an open sink,
    beside deliveries and without disturbing them, so that a fault shows without traffic; it raises SinkError, and
    the sink stays open. `deliver` returns one outcome per event, in order, and never raises for a fault of the
    endpoint; it returns within its own time-out even when the endpoint is dead. The caller never has events of one
    key in flight in two calls, and in one call only where `limits.ordered` allows it, so all other sinks may send
    the events of a call, and of several calls, in any order. `close` ends the connection and may be called in any
    state.
    """

    @property
    def limits(self) -> Limits: ...

    @property
    def timeout(self) -> float:
        """Seconds after which an attempt started now has certainly ended."""
        ...

    @property
    def notes(self) -> Sequence[str]:
        """What works and may still cost somebody events, as of the last `open` or `look`: for `plan` and `doctor`."""
        ...

    async def open(self) -> None: ...

    async def look(self) -> Sequence[str]: ...

    async def check(self) -> None: ...

    async def deliver(self, events: Sequence[Event]) -> Sequence[Outcome]: ...

    async def close(self) -> None: ...
