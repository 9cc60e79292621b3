"""The columns that a subject names: how a ring, and `parked`, keep their values with an event. Pure.

The texts lie in the order of the columns, and behind them a sign of which columns these are: by the time that an event
is sent, the manifest's subject may name others. What lies there for others is of no use, and the words are made of what
the event holds. An earlier version left the sign out.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from typing import Any

from ..event import Event
from ..naming import LONGEST_SUBJECT, token
from .quoting import literal

_SIGN = r"^:[0-9a-f]{8}$"
_OF_ROWS = frozenset("iud")


def sign(columns: Sequence[str]) -> str:
    """What stands behind the values of `columns`."""
    return f":{hashlib.sha256(json.dumps(list(columns)).encode()).hexdigest()[:8]}"


def are_of(columns: Sequence[str], routing: str) -> str:
    """A condition: the array `routing`, SQL, is of these columns, as far as can be told."""
    number, length = len(columns), f"pg_catalog.cardinality({routing})"
    signed = f"{length} = {number + 1} AND {routing}[{number + 1}] = {literal(sign(columns))}"
    unsigned = f"{length} = {number} AND ({routing}[{number}] COLLATE \"C\" ~ '{_SIGN}') IS NOT TRUE"
    return f"({signed} OR {unsigned})"


def kept(words: Sequence[str] | None, columns: Sequence[str]) -> list[str] | None:
    """The words of an event as they are kept aside."""
    return None if words is None else [*words, sign(columns)]


def words_of(found: Sequence[str] | None, columns: Sequence[str]) -> list[str] | None:
    """What `kept` has made, or an earlier version; None where it is of other columns."""
    if not found or not columns:
        return None
    *words, last = found
    if last == sign(columns) and len(words) == len(columns):
        return words
    return list(found) if len(found) == len(columns) and not re.match(_SIGN, last) else None


def route(event: Event, columns: Sequence[str], *, structured: bool) -> Event:
    """Gives an event that has no words those that it holds itself; `_` stands for what it does not."""
    if columns and event.routing is None and event.op in _OF_ROWS:
        row = _row(event.body, structured=structured)
        event.routing = [_word(row.get(column)) for column in columns]
    return event


def _row(body: bytes, *, structured: bool) -> dict[str, Any]:
    try:
        found = json.loads(body, parse_int=str, parse_float=str)
    except (ValueError, RecursionError):
        return {}
    data = found["data"] if structured else found
    return dict(data.get("after") or data.get("before") or data.get("key") or {})


def _word(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict | list):
        value = json.dumps(value, ensure_ascii=False)
    text = value if isinstance(value, str) else ""
    # As much as makes any subject too long; of half a character nothing can be made.
    return token(text[: LONGEST_SUBJECT + 1].encode(errors="replace").decode())
