"""What is wrong with what arrived, held against what a watcher must have sent. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence, Set
from typing import TypeVar

from .truth import Arrival, Asking, Change

T = TypeVar("T")
# The order of all keys at once.
EVERY_KEY = "*"


def lanes(found: Change | Arrival) -> tuple[str, ...]:
    """The keys whose order it takes part in."""
    if found.action == "truncate":
        return (EVERY_KEY,)
    return (found.key,) if found.old_key in (None, found.key) else (found.key, found.old_key)


def faults(
    asking: Asking, changes: Iterable[Change], arrivals: Sequence[Arrival], *, complete: bool = True
) -> list[str]:
    """Everything that is wrong with what arrived, in words."""
    found = list(_identities(arrivals))
    changes = list(changes)
    gone = {(change.xid, change.key) for change in changes if asking.was_dropped(change)}
    # A replay may bring, late, what had been lost.
    live = [each for each in arrivals if not (asking.lossy and each.replay)]
    firsts = [each for each in first_arrivals(live) if (each.xid, each.key) not in gone]
    asked = [
        (change, must)
        for change in changes
        if (change.xid, change.key) not in gone and (must := asking.expects(change)) is not False
    ]
    if not asking.ordered:
        return found + list(_counted(asked, firsts, complete=complete))
    keys = {key for each in [*firsts, *(change for change, _ in asked)] for key in lanes(each)}
    everywhere = keys if not asking.parks else {EVERY_KEY}
    expected = _by_lane(asked, lambda pair: pair[0], everywhere)
    actual = _by_lane(firsts, lambda each: each, everywhere)
    for key in sorted(keys):
        wanted = expected.get(key, [])
        found += _compared(key, wanted, actual.get(key, []), complete=complete)
    return found


def first_arrivals(arrivals: Iterable[Arrival]) -> list[Arrival]:
    """Without those that came before."""
    seen: dict[str, Arrival] = {}
    for each in arrivals:
        seen.setdefault(each.event_id, each)
    return list(seen.values())


def wanted(asking: Asking, changes: Iterable[Change]) -> int:
    """How many must arrive."""
    return sum(asking.expects(change) is True for change in changes)


def missing(asking: Asking, changes: Iterable[Change], arrivals: Sequence[Arrival]) -> int:
    """About how many are still to come."""
    return max(wanted(asking, changes) - len({each.event_id for each in arrivals}), 0)


def _by_lane(items: Sequence[T], of: Callable[[T], Change | Arrival], keys: Set[str]) -> dict[str, list[T]]:
    found: dict[str, list[T]] = defaultdict(list)
    for item in items:
        named = lanes(of(item))
        for key in keys if EVERY_KEY in named else named:
            found[key].append(item)
    return found


def _identities(arrivals: Iterable[Arrival]) -> Iterable[str]:
    known: dict[str, tuple[object, ...]] = {}
    for each in arrivals:
        what = (each.action, each.key, each.old_key, each.version)
        first = known.setdefault(each.event_id, what)
        if first[:3] != what[:3] or (None not in (first[3], what[3]) and first[3] != what[3]):
            yield f"id {each.event_id} is of {first} and of {what}"


def matches(change: Change, each: Arrival) -> bool:
    """Whether the event may tell of this change."""
    if (change.action, change.key, change.xid) != (each.action, each.key, each.xid):
        return False
    return change.action == "delete" or each.version is None or each.version == change.n


def _compared(
    key: str, wanted: Sequence[tuple[Change, bool | None]], actual: Sequence[Arrival], *, complete: bool
) -> Iterable[str]:
    place = 0
    for nth, each in enumerate(actual):
        at = place
        while at < len(wanted) and not matches(wanted[at][0], each):
            at += 1
        near = _near(wanted, actual, place, nth)
        if at == len(wanted):
            late = any(matches(change, each) for change, _ in wanted[:place])
            yield f"key {key}: {each} {'came late, or twice' if late else 'was never made'}; {near}"
            return
        if passed := [change for change, must in wanted[place:at] if must]:
            yield f"key {key}: {each} came before {passed[:3]}; {near}"
            return
        place = at + 1
    left = [change for change, must in wanted[place:] if must]
    if complete and left:
        near = _near(wanted, actual, place, len(actual))
        yield f"key {key}: {len(left)} never arrived, the first of them {left[0]}; {near}"


def _counted(
    wanted: Sequence[tuple[Change, bool | None]], actual: Sequence[Arrival], *, complete: bool
) -> Iterable[str]:
    """Of what has no order: all of it, once."""
    left: dict[tuple[str, str, str], list[tuple[Change, bool | None]]] = defaultdict(list)
    for change, must in wanted:
        left[change.action, change.key, change.xid].append((change, must))
    for each in actual:
        alike = left[each.action, each.key, each.xid]
        matching = [pair for pair in alike if matches(pair[0], each)]
        if not matching:
            yield f"{each} was never made, or came twice"
            continue
        alike.remove(max(matching, key=lambda pair: pair[1] is True))
    never = [change for alike in left.values() for change, must in alike if must]
    if complete and never:
        yield f"{len(never)} never arrived, the first of them {never[0]}"


def _near(wanted: Sequence[tuple[Change, bool | None]], actual: Sequence[Arrival], place: int, nth: int) -> str:
    told = [f"{c.action[0]}{c.n}{'' if m else '?'}" for c, m in wanted[max(place - 3, 0) : place + 5]]
    came = [f"{a.action[0]}{a.version}{'r' if a.replay else ''}" for a in actual[max(nth - 3, 0) : nth + 5]]
    return f"wanted {told} of {len(wanted)}, came {came} of {len(actual)}"
