"""Findings as lines: what is ok, what deserves a word, what fails."""

from __future__ import annotations

import datetime
from dataclasses import replace
from typing import Any

import pytest

from tablewatcher.cli.checks import (
    Level,
    database_checks,
    pooler_check,
    sink_checks,
    span,
    standing_checks,
    surrounding_checks,
)
from tablewatcher.cli.status import state
from tablewatcher.errors import DatabaseError, Reason
from tablewatcher.naming import watcher_names
from tablewatcher.postgres.connection.pooling import Pooling
from tablewatcher.postgres.install.catalog import Observed
from tablewatcher.postgres.install.survey import Survey
from tablewatcher.postgres.ring.holders import Holder
from tablewatcher.postgres.standing import OpenGap, Standing, Surroundings
from tablewatcher.spec.model import Action, Database, NatsSink, Table, WatcherSpec

from .test_long_names import SERVER

SPEC = WatcherSpec(
    "shop", "w", Database("s"), Table("public", "t"), frozenset({Action.INSERT}), NatsSink(("nats://n",), "x")
)
WELL = Standing(
    last_host="host",
    last_pid=41,
    lease_seconds=9.0,
    ended_seconds=None,
    reason="Forwarding",
    message="",
    forwarding=True,
    refused=False,
    generation=1,
    said_seconds=7200.0,
    waiting=0,
    oldest_seconds=None,
    ring_bytes=1 << 20,
    stopped_at=0,
    parked=0,
)
NOON = datetime.datetime(2026, 1, 2, 12, 0, 0, tzinfo=datetime.UTC)
GAP = OpenGap("triggerRepaired", certain=False, since=None, until=NOON, told=False)


@pytest.mark.parametrize(
    ("changes", "spec", "line", "level", "reason", "word"),
    [
        ({}, SPEC, "listener", Level.OK, None, "forwarding"),
        ({"lease_seconds": 0.0}, SPEC, "listener", Level.FAIL, Reason.LISTENER_ROLLING_OUT, "no listener"),
        ({"reason": "", "forwarding": False}, SPEC, "listener", Level.WARN, None, "starting"),
        (
            {"reason": "SinkUnreachable", "message": "gone", "forwarding": False},
            SPEC,
            "listener",
            Level.FAIL,
            Reason.SINK_UNREACHABLE,
            "failing",
        ),
        ({"message": "409", "refused": True}, SPEC, "listener", Level.WARN, None, "forwarding"),
        ({"stopped_at": 5}, SPEC, "capture", Level.FAIL, Reason.CAPTURE_STOPPED, "stopped"),
        ({"skipped": 3}, SPEC, "skipped", Level.OK, None, "forwarding"),
        ({"ring_bytes": 1 << 30}, SPEC, "ring", Level.WARN, None, "forwarding"),
        ({"waiting": 3, "oldest_seconds": 2.0}, SPEC, "delivery", Level.OK, None, "forwarding"),
        ({"waiting": 3, "oldest_seconds": 61.0}, SPEC, "delivery", Level.WARN, None, "forwarding"),
        ({"waiting": 3}, replace(SPEC, suspend=True), "delivery", Level.WARN, Reason.SUSPENDED, "suspended"),
        ({"gaps": (GAP,)}, SPEC, "gaps", Level.WARN, None, "forwarding"),
        ({"parked": 2}, SPEC, "parked", Level.WARN, Reason.EVENTS_PARKED, "forwarding"),
    ],
)
def test_lines(
    changes: dict[str, Any], spec: WatcherSpec, line: str, level: Level, reason: Reason | None, word: str
) -> None:
    found = replace(WELL, **changes)
    lines = {check.name: check for check in standing_checks(spec, found)}
    assert (lines[line].level, lines[line].reason) == (level, reason)
    assert all(check.level is Level.OK for name, check in lines.items() if name != line)
    assert state(spec, found) == word


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, "on host (pid 41), lease for 9 s more; for 2 h it has said Forwarding"),
        ({"last_host": "", "last_pid": None, "lease_seconds": 0.0}, "none has run yet: start `tablewatcher listen`"),
        ({"lease_seconds": 0.0}, "the last one, on host (pid 41), was stopped and released its lease: start"),
        ({"lease_seconds": 0.0, "ended_seconds": 7300.0}, "ran out 2 h ago: it was killed or cut off: start"),
        ({"forwarding": False, "reason": "SinkUnreachable", "message": "gone"}, "it has said SinkUnreachable: gone"),
        ({"refused": True, "message": "an event got 409"}, "it has said Forwarding: an event got 409"),
    ],
)
def test_who_delivers_or_did(changes: dict[str, Any], said: str) -> None:
    lines = {check.name: check.text for check in standing_checks(SPEC, replace(WELL, **changes))}
    assert said in lines["listener"]


def test_a_gap_names_whom_it_waits_for() -> None:
    def text(gap: OpenGap) -> str:
        return next(check.text for check in standing_checks(SPEC, replace(WELL, gaps=(gap,))) if check.name == "gaps")

    assert "triggerRepaired: changes may have been missed until 2026-01-02 12:00:00 UTC" in text(GAP)
    assert "see that one runs" in text(GAP)
    waited = replace(GAP, certain=True, since=NOON, told=True, waits_for=(Holder(7, None, NOON, "psql"),))
    assert "changes were missed from 2026-01-02 12:00:00 UTC" in text(waited)
    assert "told as open" in text(waited)
    assert "pid 7 (psql), open since 2026-01-02 12:00:00 UTC" in text(waited)


def test_what_is_not_installed() -> None:
    assert state(SPEC, None) == "not installed"
    assert "parked" not in [check.name for check in standing_checks(SPEC, replace(WELL, parked=None))]


def test_a_ring_without_capture() -> None:
    (capture,) = (each for each in standing_checks(SPEC, replace(WELL, captured=False)) if each.name == "capture")
    assert (capture.level, capture.reason) == (Level.FAIL, Reason.TRIGGERS_DRIFTED)


def test_surroundings() -> None:
    calm = list(surrounding_checks(Surroundings((), 0, 0.0)))
    assert [check.level for check in calm] == [Level.OK, Level.OK]
    since = datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.UTC)
    holders = (Holder(7, None, since, "psql"), Holder(None, "x", since, ""), Holder(8, None, None, ""))
    found = list(surrounding_checks(Surroundings(holders, 5, 0.0)))
    assert [check.level for check in found] == [Level.WARN] * 3 + [Level.OK]
    assert "pid 7 (psql), open since 2026-01-02 03:04:05 UTC" in found[0].text
    assert "'x'" in found[1].text
    assert "ROLLBACK PREPARED" in found[1].text
    assert "polling" in found[3].text
    assert list(surrounding_checks(Surroundings((), 0, 0.3)))[-1].level is Level.WARN


def test_what_pooler_is_in_between() -> None:
    levels = {pooling: pooler_check("pooler", pooling).level for pooling in Pooling}
    assert levels == {Pooling.NONE: Level.OK, Pooling.SESSION: Level.OK, Pooling.TRANSACTION: Level.WARN}
    assert pooler_check("pooler", Pooling.TRANSACTION).reason is Reason.POOLER_DETECTED
    # Whatever else there is, nobody notifies.
    *_, wakeup = surrounding_checks(Surroundings((), 0, 0.3), Pooling.TRANSACTION)
    assert (wakeup.level, "polling" in wakeup.text) == (Level.OK, True)


def test_faults_of_one_kind_are_all_told() -> None:
    reasons = (Reason.MANUAL_ACTION_REQUIRED, Reason.SPEC_INVALID, Reason.SPEC_INVALID)
    faults = tuple(DatabaseError(reason, str(nth)) for nth, reason in enumerate(reasons))
    found = Survey(Observed(SERVER, None), encrypted=True, pooling=Pooling.NONE, faults=faults, plan=None)
    lines = database_checks(SPEC, found, watcher_names("local", SPEC.namespace, SPEC.name))
    told = [(check.name, check.text) for check in lines if check.level is Level.FAIL]
    assert told == [("server", "0"), ("columns", "1"), ("columns", "2")]


def test_a_sink_that_would_be_made_is_well() -> None:
    found = list(sink_checks(None, ["stream 'S' does not exist yet"], ["it has one copy"]))
    assert [each.level for each in found] == [Level.OK, Level.OK, Level.WARN]


def test_spans() -> None:
    assert [span(seconds) for seconds in (-1, 0, 119, 120, 7200, 172800)] == [
        "0 s",
        "0 s",
        "119 s",
        "2 min",
        "2 h",
        "2 d",
    ]
