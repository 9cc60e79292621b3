"""Whose requests came in a trial while another listener had the lease: those are found, and nothing else."""

from __future__ import annotations

from ..acceptance.trial.leases import Call, Owners


def owners() -> Owners:
    """Listener 1, whose process is 11, is known to have `w` since second 10."""
    found = Owners(pids={10: 0, 11: 1})
    assert found.looked(10.0, {"w": (5, 11)}, []) == []
    return found


def test_what_another_listener_sends_is_found() -> None:
    (text,) = owners().looked(20.0, {"w": (5, 11)}, [Call("w", 1, 15.0), Call("w", 0, 15.0)])
    assert text == "listener 0 sent for w 5.0 s after listener 1 had it"


def test_what_was_on_its_way_is_no_fault() -> None:
    assert owners().looked(20.0, {"w": (5, 11)}, [Call("w", 0, 11.0)]) == []


def test_what_came_while_the_lease_changed_hands_is_no_fault() -> None:
    found = owners()
    assert found.looked(20.0, {"w": (6, 10)}, [Call("w", 0, 19.0)]) == []
    assert found.looked(30.0, {"w": (6, 10)}, [Call("w", 0, 29.0)]) == []


def test_what_had_begun_before_a_listener_was_frozen_is_no_fault() -> None:
    found = owners()
    found.awake[0] = 29.0
    assert found.looked(40.0, {"w": (5, 11)}, [Call("w", 0, 30.0)]) == []
    assert len(found.looked(50.0, {"w": (5, 11)}, [Call("w", 0, 33.0)])) == 1


def test_a_process_that_nobody_has_seen_may_be_of_any_listener() -> None:
    found = Owners(pids={10: 0})
    found.looked(10.0, {"w": (5, 11)}, [])
    assert found.looked(20.0, {"w": (5, 11)}, [Call("w", 0, 15.0)]) == []


def test_who_has_what() -> None:
    assert owners().of(1) == ["w"]
    assert owners().of(0) == []
