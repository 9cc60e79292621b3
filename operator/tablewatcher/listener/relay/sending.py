"""The sending part of a relay: what may be sent goes to the sink, what comes of it goes to the delivery."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence

import structlog

from ...errors import Reason, SinkError, times
from ...event import Event
from ...sinks.base import Outcome, Verdict
from .flow import Flow

log = structlog.get_logger("tablewatcher.listener")

CHECK_SECONDS = 2.0
LONGEST_WAIT = 1.0


class Sending:
    """Sends one watcher's events, never more calls at a time than the sink wants."""

    def __init__(self, flow: Flow) -> None:
        self._flow = flow
        self._sink = flow.channels.sink
        self._calls: set[asyncio.Task[None]] = set()
        self._open = False
        self._running = False
        self._fault: BaseException | None = None

    @property
    def busy(self) -> bool:
        """Whether a call to the sink has not come back."""
        return bool(self._calls)

    async def run(self) -> None:
        """Until cancelled; raises what a call to the sink must not have raised."""
        self._running = True
        try:
            while True:
                await self._send()
        finally:
            self._running = False  # calls under way are the last ones

    async def _send(self) -> None:
        """Begins what calls may begin, and waits until there may be more."""
        flow = self._flow
        flow.changed.clear()
        if self._fault is not None:
            raise self._fault
        flow.observer.database(answers=flow.leased)
        # Limits may change when the sink has been opened: they are asked for anew.
        while len(self._calls) < self._sink.limits.concurrency and (events := self._next()):
            call = asyncio.create_task(self._deliver(events))
            self._calls.add(call)
            call.add_done_callback(self._ended)
        # Without the lease nothing goes before that is proved again, which wakes us.
        wake_at = flow.delivery.wake_at() if flow.leased else None
        wait = LONGEST_WAIT if wake_at is None else min(max(wake_at - flow.now(), 0.001), LONGEST_WAIT)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait):
                await flow.changed.wait()

    async def check(self) -> None:
        """Opens the sink, and looks at it every now and then: a fault must show without traffic. Until cancelled."""
        flow, sink = self._flow, self._sink
        looked_well = True
        while True:
            try:
                await (sink.check() if self._open else sink.open())
            except SinkError as error:
                looked_well = False
                flow.observer.failing(error.reason, error.message)
            else:
                if not looked_well:
                    looked_well = True
                    flow.delivery.looks_well()
                    flow.changed.set()
                if not self._open:
                    self._open = True
                    flow.changed.set()
                flow.observer.refused(flow.delivery.refused)
                self._say(well=True)
            await flow.observer.publish()
            await asyncio.sleep(CHECK_SECONDS)

    async def ended(self) -> None:
        """Waits for the calls under way, as long as the sink may take."""
        if self._calls:
            await asyncio.wait(self._calls, timeout=self._sink.timeout)

    async def abandon(self) -> None:
        """Cancels the calls under way."""
        calls = list(self._calls)
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)

    def _ended(self, call: asyncio.Task[None]) -> None:
        self._calls.discard(call)
        if not call.cancelled() and (fault := call.exception()) is not None:
            # Its events would stay in flight for ever: end the relay, and start again from the cursor.
            self._fault = fault
        self._flow.changed.set()

    def _next(self) -> Sequence[Event]:
        """The events of the next call; none where there are none, or nothing may be sent."""
        flow = self._flow
        if not (flow.leased and self._open) or flow.spec.suspend:
            return ()
        return flow.delivery.take(flow.now(), self._sink.limits, full=not flow.room.is_set())

    async def _deliver(self, events: Sequence[Event]) -> None:
        """One call after the other for as long as there is something to send: a task each would cost as much again."""
        flow = self._flow
        while events:
            started = flow.now()
            outcomes = await self._outcomes(events)
            now = flow.now()
            repeats = flow.delivery.again.repeats(events)
            flow.delivery.settle(events, outcomes, now)
            flow.observer.settled(events, outcomes, now - started, repeats)
            self._say(well=any(outcome.verdict is Verdict.DELIVERED for outcome in outcomes))
            flow.make_room()
            concurrency = self._sink.limits.concurrency
            events = self._next() if self._running and len(self._calls) <= concurrency else ()
            if len(self._calls) < concurrency:
                flow.changed.set()  # what has become free may be more than one call takes

    async def _outcomes(self, events: Sequence[Event]) -> Sequence[Outcome]:
        try:
            return await self._sink.deliver(events)
        except Exception as error:
            log.exception("unexpected fault of the sink", watcher=self._flow.spec.qualified_name)
            fault = Outcome(Verdict.RETRY, Reason.SINK_UNREACHABLE, f"unexpected {type(error).__name__}", endpoint=True)
            return [fault] * len(events)

    def _say(self, *, well: bool) -> None:
        """Tells what delivery has come to. well: the sink has just taken something, or would."""
        delivery, observer = self._flow.delivery, self._flow.observer
        if delivery.halted is not None:
            event, outcome = delivery.halted.event, delivery.halted.outcome
            observer.failing(
                Reason.MANUAL_ACTION_REQUIRED,
                f"stopped at event {event.event_id} of key {event.key}, refused {times(delivery.halted.attempts)}"
                f" ({outcome.message if outcome else ''}); make the endpoint accept it, or set"
                " spec.delivery.onExhausted: Park to have it put aside (`tablewatcher parked list`)",
            )
        elif delivery.circuit.failures >= 2 and delivery.circuit.last is not None:
            observer.failing(delivery.circuit.last.reason, delivery.circuit.last.message)
        elif well and observer.reason is not Reason.FORWARDING:
            observer.forwarding()
