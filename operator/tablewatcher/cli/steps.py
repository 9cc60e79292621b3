"""The steps of a plan, as commands tell them."""

from __future__ import annotations

from collections.abc import Sequence

from ..postgres.install.plan import Plan


def number_of(steps: Sequence[object]) -> str:
    """How many steps there are, in words."""
    return "1 step" if len(steps) == 1 else f"{len(steps)} steps"


def steps_json(found: Plan) -> dict[str, object]:
    """The steps of a plan, for programs."""
    return {"steps": [{"what": step.what, "sql": step.sql, "locksTable": step.locks_table} for step in found.steps]}
