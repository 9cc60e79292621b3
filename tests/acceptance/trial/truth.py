"""What a watcher must have sent of what was written, and what is wrong with what arrived. Pure.

A change is a row of table `truth`, written by the transaction that made it: so the database itself says what was
committed. `n` rises in the order in which the changes of a key were made, for it is drawn while the key is locked.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence, Set
from dataclasses import dataclass, field
from typing import TypeVar

TABLES = """
CREATE TABLE account (key text PRIMARY KEY, version bigint NOT NULL, kind text NOT NULL, note text DEFAULT '',
                      amount int DEFAULT 0);
CREATE TABLE parted (part int, key text, version bigint NOT NULL, kind text NOT NULL, note text DEFAULT '',
                     PRIMARY KEY (part, key)) PARTITION BY LIST (part);
CREATE TABLE parted_0 PARTITION OF parted FOR VALUES IN (0);
CREATE TABLE parted_1 PARTITION OF parted FOR VALUES IN (1);
CREATE TABLE parted_2 PARTITION OF parted FOR VALUES IN (2);
CREATE TABLE truth (n bigint NOT NULL, name text NOT NULL, action text NOT NULL, key text NOT NULL, old_key text,
                    kind text, old_kind text, xid text NOT NULL DEFAULT pg_current_xact_id()::text,
                    began timestamptz NOT NULL DEFAULT now(), noted timestamptz NOT NULL DEFAULT clock_timestamp());
"""
T = TypeVar("T")
# The order of all keys at once.
EVERY_KEY = "*"


@dataclass(frozen=True, slots=True)
class Change:
    """action: insert, update, delete or truncate. It was made between `began` and `noted` (epoch seconds)."""

    n: int
    table: str
    action: str
    key: str
    old_key: str | None
    kind: str | None
    old_kind: str | None
    xid: str
    began: float
    noted: float


@dataclass(frozen=True, slots=True)
class Arrival:
    """version: None where it is not sent. filter: the word of an update, where there is a condition."""

    event_id: str
    action: str
    key: str
    old_key: str | None
    xid: str
    version: int | None
    filter: str | None
    replay: bool
    accepted: bool


@dataclass(frozen=True, slots=True)
class Asked:
    """What a manifest asks for. kinds: of its condition; by_kind: whether `triggerColumns` is kind."""

    actions: frozenset[str]
    kinds: frozenset[str] | None = None
    by_kind: bool = False

    def wants(self, change: Change) -> bool:
        """Whether the change is to be sent."""
        if change.action not in self.actions:
            return False
        if change.action == "truncate":
            return True
        if change.action == "update" and self.by_kind and change.kind == change.old_kind:
            return False
        if self.kinds is None:
            return True
        of_insert = change.action != "delete" and change.kind in self.kinds
        of_delete = change.action != "insert" and change.old_kind in self.kinds
        return of_insert or of_delete


@dataclass(slots=True)
class Asking:
    """All that one watcher was asked over time. phases: from when until when each may have been in force.

    forgiven: spans in which changes may be missing.
    """

    table: str
    phases: list[tuple[float, float, Asked | None]] = field(default_factory=list)
    forgiven: set[tuple[float, float]] = field(default_factory=set)
    parks: bool = False

    def begin(self, now: float, asked: Asked | None) -> None:
        """From now on this may be in force; what was so far is until `settled`."""
        self.phases.append((now, float("inf"), asked))

    def settled(self, now: float) -> None:
        """What was last begun is in force alone."""
        self.phases[:-1] = [(since, min(until, now), asked) for since, until, asked in self.phases[:-1]]

    def expects(self, change: Change) -> bool | None:
        """Whether it must arrive; None: it may."""
        if change.table != self.table:
            return False
        found = {
            asked is not None and asked.wants(change)
            for since, until, asked in self.phases
            if since <= change.noted and change.began <= until
        }
        if found == {False} or not found:
            return False
        forgiven = any(since <= change.noted and change.began <= until for since, until in self.forgiven)
        return True if found == {True} and not forgiven else None


def lanes(found: Change | Arrival) -> tuple[str, ...]:
    """The keys whose order it takes part in."""
    if found.action == "truncate":
        return (EVERY_KEY,)
    return (found.key,) if found.old_key in (None, found.key) else (found.key, found.old_key)  # type: ignore[return-value]


def faults(
    asking: Asking, changes: Iterable[Change], arrivals: Sequence[Arrival], *, complete: bool = True
) -> list[str]:
    """Everything that is wrong with what arrived, in words."""
    found = list(_identities(arrivals))
    firsts: list[Arrival] = []
    seen: set[str] = set()
    for each in arrivals:
        if each.event_id not in seen:
            seen.add(each.event_id)
            firsts.append(each)
    asked = [(change, must) for change in changes if (must := asking.expects(change)) is not False]
    keys = {key for each in [*firsts, *(change for change, _ in asked)] for key in lanes(each)}
    everywhere = keys if not asking.parks else {EVERY_KEY}
    expected = _by_lane(asked, lambda pair: pair[0], everywhere)
    actual = _by_lane(firsts, lambda each: each, everywhere)
    for key in sorted(keys):
        wanted = expected.get(key, [])
        found += _compared(key, wanted, actual.get(key, []), complete=complete)
    return found


def missing(asking: Asking, changes: Iterable[Change], arrivals: Sequence[Arrival]) -> int:
    """About how many are still to come."""
    wanted = sum(asking.expects(change) is True for change in changes)
    return max(wanted - len({each.event_id for each in arrivals}), 0)


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


def _matches(change: Change, each: Arrival) -> bool:
    if (change.action, change.key, change.xid) != (each.action, each.key, each.xid):
        return False
    return change.action == "delete" or each.version is None or each.version == change.n


def _compared(
    key: str, wanted: Sequence[tuple[Change, bool | None]], actual: Sequence[Arrival], *, complete: bool
) -> Iterable[str]:
    place = 0
    for nth, each in enumerate(actual):
        at = place
        while at < len(wanted) and not _matches(wanted[at][0], each):
            at += 1
        near = _near(wanted, actual, place, nth)
        if at == len(wanted):
            late = any(_matches(change, each) for change, _ in wanted[:place])
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


def _near(wanted: Sequence[tuple[Change, bool | None]], actual: Sequence[Arrival], place: int, nth: int) -> str:
    told = [f"{c.action[0]}{c.n}{'' if m else '?'}" for c, m in wanted[max(place - 3, 0) : place + 5]]
    came = [f"{a.action[0]}{a.version}{'r' if a.replay else ''}" for a in actual[max(nth - 3, 0) : nth + 5]]
    return f"wanted {told} of {len(wanted)}, came {came} of {len(actual)}"
