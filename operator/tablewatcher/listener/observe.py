"""What a listener says of one watcher: metrics as it goes, and a row in the database when what it says changes."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Sequence
from functools import cache

import structlog

from ..errors import DatabaseError, Reason
from ..event import ACTION_NAMES, Event
from ..metrics import Metrics
from ..postgres.database import Progress
from ..postgres.parked import Held
from ..postgres.ring.cursor_log import LEASE_SECONDS
from ..postgres.ring.position import Rest
from ..postgres.ring.unread import Unread
from ..postgres.ring.upkeep import Gauge
from ..sinks.base import DELIVERED, Outcome, Verdict
from ..spec.model import NatsSink, WatcherSpec
from .decide.behind import Behind

_REFUSED = "an event is refused and tried again, and later ones of its row wait behind it"
_SILENT = f"the database has not answered for {LEASE_SECONDS:.0f} s, so nothing is sent: check the server"

log = structlog.get_logger("tablewatcher.listener")


class Observer:
    """The voice of one watcher in one process. `report` writes its row; None while there is no lease."""

    def __init__(self, spec: WatcherSpec, metrics: Metrics, holder: str) -> None:
        self._spec = spec
        self._metrics = metrics
        self._holder = holder
        self._labels = (spec.namespace, spec.name)
        self._sink = "nats" if isinstance(spec.sink, NatsSink) else "http"
        # Counters by their last label: to look one up by all its labels costs more than to count.
        sink, labels = self._sink, self._labels
        self._attempts = cache(lambda verdict: metrics.delivery_attempts.labels(*labels, sink, verdict))
        self._delivered = cache(lambda op: metrics.events_delivered.labels(*labels, ACTION_NAMES[op], sink))
        metrics.gaps.labels(*labels)  # from 0 on: a series that begins with the first gap never increases
        metrics.listener_connected.labels(*labels).set(0)  # the first connection may take long, or never come about
        self._log = log.bind(watcher=spec.qualified_name)
        self._stopped = self._drifted = ""
        self._ended_by: DatabaseError | None = None
        self._answers = True
        self._newest_at = 0.0
        self.behind = Behind()
        self._sink_says = (False, Reason.RECONCILING, "starting")
        self._held, self._full = Held(), False
        self._said: tuple[int, bool, Reason, str] | None = None
        self._epoch, self._way, self._refused = 0, "", ""
        self._write: Callable[[Progress], Awaitable[None]] | None = None
        self.ready = False
        self.reason = Reason.RECONCILING
        self.message = "starting"

    def leased(self, epoch: int, write: Callable[[Progress], Awaitable[None]], *, polls: bool = False) -> None:
        """From now on this process speaks for the watcher. polls: nobody can wake it."""
        self._epoch, self._write, self._said, self._answers = epoch, write, None, True
        self._way = "by polling, since the connection leads through a pooler by transaction" if polls else ""
        self._set(False, Reason.RECONCILING, "connecting to the sink")

    def unleased(self, reason: Reason, message: str, *, ready: bool = False) -> None:
        """From now on it does not: a fault, or another listener is the active one."""
        self._write, self._answers = None, True
        self._stopped = self._drifted = self._refused = ""  # no longer ours to know
        if reason is Reason.RECONCILING:
            self._ended_by = None
        # What a watcher waits for has no reason of its own: else it would begin with a wait that no log tells.
        self._set(ready, reason, message, anew=reason is Reason.RECONCILING and message != self.message)
        self._metrics.listener_connected.labels(*self._labels).set(0)
        if reason is Reason.RECONCILING:
            # Another has the lease, or the ring is gone: an age that stood still would alert for as long as we run.
            self._metrics.forget_ring(self._labels)

    async def ended(self, error: DatabaseError) -> None:
        """Delivery ends with `error`. Where the database answers, that is written down: the last word was another."""
        if error.reason not in (Reason.RECONCILING, Reason.DATABASE_UNREACHABLE):
            self._ended_by = error
            self._set(*self._sink_says)
            await self.publish()

    async def begins_again(self) -> None:
        """Says at once what delivery ended with before, until something can be read."""
        if self._ended_by is not None:
            await self.publish()

    def database(self, *, answers: bool) -> None:
        """Whether it proves the lease: while it does not, nothing is sent, and nobody else has said why."""
        if answers == self._answers:
            return
        self._answers = answers
        self._set(*self._sink_says)
        if self.reason in (Reason.FORWARDING, Reason.EVENTS_PARKED):
            self.forwarding()  # what has become known of events meanwhile

    def reads(self) -> None:
        """The ring can be read."""
        if self._ended_by is not None:
            self._ended_by = None
            self._set(*self._sink_says)

    def forwarding(self) -> None:
        """The sink takes events."""
        if self._spec.suspend:
            self._set(True, Reason.SUSPENDED, "delivery waits; changes are captured and kept")
        elif self._full:
            self._set(
                False,
                Reason.EVENTS_PARKED,
                "parked events fill half of spec.delivery.overflow.maxBytes, so nothing more is parked: replay or skip"
                " what `tablewatcher parked list` shows, or raise the bound",
            )
        elif self._held.events:
            # Without their number: it would be written to the database and into a status each time that it changes.
            self._set(
                True,
                Reason.EVENTS_PARKED,
                "events are put aside, all others are forwarded; `tablewatcher parked list` shows them",
            )
        else:
            self._set(True, Reason.FORWARDING, self._refused or self._way)

    def refused(self, outcome: Outcome | None) -> None:
        """What the sink says of an event that it has refused more than once and that is tried again; None: no such."""
        told, self._refused = self._refused, f"{_REFUSED}: {outcome.message}" if outcome else ""
        if told == self._refused:
            return
        if outcome is not None:
            self._log.warning(self._refused, reason=str(outcome.reason))
        if self.reason is Reason.FORWARDING:
            self.forwarding()

    def parked(self, held: Held, *, full: bool) -> None:
        """So much is put aside. full: there is no room for more."""
        self._held, self._full = held, full
        self._metrics.events_parked.labels(*self._labels).set(held.events)
        if self.reason in (Reason.FORWARDING, Reason.EVENTS_PARKED):
            self.forwarding()

    def failing(self, reason: Reason, message: str) -> None:
        """The sink does not; nothing is lost."""
        self._set(False, reason, message)

    def read(self, events: Sequence[Event], rest: Rest | None) -> None:
        """Events have been read from the ring. rest: what their batch has behind them."""
        for op, count in Counter(event.op for event in events).items():
            self._metrics.events_captured.labels(*self._labels, ACTION_NAMES[op]).inc(count)
            if op == "g":
                self._metrics.gaps.labels(*self._labels).inc(count)
                # A count that begins anew with the process, and has a gap at its first scrape, does not increase.
                self._metrics.last_gap.labels(*self._labels).set_to_current_time()
        self.behind.read(events, rest)
        self._newest_at = events[-1].captured_at

    def settled(
        self, events: Sequence[Event], outcomes: Sequence[Outcome], seconds: float, repeats: Collection[Event] = ()
    ) -> None:
        """A call to the sink has ended. repeats: events that had been delivered, and are sent again on request."""
        metrics, now = self._metrics, time.time()
        metrics.delivery_duration.observe(self._labels, (seconds,))
        if outcomes.count(DELIVERED) == len(events):
            delivered, failed = events, Counter[str]()
        else:
            pairs = list(zip(events, outcomes, strict=True))
            delivered = [event for event, outcome in pairs if outcome.verdict is Verdict.DELIVERED]
            failed = Counter(outcome.verdict.value for outcome in outcomes if outcome.verdict is not Verdict.DELIVERED)
        if delivered:
            self.behind.delivered += len(delivered)
            # How old somebody wants events once more is nobody's delay, and no alert's business.
            first = [event for event in delivered if event not in repeats] if repeats else delivered
            metrics.event_latency.observe(self._labels, [now - event.captured_at for event in first])
            self._attempts(Verdict.DELIVERED.value).inc(len(delivered))
            ops = [event.op for event in delivered]
            for op in set(ops):
                self._delivered(op).inc(ops.count(op))
        for verdict, number in failed.items():
            self._attempts(verdict).inc(number)

    def ring(
        self,
        gauge: Gauge,
        oldest: Event | None,
        newest_read: int,
        *,
        room: int,
        held: str,
        looks: bool = True,
        unread: Unread | None = None,
    ) -> None:
        """The ring's size, what was skipped, and whether capture has stopped.

        room: bytes at which it does. held: who keeps the ring from being emptied. looks: whether the ring is looked at
        as soon as something is committed. unread: what waits, where nobody reads.
        """
        metrics = self._metrics
        self.behind.drawn(gauge.last_id)
        metrics.ring_bytes.labels(*self._labels).set(gauge.bytes)
        metrics.ring_limit.labels(*self._labels).set(room)
        if unread is None:
            # After a look that found nothing, ids beyond are of who was rolled back, or has not committed.
            nothing = not newest_read or (looks and self.behind.seen_all)
            waits = (self.behind.held if oldest else 0) + (0 if nothing else self.behind.unread)
            # Of a backlog, all that is read may be delivered for a moment: what follows is about as old.
            since = oldest.captured_at if oldest else self._newest_at if self.behind.more else None
            unread = Unread(waits, max(time.time() - since, 0.0) if since is not None else 0.0)
        metrics.ring_rows.labels(*self._labels).set(unread.events)
        metrics.ring_oldest_age.labels(*self._labels).set(unread.oldest_seconds)
        metrics.skipped(self._labels, gauge.skipped)
        self._stopped = _stopped(held, self._held) if gauge.stopped_at > 0 else ""
        self._again()

    def drift(self, fault: str) -> None:
        """What is wrong with trigger or function; "" where nothing is."""
        self._drifted = fault
        self._again()

    async def publish(self) -> None:
        """Writes the row if what it says has changed."""
        says = (self._spec.generation, self.ready, self.reason, self.message)
        if self._write is not None and self._answers and says != self._said:
            refused = bool(self._refused) and self.message == self._refused
            await self._write(Progress(self._epoch, self._holder, says[0], says[1], str(says[2]), says[3], refused))
            self._said = says

    def _again(self) -> None:
        """Says at once what is wrong with capture; that it is well again is said with the next word of the sink."""
        self._metrics.capture_active.labels(*self._labels).set(0 if self._drifted or self._stopped else 1)
        if self._drifted or self._stopped:
            self._set(*self._sink_says)

    def _set(self, ready: bool, reason: Reason, message: str, *, anew: bool = False) -> None:
        self._sink_says = (ready, reason, message)
        fault = self._drifted or self._stopped
        if not self._answers:
            ready, reason, message = False, Reason.DATABASE_UNREACHABLE, _SILENT
        elif self._ended_by is not None:
            ready, reason, message = False, self._ended_by.reason, self._ended_by.message
        elif fault:
            # Before whatever the sink says: changes are missed now.
            message = fault if ready else f"{fault}; and the sink: {message}"
            ready, reason = False, Reason.TRIGGERS_DRIFTED if self._drifted else Reason.CAPTURE_STOPPED
        if anew or (ready, reason) != (self.ready, self.reason):
            (self._log.info if ready else self._log.warning)(message or "forwarding", reason=str(reason))
        self.ready, self.reason, self.message = ready, reason, message
        # Where there is no room for more that is refused, all else goes on.
        takes = self._sink_says[0] or self._sink_says[1] is Reason.EVENTS_PARKED
        connected = takes and self._write is not None and self._answers
        self._metrics.listener_connected.labels(*self._labels).set(1 if connected else 0)


def _stopped(holder: str, parked: Held) -> str:
    message = "the ring is full: changes are not captured until half of it is delivered"
    if parked.events:
        message += f", and parked events take {parked.bytes >> 10} KiB of its room (`tablewatcher parked list`)"
    return f"{message}; {holder} keeps it from being emptied" if holder else message
