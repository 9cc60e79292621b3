"""The rules of alerts that docs/metrics.md hands out: they name what is exported, and say enough to act upon."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from .exported import exported

PAGE = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text()
(TEXT,) = re.findall(r"<!-- rules -->\n```yaml\n(.*?)```", PAGE, re.DOTALL)
RULES = [rule for group in yaml.safe_load(TEXT)["groups"] for rule in group["rules"]]
WATCHER = {"watcher_namespace", "watcher"}
# A histogram is scraped as three names, none of which is its own.
PARTS = {"histogram": ("_bucket", "_count", "_sum")}
NAMES = {f"{name}{part}": labels for name, labels, family in exported() for part in PARTS.get(family.type, ("",))} | {
    "up": {"job", "instance"}
}


def metrics(rule: dict[str, Any]) -> set[str]:
    return set(re.findall(r"\btablewatcher_\w+|\bup\b", rule["expr"]))


def names(rule: dict[str, Any]) -> Any:
    return rule["alert"]


@pytest.mark.parametrize("rule", RULES, ids=names)
def test_an_alert_names_what_is_exported(rule: dict[str, Any]) -> None:
    told = metrics(rule)
    assert told
    assert told <= set(NAMES)
    asked = {label for by in re.findall(r"(?:by|on) \(([^)]*)\)", rule["expr"]) for label in by.split(", ")}
    asked |= set(re.findall(r"[{,](\w+)(?:=~|!~|!=|=)", rule["expr"]))
    for metric in told:
        assert asked <= NAMES[metric], metric


@pytest.mark.parametrize("rule", RULES, ids=names)
def test_an_alert_says_which_watcher_whoever_tells_of_it(rule: dict[str, Any]) -> None:
    """One that kept the Pod's labels began anew with each rollout."""
    kept = {"job", "instance"} if metrics(rule) == {"up"} else WATCHER
    by = re.findall(r"by \(([^)]*)\)", rule["expr"])
    assert all(set(labels.split(", ")) == kept for labels in by)
    assert by or kept != WATCHER
    told = set(re.findall(r"\$labels\.(\w+)", " ".join(rule["annotations"].values())))
    assert told
    assert told <= kept
    assert told >= WATCHER or kept != WATCHER
    assert set(rule["annotations"]) == {"summary", "description"}
    assert rule["labels"]["severity"] in ("critical", "warning")


def test_every_fault_that_a_listener_tells_of_has_an_alert() -> None:
    asked = set[str]().union(*map(metrics, RULES))
    states = {"listener_connected", "capture_active", "ring_bytes", "events_parked", "last_gap_timestamp_seconds"}
    assert {f"tablewatcher_{name}" for name in states} <= asked
    assert len({rule["alert"] for rule in RULES}) == len(RULES)
