"""Which tables somebody may have meant who named one that is not there. Pure."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

from ...spec.model import Table

_MOST = 3
_CLOSE = 0.6


def similar(wanted: Table, there: Iterable[Table]) -> tuple[Table, ...]:
    """Those of `there` that are likely meant, the likeliest first: spelling, case, quotes, another schema forgiven."""
    found = sorted(((_closeness(wanted, each), each) for each in there), key=lambda pair: -pair[0])
    return tuple(each for close, each in found[:_MOST] if close >= _CLOSE)


def as_meant(wanted: Table) -> tuple[str, str]:
    """Schema and name in small letters, where the name was written as SQL has it: in quotes, or behind its schema."""
    schema, _, name = wanted.name.replace('"', "").lower().rpartition(".")
    return schema or wanted.schema.lower(), name


def _closeness(wanted: Table, there: Table) -> float:
    """0 to 2."""
    schema, name = as_meant(wanted)
    same_schema = there.schema.lower() == schema
    if there.name.lower() == name:
        return 1.5 + same_schema / 2
    # Another name in another schema is no slip of one hand.
    return difflib.SequenceMatcher(None, name, there.name.lower()).ratio() if same_schema else 0.0


def hint(wanted: Table, meant: Sequence[Table]) -> str:
    """What to add to a message that `wanted` is not there."""
    if not meant:
        return ""
    names = " or ".join(f"{each.schema}.{each.name}" for each in meant)
    if not {".", '"'} & set(wanted.name):
        return f"; did you mean {names}?"
    first = f"{{schema: {meant[0].schema}, name: {meant[0].name}}}"
    return f"; did you mean {names}? Its schema is a field of its own, and names stand without quotes of SQL: {first}"
