"""Runs one watcher under its lease: reads pages, sends what may be sent, commits the cursor. Owns concurrency only."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Sequence
from dataclasses import dataclass

import structlog

from ..errors import Reason, SinkError
from ..event import Event
from ..postgres.cursor_log import LEASE_SECONDS, CursorLog, Lease
from ..postgres.outbox import Outbox, Page, Position
from ..postgres.ring import TURN_SECONDS, Ring, may_resume
from ..postgres.wakeup import Wakeup
from ..sinks.base import Outcome, Sink, Verdict
from ..spec.model import WatcherSpec
from .delivery import Delivery
from .observe import Observer
from .pace import BUSY_STEP, Pace

log = structlog.get_logger("tablewatcher.listener")

COMMIT_SECONDS = 0.1
RENEW_SECONDS = 1.0
CHECK_SECONDS = 2.0
UPKEEP_SECONDS = 5.0
DRAIN_SECONDS = 5.0


class LeaseLost(Exception):
    """Another listener has taken over; nothing may be sent any more."""


@dataclass(slots=True)
class Channels:
    """What a relay works on, all of one watcher."""

    outbox: Outbox
    cursor: CursorLog
    ring: Ring
    sink: Sink
    wakeup: Wakeup
    channel: str


class Relay:
    """One watcher's stream from ring to sink while its lease holds."""

    def __init__(self, spec: WatcherSpec, lease: Lease, channels: Channels, observer: Observer) -> None:
        self._spec = spec
        self._epoch = lease.epoch
        self._committed = self._delivered = lease.position
        self._channels = channels
        self._observer = observer
        self._delivery: Delivery[Page] = Delivery(spec.delivery.backoff, random.random)
        self._pace = Pace()
        self._changed = asyncio.Event()
        self._room = asyncio.Event()
        if not spec.suspend:
            self._room.set()
        self._proof = asyncio.get_running_loop().time()
        self._calls: set[asyncio.Task[None]] = set()
        self._sink_open = False
        self._fault: BaseException | None = None
        self._newest_id = 0

    async def run(self, stop: asyncio.Event) -> None:
        """Until `stop` is set, then drained, committed and the lease released. Raises LeaseLost or DatabaseError."""
        async with contextlib.AsyncExitStack() as stack:
            stack.push_async_callback(self._abandon)
            tasks = [
                asyncio.create_task(step(), name=f"{self._spec.qualified_name} {step.__name__.strip('_')}")
                for step in (self._read, self._send, self._keep, self._check_sink, self._upkeep)
            ]
            stack.push_async_callback(_cancelled, tasks)
            stopper = asyncio.create_task(_until(stop))
            stack.push_async_callback(_cancelled, [stopper])
            done, _ = await asyncio.wait([*tasks, stopper], return_when=asyncio.FIRST_COMPLETED)
            for task in done - {stopper}:
                task.result()
            await self._drain(tasks)

    async def _drain(self, tasks: Sequence[asyncio.Task[None]]) -> None:
        """Ends so that nothing need be repeated: the cursor is one place, and what was overtaken goes out before it."""
        await _cancelled(tasks)
        await self._calls_ended()
        if not self._calls and self._delivery.keep_overtaken():
            steps = [asyncio.create_task(step()) for step in (self._send, self._keep, self._emptied)]
            try:
                await asyncio.wait(steps, timeout=DRAIN_SECONDS, return_when=asyncio.FIRST_COMPLETED)
            finally:
                await _cancelled(steps)
            await self._calls_ended()
        await self._channels.cursor.commit(self._epoch, self._position(), release=True)

    async def _calls_ended(self) -> None:
        if self._calls:
            await asyncio.wait(self._calls, timeout=self._channels.sink.timeout)

    async def _emptied(self) -> None:
        # Polled, not signalled: five seconds at the most, once in a listener's life.
        while self._delivery.waiting:  # noqa: ASYNC110
            await asyncio.sleep(0.005)

    async def _abandon(self) -> None:
        await _cancelled(list(self._calls))
        with contextlib.suppress(Exception):  # the connection may be what failed
            await self._channels.outbox.close()

    async def _read(self) -> None:
        position = self._committed
        woken = await self._channels.wakeup.subscribe(self._channels.channel)
        while True:
            await self._room.wait()
            page = await self._channels.outbox.next_page(position, self._pace.page)
            if page is None:
                await self._idle(woken)
                continue
            self._delivery.offer(page)
            position = page.position(None)
            if not page.events:
                continue  # the batch ended with the page before; that is known only now
            self._pace.read(len(page.events), sum(len(event.body) for event in page.events), self._now())
            self._observer.read(page.events)
            self._newest_id = max(self._newest_id, page.events[-1].ring_id)
            self._changed.set()
            if self._delivery.waiting >= self._pace.high_water:
                self._room.clear()
            elif page.last and self._pace.busy:
                if self._pace.armed(self._now()):
                    self._pace.disarm()
                    await self._channels.ring.disarm()
                await asyncio.sleep(BUSY_STEP)
            elif page.last and self._pace.armed(self._now()):
                # Whatever commits after this page's snapshot notifies us: no need to look before it does.
                await self._idle(woken)

    async def _idle(self, woken: asyncio.Event) -> None:
        """Waits for more: hot for a moment, then asleep until a notification or the next look."""
        if not self._pace.armed(self._now()):
            hot = self._pace.hot(self._now())
            if hot is not None:
                await asyncio.sleep(hot)
                return
            woken.clear()
            usable = await self._channels.wakeup.usable()
            if not usable:
                await asyncio.sleep(self._pace.blind)
                return
            await self._channels.ring.arm()
            self._pace.arm(self._now())
            return  # look once more: what was committed before the arming has notified nobody
        # Not wait_for: before Python 3.12 it may swallow a cancellation, and the listener would never end.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._pace.look):
                await woken.wait()
        woken.clear()

    async def _send(self) -> None:
        limits = self._channels.sink.limits
        while True:
            self._changed.clear()
            if self._fault is not None:
                raise self._fault
            while self._may_send() and len(self._calls) < limits.concurrency:
                events = self._delivery.take(self._now(), limits.max_batch)
                if not events:
                    break
                call = asyncio.create_task(self._deliver(events))
                self._calls.add(call)
                call.add_done_callback(self._ended)
            wake_at = self._delivery.wake_at()
            wait = RENEW_SECONDS if wake_at is None else min(max(wake_at - self._now(), 0.001), RENEW_SECONDS)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self._changed.wait()

    def _ended(self, call: asyncio.Task[None]) -> None:
        self._calls.discard(call)
        if not call.cancelled() and (fault := call.exception()) is not None:
            # Its events would stay in flight for ever: end the relay, and start again from the cursor.
            self._fault = fault
            self._changed.set()

    def _may_send(self) -> bool:
        fresh = self._now() - self._proof < LEASE_SECONDS
        return fresh and self._sink_open and not self._spec.suspend

    async def _deliver(self, events: Sequence[Event]) -> None:
        started = self._now()
        try:
            outcomes = await self._channels.sink.deliver(events)
        except Exception as error:
            log.exception("unexpected fault of the sink", watcher=self._spec.qualified_name)
            fault = Outcome(Verdict.RETRY, Reason.SINK_UNREACHABLE, f"unexpected {type(error).__name__}", endpoint=True)
            outcomes = [fault] * len(events)
        now = self._now()
        for event, outcome in zip(events, outcomes, strict=True):
            self._delivery.settle(event, outcome, now)
        self._observer.settled(events, outcomes, now - started)
        self._say(outcomes)
        if self._delivery.waiting < self._pace.high_water // 2 and not self._spec.suspend:
            self._room.set()
        call = asyncio.current_task()
        if call is not None:
            self._calls.discard(call)  # before the sender looks again, not after this task has ended
        self._changed.set()

    def _say(self, outcomes: Sequence[Outcome]) -> None:
        circuit = self._delivery.circuit
        if circuit.failures >= 2 and circuit.last is not None:
            self._observer.failing(circuit.last.reason, circuit.last.message)
        elif any(outcome.verdict is Verdict.DELIVERED for outcome in outcomes):
            self._observer.forwarding()

    async def _keep(self) -> None:
        """Commits the cursor while there is news, and proves the lease once a second in any case."""
        while True:
            await asyncio.sleep(COMMIT_SECONDS)
            position = self._position()
            if position == self._committed and self._now() - self._proof < RENEW_SECONDS:
                continue
            asked = self._now()
            # While rows come fast, the writers' own commits flush the WAL, and often.
            if not await self._channels.cursor.commit(self._epoch, position, durable=not self._pace.busy):
                raise LeaseLost
            self._committed, self._proof = position, asked
            self._changed.set()

    def _position(self) -> Position:
        """How far delivery has come by now."""
        finished = self._delivery.finished()
        if finished is not None:
            page, undelivered = finished
            self._delivered = page.position(undelivered)
        return self._delivered

    async def _check_sink(self) -> None:
        """Opens the sink, and looks at it every now and then: a fault must show without traffic."""
        sink = self._channels.sink
        while True:
            try:
                await (sink.check() if self._sink_open else sink.open())
            except SinkError as error:
                self._observer.failing(error.reason, error.message)
            else:
                if not self._sink_open:
                    self._sink_open = True
                    self._changed.set()
                if self._delivery.circuit.failures < 2:
                    self._observer.forwarding()
            await self._observer.publish()
            await asyncio.sleep(CHECK_SECONDS)

    async def _upkeep(self) -> None:
        ring, cursor = self._channels.ring, self._channels.cursor
        turned = self._now()
        while True:
            gauge = await ring.gauge()
            self._observer.ring(gauge, self._delivery.oldest, self._newest_id)
            full = gauge.stopped_at > 0 or await ring.is_turn_due(cursor.slot)
            if full or self._now() - turned > TURN_SECONDS:
                # Delivered rows are kept for a while, but never at the price of capture.
                keep = 0 if full else TURN_SECONDS
                slot = await ring.turn(cursor.slot, self._committed.prev, keep_seconds=keep)
                if slot is not None:
                    turned, cursor.slot = self._now(), slot
                    if not await cursor.commit(self._epoch, self._committed):
                        raise LeaseLost
            if may_resume(gauge):
                await ring.resume_capture(cursor.slot, gauge.stopped_at)
            await self._observer.publish()
            await asyncio.sleep(UPKEEP_SECONDS)

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()


async def _until(event: asyncio.Event) -> None:
    await event.wait()


async def _cancelled(tasks: Sequence[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
