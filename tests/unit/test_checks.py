"""Findings as lines: what is ok, what deserves a word, what fails."""

from __future__ import annotations

import datetime
from dataclasses import replace
from typing import Any

import pytest

from tablewatcher.cli.checks import Level, span, standing_checks, surrounding_checks
from tablewatcher.cli.status import state
from tablewatcher.errors import Reason
from tablewatcher.postgres.holders import Holder
from tablewatcher.postgres.standing import Standing, Surroundings
from tablewatcher.spec.model import Action, Database, NatsSink, Table, WatcherSpec

SPEC = WatcherSpec(
    "shop", "w", Database("s"), Table("public", "t"), frozenset({Action.INSERT}), NatsSink(("nats://n",), "x")
)
WELL = Standing("host", 9.0, "Forwarding", "", True, 1, 0, None, 1 << 20, 0, 0)


@pytest.mark.parametrize(
    ("changes", "spec", "line", "level", "reason", "word"),
    [
        ({}, SPEC, "listener", Level.OK, None, "forwarding"),
        ({"host": ""}, SPEC, "listener", Level.FAIL, Reason.LISTENER_ROLLING_OUT, "no listener"),
        ({"reason": "", "forwarding": False}, SPEC, "listener", Level.WARN, None, "starting"),
        (
            {"reason": "SinkUnreachable", "message": "gone", "forwarding": False},
            SPEC,
            "listener",
            Level.FAIL,
            Reason.SINK_UNREACHABLE,
            "failing",
        ),
        ({"stopped_at": 5}, SPEC, "capture", Level.FAIL, Reason.CAPTURE_STOPPED, "stopped"),
        ({"ring_bytes": 1 << 30}, SPEC, "ring", Level.WARN, None, "forwarding"),
        ({"waiting": 3, "oldest_seconds": 2.0}, SPEC, "delivery", Level.OK, None, "forwarding"),
        ({"waiting": 3, "oldest_seconds": 61.0}, SPEC, "delivery", Level.WARN, None, "forwarding"),
        ({"waiting": 3}, replace(SPEC, suspend=True), "delivery", Level.WARN, Reason.SUSPENDED, "suspended"),
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


def test_what_is_not_installed() -> None:
    assert state(SPEC, None) == "not installed"
    assert "parked" not in [check.name for check in standing_checks(SPEC, replace(WELL, parked=None))]


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


def test_spans() -> None:
    assert [span(seconds) for seconds in (-1, 0, 119, 120, 7200, 172800)] == [
        "0 s",
        "0 s",
        "119 s",
        "2 min",
        "2 h",
        "2 d",
    ]
