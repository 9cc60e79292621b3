"""What was written, and what a watcher must have sent of it. Pure.

A change is a row of table `truth`, written by the transaction that made it: so the database itself says what was
committed. `n` rises in the order in which the changes of a key were made, for it is drawn while the key is locked.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

TABLES = """
CREATE TABLE account (key text PRIMARY KEY, version bigint NOT NULL, kind text NOT NULL, note text DEFAULT '',
                      amount int DEFAULT 0);
CREATE TABLE parted (part int, key text, version bigint NOT NULL, kind text NOT NULL, note text DEFAULT '',
                     PRIMARY KEY (part, key)) PARTITION BY LIST (part);
CREATE TABLE parted_0 PARTITION OF parted FOR VALUES IN (0);
CREATE TABLE parted_1 PARTITION OF parted FOR VALUES IN (1);
CREATE TABLE parted_2 PARTITION OF parted FOR VALUES IN (2);
CREATE TABLE bulk (key text PRIMARY KEY, version bigint NOT NULL, kind text NOT NULL, note text DEFAULT '');
CREATE TABLE truth (n bigint NOT NULL, name text NOT NULL, action text NOT NULL, key text NOT NULL, old_key text,
                    kind text, old_kind text, image text, xid text NOT NULL DEFAULT pg_current_xact_id()::text,
                    began timestamptz NOT NULL DEFAULT now(), noted timestamptz NOT NULL DEFAULT clock_timestamp());
"""


@dataclass(frozen=True, slots=True)
class Change:
    """action: insert, update, delete or truncate. It was made between `began` and `noted` (epoch seconds).

    image: the row as JSON, of table `wide`.
    """

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
    image: str | None = None


@dataclass(frozen=True, slots=True)
class Arrival:
    """version: None where it is not sent. filter: the word of an update, where there is a condition.

    replay: its number, 0 where it is none. after: the row, of table `wide`; None where it is not sent. source: the
    table it names; token: its key as one word; subject: of NATS.
    """

    event_id: str
    action: str
    key: str
    old_key: str | None
    xid: str
    version: int | None
    filter: str | None
    replay: int
    accepted: bool
    after: Mapping[str, Any] | None = field(default=None, compare=False, repr=False)
    source: str = field(default="", compare=False, repr=False)
    token: str = field(default="", compare=False, repr=False)
    subject: str = field(default="", compare=False, repr=False)


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

    forgiven: spans in which changes may be missing. dropped: (transaction, key) of events that were dropped while they
    were aside; dropped_keys: the key, and until when it was noted. parks: what is refused is put aside, and passed by
    truncations. ordered: by key. lossy: anything may be missing.
    """

    table: str
    phases: list[tuple[float, float, Asked | None]] = field(default_factory=list)
    forgiven: set[tuple[float, float]] = field(default_factory=set)
    dropped: set[tuple[str, str]] = field(default_factory=set)
    dropped_keys: dict[str, float] = field(default_factory=dict)
    parks: bool = False
    ordered: bool = True
    lossy: bool = False

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
        return True if found == {True} and not (forgiven or self.lossy or self.was_dropped(change)) else None

    def was_dropped(self, change: Change) -> bool:
        """Whether it may have been dropped while it was aside: then it may come at any time, or never."""
        if (change.xid, change.key) in self.dropped:
            return True
        return any(change.began <= self.dropped_keys.get(key, 0.0) for key in (change.key, change.old_key) if key)

    def state(self) -> tuple[int, ...]:
        """Another one where other changes may be expected."""
        return len(self.phases), len(self.forgiven), len(self.dropped), len(self.dropped_keys)


def by_table(changes: Iterable[Change]) -> dict[str, list[Change]]:
    """The changes of each table."""
    found: dict[str, list[Change]] = defaultdict(list)
    for change in changes:
        found[change.table].append(change)
    return found
