"""What was written against what arrived: loss, phantoms, order and identity. Pure, and knows nothing of the engine.

A change is named by its key and a version. Versions of a key rise in the order in which its changes commit and are
never used twice, not even for a change that was rolled back.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

Change = tuple[str, int]


class Outcome(StrEnum):
    """invoke: begun, no more is known. ok: committed. fail: certainly not. info: may have committed or not."""

    INVOKE = "invoke"
    OK = "ok"
    FAIL = "fail"
    INFO = "info"


class Kind(StrEnum):
    """Which invariant is broken."""

    LOSS = "loss"
    PHANTOM = "phantom"
    ORDER = "order"
    IDENTITY = "identity"


@dataclass(frozen=True, slots=True)
class Arrival:
    """One event as the sink got it: `body` is every byte of it, `event_id` the id it came with."""

    key: str
    version: int
    event_id: str
    body: bytes

    @property
    def change(self) -> Change:
        return self.key, self.version


@dataclass(frozen=True, slots=True)
class Violation:
    """A broken invariant, at one change."""

    kind: Kind
    change: Change
    detail: str


@dataclass(slots=True)
class History:
    """What writers did. One log for all of them."""

    outcomes: dict[Change, Outcome] = field(default_factory=dict)

    def invoke(self, change: Change) -> None:
        """A writer is about to make `change`. Raises ValueError for one that was named before."""
        if change in self.outcomes:
            raise ValueError(f"version used twice: {change}")
        self.outcomes[change] = Outcome.INVOKE

    def settle(self, changes: Iterable[Change], outcome: Outcome) -> None:
        """What became of them. Raises ValueError for one that was not begun, or is settled already."""
        for change in changes:
            if self.outcomes.get(change) is not Outcome.INVOKE:
                raise ValueError(f"{change} is {self.outcomes.get(change)}, it cannot become {outcome}")
            self.outcomes[change] = outcome

    def resolve(self, committed: Iterable[Change]) -> None:
        """Settles what is unknown by what the database itself holds as committed.

        Raises ValueError where that contradicts a known outcome: then the test or the database is wrong.
        """
        held = set(committed)
        for change, outcome in self.outcomes.items():
            if outcome in (Outcome.INVOKE, Outcome.INFO):
                self.outcomes[change] = Outcome.OK if change in held else Outcome.FAIL
            elif (outcome is Outcome.OK) is not (change in held):
                raise ValueError(f"{change} was {outcome}, and the database says otherwise")
        if unnamed := held - self.outcomes.keys():
            raise ValueError(f"committed by nobody: {sorted(unnamed)[:5]}")

    def count(self, outcome: Outcome) -> int:
        """Changes of that outcome."""
        return Counter(self.outcomes.values())[outcome]

    @property
    def ok(self) -> set[Change]:
        """What must arrive."""
        return {change for change, outcome in self.outcomes.items() if outcome is Outcome.OK}


def check(
    history: History, arrivals: Sequence[Arrival], *, complete: bool = True, announced: Collection[Change] = ()
) -> list[Violation]:
    """Every violation. `complete`: the sink has got all that it will get, so what is missing is lost.

    announced: changes made within a gap that the sink was told of; of these any may be missing.
    """
    found = [*_phantoms(history, arrivals), *_disorder(arrivals), *_identities(arrivals)]
    if complete:
        seen = {arrival.change for arrival in arrivals}
        found += [
            Violation(Kind.LOSS, change, "never arrived") for change in sorted(history.ok - seen - set(announced))
        ]
    return found


def repeats(arrivals: Sequence[Arrival]) -> list[int]:
    """Places of the arrivals whose change had arrived before."""
    seen: set[Change] = set()
    found = []
    for place, arrival in enumerate(arrivals):
        if arrival.change in seen:
            found.append(place)
        seen.add(arrival.change)
    return found


def _phantoms(history: History, arrivals: Iterable[Arrival]) -> Iterable[Violation]:
    for arrival in arrivals:
        outcome = history.outcomes.get(arrival.change)
        if outcome is None:
            yield Violation(Kind.PHANTOM, arrival.change, "nobody wrote it")
        elif outcome is Outcome.FAIL:
            yield Violation(Kind.PHANTOM, arrival.change, "it was rolled back")


def _disorder(arrivals: Iterable[Arrival]) -> Iterable[Violation]:
    """First arrivals of a key must rise; a repeat is free, for it is of something already seen."""
    newest: dict[str, int] = {}
    seen: set[Change] = set()
    for arrival in arrivals:
        if arrival.change in seen:
            continue
        seen.add(arrival.change)
        before = newest.get(arrival.key)
        if before is not None and arrival.version < before:
            yield Violation(Kind.ORDER, arrival.change, f"arrived first after version {before}")
        else:
            newest[arrival.key] = arrival.version


def _identities(arrivals: Iterable[Arrival]) -> Iterable[Violation]:
    by_change: dict[Change, Arrival] = {}
    by_id: dict[str, Change] = {}
    for arrival in arrivals:
        first = by_change.setdefault(arrival.change, arrival)
        if first.event_id != arrival.event_id:
            yield Violation(Kind.IDENTITY, arrival.change, f"id {first.event_id}, then {arrival.event_id}")
        elif first.body != arrival.body:
            yield Violation(Kind.IDENTITY, arrival.change, "the same id with other bytes")
        owner = by_id.setdefault(arrival.event_id, arrival.change)
        if owner != arrival.change:
            yield Violation(Kind.IDENTITY, arrival.change, f"has the id of {owner}")
