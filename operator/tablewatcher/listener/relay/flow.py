"""What the parts of one relay share: what it works on, what is under way, and the signals between them."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ...event import Event
from ...naming import WatcherNames
from ...postgres.drift import Drift
from ...postgres.parked import Parked
from ...postgres.requests import OpenRequests, Requests
from ...postgres.ring.arming import Arming
from ...postgres.ring.cursor_log import LEASE_SECONDS, CursorLog, Lease
from ...postgres.ring.gaps import Gaps
from ...postgres.ring.history import History
from ...postgres.ring.idle import IdleRings
from ...postgres.ring.outbox import Outbox
from ...postgres.ring.position import Page
from ...postgres.ring.proofs import Proofs
from ...postgres.ring.upkeep import Ring
from ...postgres.ring.wakeup import NoWakeup, Wakeup
from ...sinks.base import Sink
from ...spec.model import WatcherSpec
from ..decide.delivery import Delivery
from ..decide.pace import Pace
from ..observe import Observer


@dataclass(slots=True)
class Channels:
    """What a relay works on, all of one watcher."""

    outbox: Outbox
    cursor: CursorLog
    proofs: Proofs
    ring: Ring
    gaps: Gaps
    drift: Drift
    sink: Sink
    wakeup: Wakeup | NoWakeup
    idle: IdleRings
    arming: Arming
    names: WatcherNames
    parked: Parked
    history: History
    requests: Requests
    open_requests: OpenRequests


class Flow:
    """One watcher's stream while its lease holds.

    changed: there may be something to send; room: there is room for another page. proof: when the lease was last
    proved, on the event loop's clock. newest_id: the highest ring id read. reading: a page is on its way; replaying:
    what was delivered is sent again, and live delivery waits. on_read: who else hears of each page that is read.
    """

    def __init__(self, spec: WatcherSpec, lease: Lease, channels: Channels, observer: Observer) -> None:
        self._loop = asyncio.get_running_loop()
        self.spec = spec
        self.lease = lease
        self.channels = channels
        self.observer = observer
        self.delivery: Delivery[Page] = Delivery(spec.delivery, random.random, _age)
        self.pace = Pace()
        self.changed = asyncio.Event()
        self.room = asyncio.Event()
        if not spec.suspend:
            self.room.set()
        # Whoever is asked in between may take long to answer.
        self.proof = lease.asked
        self.newest_id = 0
        self.reading = False
        self.replaying = False
        self.on_read: set[Callable[[Sequence[Event]], None]] = set()

    @property
    def leased(self) -> bool:
        """Whether a send may start: the lease was proved lately enough."""
        return self.now() - self.proof < LEASE_SECONDS

    def make_room(self) -> None:
        """Lets reading go on, if enough of what was read is gone."""
        if self.delivery.waiting < self.pace.high_water // 2 and not (self.spec.suspend or self.replaying):
            self.room.set()

    def now(self) -> float:
        """Seconds on the event loop's clock."""
        return self._loop.time()


def _age(event: Event) -> float:
    return time.time() - event.captured_at
