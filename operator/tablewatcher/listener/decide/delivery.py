"""What may be sent now, and how far delivery has come. Pure: a state machine over events, outcomes and the time.

Order (`backlog`, `lanes`): events leave as they were read; one whose key is under way, or waits, stands in that key's
line. Unordered, nobody waits for anybody.

Faults (`blame`): while the endpoint is at fault nothing is sent but one probe at a time, after a growing wait, and
nothing is given up. A fault of one event makes that event wait, and with it only the later events of its keys. When it
is exhausted it is put aside and they follow it, or everything stops at it, as the policy has it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Generic

from ...event import Event
from ...sinks.base import DELIVERED, Limits, Outcome, Verdict
from ...spec.model import DeliveryPolicy, OnExhausted, Ordering
from .again import Again
from .backlog import BARRIERS, Backlog, Parking
from .blame import Blame, Circuit
from .lanes import PARKED, Moved, bound_to
from .pages import P, PageLike, Pages
from .witness import Witness

__all__ = ["BARRIERS", "Delivery", "PageLike", "Parking"]


class Delivery(Generic[P]):
    """The delivery of one watcher. `chance` gives numbers in [0, 1), `age` the seconds since an event's capture.

    in_flight: events sent and not settled. again: events added by `release`. halted: the event at which everything has
    stopped. pages: what has been read and is not all delivered.
    """

    def __init__(
        self, policy: DeliveryPolicy, chance: Callable[[], float], age: Callable[[Event], float] = lambda _: 0.0
    ) -> None:
        self.in_flight = 0
        self.again = Again()
        self.halted: Parking | None = None
        self._policy = policy
        self._blame = Blame(policy, chance, age)
        self._backlog = Backlog(ordered=policy.ordering is Ordering.PER_KEY, alone=self._blame.alone)
        parks = policy.on_exhausted is OnExhausted.PARK and self._backlog.ordered
        self.witness = Witness(self._backlog, self._blame, parks=parks)
        self.pages: Pages[P] = Pages()
        self._given_up = 0
        self._ending = False

    @property
    def circuit(self) -> Circuit:
        """The endpoint's state."""
        return self._blame.circuit

    @property
    def refused(self) -> Outcome | None:
        """As `Blame.refused`."""
        return self._blame.refused()

    @property
    def aside(self) -> Sequence[Parking]:
        """Events to be put aside, in order, until `put_aside` tells that they are."""
        return self._backlog.aside

    @property
    def waiting(self) -> int:
        """Events taken in and not yet delivered or put aside."""
        return len(self.pages.outstanding) - self._given_up

    def unsettled(self, events: Iterable[Event]) -> int:
        """How many of these, which `release` has added, are not settled."""
        return len(self.again.open.intersection(events))

    @property
    def accepted(self) -> int:
        """How many events the endpoint has accepted."""
        return self._blame.accepted

    @property
    def is_quiet(self) -> bool:
        """Whether nothing is under way or might be: all that is left waits for a time, or for what does."""
        backlog, is_busy = self._backlog, bool(self.in_flight) or self.is_proving
        return not (is_busy or backlog.ready or (backlog.fresh and not backlog.is_barred(idle=True)))

    @property
    def is_proving(self) -> bool:
        """Whether events are tried one after the other, without a wait, to find out whose fault it is."""
        return self.witness.is_called

    @property
    def oldest(self) -> Event | None:
        """The first event that is not delivered."""
        return self.pages.oldest

    def offer(self, page: P) -> None:
        """Takes in the next page, in order of delivery."""
        self.pages.offer(page)
        self._backlog.fresh.extend(page.events)
        self.witness.forget_unread()

    def take(self, now: float, limits: Limits, *, full: bool = False) -> list[Event]:
        """The events of one call to make now, in flight until they are settled. full: no more will come until then."""
        circuit, backlog, limit = self._blame.circuit, self._backlog, limits.max_batch
        self.witness.is_full = full
        if self.is_proving:
            if self.in_flight or (circuit.failures and now < circuit.closed_until and not self.witness.is_hasty):
                return []
            call = backlog.call(1, limits)
            self.witness.take(call)
            if call.events:
                return self._begun(call.events)
        if circuit.failures:
            if now < circuit.closed_until or self.in_flight:
                return []
            limit = 1
        if backlog.later:
            backlog.wake(now)
        if limits.linger and not (circuit.failures or full or self._ending) and backlog.lingers(now, limits):
            return []
        call = backlog.call(limit, limits)
        if self.halted is not None:
            backlog.take_only(self.halted.event, call)
        elif circuit.failures % 2:
            # The probe after a failed one is another event, where there is one: that one may be the only bad one.
            backlog.take_distant(call, self._blame.chance())
            backlog.take_fresh(call, idle=not self.in_flight)
            backlog.take_ready(call)
        else:
            backlog.take_ready(call)
            backlog.take_fresh(call, idle=not self.in_flight)
        return self._begun(call.events)

    def settle(self, events: Sequence[Event], outcomes: Sequence[Outcome], now: float) -> None:
        """Notes what came of a call that `take` gave, one outcome an event."""
        self.in_flight -= len(events)
        self.again.land(events)
        if outcomes.count(DELIVERED) == len(events):
            self._delivered(events)
            if self._backlog.ordered:
                self._backlog.move(self._backlog.lanes.free(events))
            return
        pairs = list(zip(events, outcomes, strict=True))
        done = [event for event, outcome in pairs if outcome.verdict is Verdict.DELIVERED]
        failed = {event: outcome for event, outcome in pairs if outcome.verdict is not Verdict.DELIVERED}
        if done:
            self._delivered(done)
        due: dict[Event, float | None] = {}
        for event, outcome in failed.items():
            wait = self._blame.failed(event, outcome, now, company=len(events), first=not due and not done)
            due[event] = None if wait is None else now + wait
        recalled = [event for event in failed if event in self.again.recalled]
        if recalled:
            self._withdraw(recalled)
        elif failed and len(events) == 1:
            event, outcome = events[0], outcomes[0]
            if not self.witness.is_unread(event) and self._is_exhausted(event, outcome):
                self.witness.dismiss()
                return
            if self.witness.fail(event, outcome, due[event] or now):
                self._backlog.move(self._backlog.lanes.free(events))
                return
        back = [event for event in failed if event not in recalled]
        moved = self._backlog.lanes.put_back(events, back) if self._backlog.ordered else Moved(back, [])
        self._backlog.move(moved, due)
        if len(events) == len(back) == 1 and not (self.in_flight or self.is_proving or self._ending):
            self.witness.call(back[0], failed[back[0]])

    def looks_well(self) -> None:
        """The endpoint does by a look, after one by which it did not."""
        self._blame.looks_well()

    def wake_at(self) -> float | None:
        """When `take` may give something that it does not give now; None: only after an outcome or an offer."""
        backlog, circuit = self._backlog, self._blame.circuit
        if self.is_proving:
            return None if self.in_flight or self.witness.is_hasty else circuit.closed_until
        later = backlog.later[0][0] if backlog.later else None
        if circuit.failures:
            if self.in_flight:
                return None
            # A refused probe waits for its own time, which may be long after the circuit's.
            if self.halted is None and (backlog.ready or (backlog.fresh and not backlog.is_barred(idle=True))):
                return circuit.closed_until
            return None if later is None else max(circuit.closed_until, later)
        return min((time for time in (later, backlog.linger_until) if time is not None), default=None)

    def finished(self) -> tuple[P, int | None] | None:
        """As `Pages.finished`: how far all is delivered or put aside."""
        return self.pages.finished()

    def parked(self, keys: Iterable[str]) -> None:
        """Keys with events put aside by an earlier lease: what comes for them follows these."""
        if self._backlog.ordered:
            for key in keys:
                self._backlog.lanes.parked.add(key)
                self._backlog.lanes.owners.setdefault(key, PARKED)

    def put_aside(self, written: Iterable[Parking]) -> None:
        """These of `aside` are written down: they are settled."""
        events = {parking.event for parking in written}
        self.pages.outstanding.difference_update(events)
        # Also what had come back and went aside behind another, whenever its turn came.
        self.again.give_up(events)
        self._backlog.aside = [parking for parking in self._backlog.aside if parking.event not in events]

    def release(self, events: Sequence[Event], unparked: Iterable[str] = (), *, convicted: bool = False) -> None:
        """Adds events (in order) that go before all others of their keys; keys `unparked` have none aside any more.

        convicted: they were put aside before, and go back there as soon as they are refused.
        """
        backlog, free = self._backlog, set(unparked)
        # What is aside and held by a key that stays parked holds its other keys, and with them what is aside of those.
        free -= bound_to(backlog.lanes.parked - free, [parking.event for parking in backlog.aside])
        back = [parking.event for parking in backlog.aside if not free.isdisjoint(parking.event.lane_keys)]
        backlog.aside = [parking for parking in backlog.aside if free.isdisjoint(parking.event.lane_keys)]
        self.again.add(events, convicted=convicted)
        self.pages.outstanding.update(events)
        if backlog.ordered:
            backlog.move(backlog.lanes.release([*events, *back], free))
        else:
            backlog.ready.extend([*events, *back])

    def withdraw(self, events: Sequence[Event]) -> None:
        """Takes events back that `release` has added, into `again.withdrawn`; one that is under way, when it fails.

        The keys of those that had been put aside are so again, with what has come for them since.
        """
        back = self.again.recall(events)
        self._withdraw(back)
        self._backlog.withdraw(back)

    def keep_overtaken(self) -> int:
        """Gives up every event after the last one delivered; the number of those before it that still wait.

        For an end without repeats: once these are delivered too, what is delivered has no holes. Nothing may be in
        flight. What is given up stays undelivered for `finished`.
        """
        given_up = set(self.pages.tail())
        self.witness.dismiss()
        self._backlog.forget(given_up)
        self._given_up, self._ending = len(given_up), True
        return self.waiting

    def _delivered(self, events: Sequence[Event]) -> None:
        self._blame.delivered(events)
        self.pages.outstanding.difference_update(events)
        self._backlog.settled(events)
        guilty, passed = self.witness.accept(events)
        for each in guilty:
            if each in self._blame.records:  # not taken back meanwhile
                self._put_aside(each)
        self._backlog.follow(passed)
        if self.halted is not None and self.halted.event in events:
            self.halted = None
        if self.again.open:
            self.again.deliver(events)
        if released := self._backlog.lanes.released:
            released.difference_update(events)

    def _is_exhausted(self, event: Event, outcome: Outcome) -> bool:
        """Puts an event aside that has had its chances. False: it is to be sent again, perhaps as the only one."""
        # One that comes back has been found guilty already: it would wait for a proof for ever where it is quiet.
        refused_again = event in self.again.convicted and not outcome.endpoint
        if not refused_again and not self._blame.is_exhausted(event):
            return False
        if self._policy.on_exhausted is OnExhausted.HALT and not refused_again:
            self.halted = self._parking(event)
            return False
        self._put_aside(event)
        return True

    def _put_aside(self, event: Event) -> None:
        behind = self._backlog.put_aside(self._parking(event))
        for each in (event, *behind):
            self._blame.forget(each)
        self.again.give_up([event, *behind])

    def _parking(self, event: Event) -> Parking:
        record = self._blame.records[event]
        return Parking(event, record.failures, record.last)

    def _begun(self, events: list[Event]) -> list[Event]:
        self.in_flight += len(events)
        self.again.take(events)
        return events

    def _withdraw(self, events: Sequence[Event]) -> None:
        lanes = self._backlog.lanes
        for event in events:
            self._blame.forget(event)
            if event in self.again.convicted and self._backlog.ordered:
                lanes.keep(event.lane_keys)
            if self.halted is not None and self.halted.event is event:
                self.halted = None
        lanes.released.difference_update(events)
        self.pages.outstanding.difference_update(events)
        self.again.forget(events)
        self.again.withdrawn.update(events)
