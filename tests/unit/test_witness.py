"""What is sent out of its turn to judge what fills the memory, and what never is: it would overtake something."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tablewatcher.errors import Reason
from tablewatcher.event import Event
from tablewatcher.listener.decide.delivery import Delivery
from tablewatcher.listener.decide.witness import REMEMBERED_BYTES
from tablewatcher.sinks.base import Outcome
from tablewatcher.spec.model import DeliveryPolicy, OnExhausted

from .deliveries import FAULT, REFUSED, Endpoint, Page, aside, delivery, event, page


class Ring:
    """What is not read yet of a watcher whose memory is full. A look goes over all of it, from the first on."""

    def __init__(self, machine: Delivery[Page], endpoint: Endpoint, *unread: Event) -> None:
        self.machine, self.endpoint, self.unread = machine, endpoint, unread
        endpoint.full = True

    def look(self) -> None:
        witness, endpoint = self.machine.witness, self.endpoint
        if witness.is_missing:
            walk = witness.walk()
            found = walk.find([replace(each) for each in self.unread], endpoint.now) or walk.last()
            if found or walk.spare:
                witness.call_unread(found or walk.spare, walk if found else None)
                assert not self.machine.is_quiet
        endpoint.run(1)
        while self.machine.is_proving:
            endpoint.run(1)

    def look_until_judged(self, looks: int = 100) -> None:
        while not self.machine.aside:
            assert looks, "nobody is judged"
            looks -= 1
            self.look()

    def read_on(self) -> None:
        """There is room again."""
        self.machine.put_aside(list(self.machine.aside))
        self.endpoint.full = False
        self.machine.offer(Page(self.unread))
        self.endpoint.run(100)


def full(*, attempts: int = 3, on_exhausted: OnExhausted = OnExhausted.PARK) -> Delivery[Page]:
    """Of a watcher whose memory holds nothing but one row's events, 1 to 3."""
    machine = delivery(attempts=attempts, on_exhausted=on_exhausted)
    machine.offer(page("a", "a", "a"))
    return machine


def test_a_witness_is_missing_where_all_that_was_read_waits_for_what_has_failed() -> None:
    machine = delivery(attempts=3)
    endpoint = Endpoint(machine, a=REFUSED)
    machine.offer(page("a", "a", "b"))
    assert not machine.witness.is_missing
    endpoint.run(1)
    assert not machine.witness.is_missing, "b is still to be sent"
    endpoint.run(1)
    assert not machine.witness.is_missing, "b was accepted"
    endpoint.run(1)
    assert machine.witness.is_missing
    further = [event(4, "a"), event(5, "c", old_key="a"), event(6, "c"), event(7, "d")]
    walk = machine.witness.walk()
    assert walk.find(further, 0.0) is further[3], "5 of c comes before 6"
    assert walk.find([event(8, "c"), event(9, "d")], 0.0) is None
    machine.witness.call_unread(further[3], walk)
    endpoint.run(1)
    assert (endpoint.accepted, machine.witness.is_missing) == ([3, 7], False)


def test_no_witness_is_missing_where_the_endpoint_speaks_of_itself() -> None:
    machine = delivery(attempts=3)
    machine.offer(page("a"))
    Endpoint(machine, a=replace(REFUSED, reason=Reason.SINK_AUTH_FAILED, endpoint=True)).run(3)
    assert not machine.witness.is_missing


@pytest.mark.parametrize("outcome", [REFUSED, FAULT])
def test_a_gap_that_is_not_read_yet_judges_what_keeps_it_from_being_read(outcome: Outcome) -> None:
    """The memory is full of one row's events, and right behind its last ones nothing may pass."""
    machine = full()
    endpoint = Endpoint(machine, a=outcome)
    ring = Ring(machine, endpoint, event(4, "a"), event(5, "_", op="g"), event(6, "b"))
    ring.look_until_judged()
    assert endpoint.attempts == [[1], [1], [1], [1], [5]], "directly behind one more attempt"
    assert aside(machine) == [1, 2, 3]
    ring.read_on()
    assert aside(machine) == [4]
    assert endpoint.accepted == [5, 5, 6], "it comes once more in its turn"


def test_a_gap_that_is_not_read_yet_goes_behind_nothing_that_may_be_accepted() -> None:
    machine = full(attempts=5)
    endpoint = Endpoint(machine, a=REFUSED)
    ring = Ring(machine, endpoint, event(4, "a"), event(5, "b"), event(6, "_", op="g"), event(7, "c"))
    ring.look_until_judged()
    assert set(endpoint.accepted) == {5}
    assert len(endpoint.accepted) <= 4, "as often as it takes to judge, and no more"
    ring.read_on()
    assert endpoint.accepted[-3:] == [5, 6, 7]


def test_what_was_refused_before_it_was_read_is_told_no_more_once_it_comes_in_its_turn() -> None:
    machine = full()
    endpoint = Endpoint(machine, a=REFUSED, b=REFUSED)
    ring = Ring(machine, endpoint, event(4, "b"), event(5, "c"))
    for _ in range(2):
        ring.look()
    ring.look_until_judged()
    assert machine.refused is REFUSED
    endpoint.bad = {"a": REFUSED}
    ring.read_on()
    assert machine.refused is None


def test_what_fails_before_it_is_read_is_judged_too() -> None:
    """A bad row and a bad gap, neither of them read: what stands behind both judges all."""
    machine = full()
    endpoint = Endpoint(machine, a=REFUSED, b=REFUSED, _=REFUSED)
    unread = [event(4, "b"), event(5, "a"), event(6, "_", op="g"), event(7, "b"), event(8, "c"), event(9, "_", op="t")]
    ring = Ring(machine, endpoint, *unread)
    ring.look_until_judged()
    assert endpoint.attempts[-4:] == [[1], [4], [6], [8]]
    assert aside(machine) == [1, 2, 3, 4, 6]
    ring.read_on()
    assert aside(machine) == [4, 5, 6, 7, 9], "what was passed follows"
    assert endpoint.accepted == [8, 8]


def test_a_bad_gap_at_the_end_of_what_is_read_is_judged_by_what_is_not() -> None:
    machine = full()
    machine.offer(Page((event(4, "_", op="g"),)))
    endpoint = Endpoint(machine, a=REFUSED, _=REFUSED)
    ring = Ring(machine, endpoint, event(5, "a"), event(6, "b"))
    ring.look_until_judged()
    assert endpoint.accepted == [6]
    assert aside(machine) == [1, 2, 3, 4]
    ring.read_on()
    assert aside(machine) == [5]


def test_an_endpoint_that_refuses_everything_parks_nothing() -> None:
    machine = full(attempts=2)
    endpoint = Endpoint(machine, **dict.fromkeys("abc_", REFUSED))
    unread = [event(4, "b"), event(5, "_", op="g"), event(6, "c")]
    ring = Ring(machine, endpoint, *unread)
    for _ in range(100):
        ring.look()
    assert machine.aside == []
    assert [6] in endpoint.attempts
    endpoint.bad = {}
    for _ in range(5):
        ring.look()
    ring.read_on()
    assert list(dict.fromkeys(endpoint.accepted)) == [1, 2, 3, 4, 5, 6]


def test_what_fails_before_it_is_read_waits_before_it_is_tried_again() -> None:
    machine = full(attempts=1000)
    endpoint = Endpoint(machine, a=REFUSED, b=REFUSED)
    ring = Ring(machine, endpoint, event(4, "b"))
    for _ in range(20):
        ring.look()
    assert 8 <= endpoint.attempts.count([4]) <= 20
    endpoint.now = 1e6
    began = endpoint.attempts.count([4])
    for _ in range(5):
        witness = machine.witness
        if witness.is_missing and (found := (walk := witness.walk()).find([event(4, "b")], endpoint.now)):
            witness.call_unread(found, walk)
            while machine.is_proving:
                endpoint.run(1)
    assert endpoint.attempts.count([4]) <= began + 1, "five looks in no time"


def test_what_is_read_and_what_is_not_are_probes_in_turns() -> None:
    """Or the first would never be tried again where there is enough of the other."""
    machine = full(attempts=1000)
    endpoint = Endpoint(machine, a=FAULT, b=FAULT)
    for _ in range(40):
        if machine.witness.is_missing:
            machine.witness.call_unread(event(4, "b"), None)
        endpoint.run(1)
    assert endpoint.attempts.count([1]) >= 15
    assert endpoint.attempts.count([4]) >= 15


def test_halt_stops_at_nothing_that_is_not_read_yet() -> None:
    """It could not be tried again there: nothing would be sent any more."""
    policy = DeliveryPolicy(max_attempts=1000, max_age_seconds=100, on_exhausted=OnExhausted.HALT)
    machine: Delivery[Page] = Delivery(policy, lambda: 0.5, lambda event: 1e9 if event.key == "b" else 0.0)
    machine.offer(page("a", "a", "a"))
    endpoint = Endpoint(machine, a=REFUSED, b=REFUSED)
    ring = Ring(machine, endpoint, event(4, "b"), event(5, "c"))
    for _ in range(40):
        ring.look()
    assert machine.halted is None
    assert endpoint.attempts.count([4]) >= 2


def test_a_walk_that_began_before_something_was_accepted_finds_no_gap() -> None:
    machine = full()
    endpoint = Endpoint(machine, a=REFUSED)
    endpoint.run(5)
    walk = machine.witness.walk()
    machine.release([event(90, "x")])
    endpoint.run(5)
    gap = [event(4, "_", op="g")]
    assert endpoint.accepted == [90]
    assert walk.find(gap, endpoint.now) is None
    assert machine.witness.walk().find(gap, endpoint.now) is gap[0]


def test_any_number_of_bad_rows_before_an_unread_gap_is_judged_by_it() -> None:
    machine, bad = full(attempts=3), [f"k{nth}" for nth in range(300)]
    endpoint = Endpoint(machine, **dict.fromkeys(["a", *bad], REFUSED))
    ring = Ring(machine, endpoint, *page(*bad, start=4).events, event(999, "_", op="g"))
    ring.look_until_judged(5000)
    assert endpoint.accepted == [999]
    ring.read_on()
    assert aside(machine) == list(range(4, 304))
    assert endpoint.accepted == [999, 999]


def test_more_that_is_bad_than_is_remembered_lets_no_gap_by() -> None:
    machine, bad = full(attempts=2), [f"k{nth}" for nth in range(5)]
    endpoint = Endpoint(machine, **dict.fromkeys(["a", *bad], REFUSED))
    large = [event(nth, key, body=b"x" * (REMEMBERED_BYTES // 5 + 1)) for nth, key in enumerate(bad, 4)]
    ring = Ring(machine, endpoint, *large, event(99, "_", op="g"))
    for _ in range(500):
        ring.look()
    assert machine.aside == []
    assert endpoint.accepted == []


def test_halt_lets_no_unread_gap_by() -> None:
    machine = full(on_exhausted=OnExhausted.HALT)
    endpoint = Endpoint(machine, a=REFUSED)
    ring = Ring(machine, endpoint, event(4, "_", op="g"), event(5, "b"))
    for _ in range(30):
        ring.look()
    assert endpoint.accepted == []


def test_no_unread_gap_is_tried_while_the_endpoint_asks_for_a_wait() -> None:
    """What failed before it asked tells nothing of now."""
    machine = full()
    endpoint = Endpoint(machine, a=REFUSED)
    ring = Ring(machine, endpoint, event(4, "_", op="g"))
    endpoint.run(5)
    endpoint.bad = {"a": replace(FAULT, retry_after=60.0)}
    endpoint.run(1)
    assert machine.witness.walk().find(ring.unread, endpoint.now) is None, "a go begins with no wait"
    for _ in range(5):
        ring.look()
    assert [4] not in endpoint.attempts
    endpoint.bad = {"a": REFUSED}
    ring.look_until_judged()


def test_what_failed_before_it_was_read_is_tried_on_where_there_is_nothing_else() -> None:
    """It may be accepted some day, and judges then."""
    machine = full()
    endpoint = Endpoint(machine, a=REFUSED, b=REFUSED)
    ring = Ring(machine, endpoint, event(4, "b"), event(5, "a"))
    for _ in range(30):
        ring.look()
    assert machine.aside == []
    endpoint.bad = {"a": REFUSED}
    ring.look_until_judged()
    assert set(endpoint.accepted) == {4}


def test_an_unread_gap_that_was_refused_is_tried_on_where_there_is_nothing_else() -> None:
    machine = full()
    endpoint = Endpoint(machine, a=REFUSED, b=REFUSED, _=REFUSED)
    ring = Ring(machine, endpoint, event(4, "_", op="g"), event(5, "b"))
    for _ in range(30):
        ring.look()
    assert machine.aside == []
    endpoint.bad = {"a": REFUSED, "b": REFUSED}
    ring.look_until_judged()
    assert (endpoint.accepted, aside(machine)) == ([4], [1, 2, 3])


def test_a_key_that_is_free_by_now_is_passed_by_no_gap() -> None:
    machine = full()
    endpoint = Endpoint(machine, a=REFUSED, r=REFUSED)
    again = event(90, "r")
    machine.release([again])
    endpoint.run(12)
    walk = machine.witness.walk()
    assert walk.find([event(4, "r")], endpoint.now) is None
    machine.withdraw([again])
    assert walk.find([event(5, "_", op="g")], endpoint.now) is None
    assert walk.is_over


def test_a_gap_judges_no_unread_event_whose_key_is_taken_by_now() -> None:
    machine = full()
    endpoint = Endpoint(machine, a=REFUSED, r=REFUSED)
    ring = Ring(machine, endpoint, event(4, "r"))
    for _ in range(30):
        ring.look()
    walk = machine.witness.walk()
    assert walk.find(ring.unread, endpoint.now) is None
    assert [each.ring_id for each in walk.suspects] == [4]
    machine.release([event(90, "r")])
    endpoint.run(30)
    assert walk.find([event(5, "_", op="g")], endpoint.now) is None
    assert walk.is_over


def test_what_was_taken_back_meanwhile_is_passed_by_nobody() -> None:
    """What stood behind it may go now, and comes before the gap."""
    machine = full()
    endpoint = Endpoint(machine, a=REFUSED, r=REFUSED)
    again = event(90, "r")
    machine.release([again])
    ring = Ring(machine, endpoint, event(4, "r"), event(5, "_", op="g"))
    while not machine.is_proving:
        witness = machine.witness
        if witness.is_missing and (found := (walk := witness.walk()).find(ring.unread, endpoint.now)):
            witness.call_unread(found, walk)
        else:
            endpoint.run(1)
    machine.withdraw([again])
    while machine.is_proving:
        endpoint.run(1)
    assert endpoint.accepted == []
    assert aside(machine) == []
