"""Bytes that are no UTF-8, in texts of a database in UTF-8. Pure.

Until PostgreSQL 14 the text of a `"char"` is its one byte, also where that stands for nothing: a cast of 'é' leaves the
first half of it. Whatever looks at the signs of such a text raises, and so would every look at the ring. From 15 on the
type says it in octal digits, \\303, and so do we. What is written stays as it is: only a reader can go back and forth.
"""

from __future__ import annotations

import re

from ..quoting import literal
from .chunks import RAW_COLUMNS

_NEXT = r"[\u0080-\u00bf]"
# Of a text in which each byte is a sign: a run that is UTF-8, or else one byte.
_RUNS = literal(
    rf"(?:[\u0001-\u007f]|[\u00c2-\u00df]{_NEXT}"
    rf"|\u00e0[\u00a0-\u00bf]{_NEXT}|[\u00e1-\u00ec\u00ee\u00ef]{_NEXT}{_NEXT}|\u00ed[\u0080-\u009f]{_NEXT}"
    rf"|\u00f0[\u0090-\u00bf]{_NEXT}{_NEXT}|[\u00f1-\u00f3]{_NEXT}{_NEXT}{_NEXT}"
    rf"|\u00f4[\u0080-\u008f]{_NEXT}{_NEXT})+|[\u0080-\u00ff]"
)
_IS_STRAY = "(pg_catalog.length(m.run[1]) = 1 AND pg_catalog.octet_length(m.run[1]) = 2)"
# In JSON a backslash is two, and there such a byte is always within a string.
_IN_JSON, _IN_TEXT = "\\\\", "\\"


def without(events: str) -> str:
    """A query of RAW_COLUMNS like this one, with texts that are UTF-8."""
    made = {name: _each(name) for name in ("key", "old_key", "routing")}
    made["data"] = said("data", _IN_JSON)
    columns = [f"{made[name]} AS {name}" if name in made else name for name in RAW_COLUMNS.split(", ")]
    return f"SELECT {', '.join(columns)} FROM ({events}) AS g"


def said(text: str, backslash: str = _IN_TEXT) -> str:
    """A text with three octal digits for each such byte."""
    signs = f"pg_catalog.convert_from({sent_as_it_is(text)}, 'LATIN1')"
    digits = "pg_catalog.right(pg_catalog.encode(pg_catalog.convert_to(m.run[1], 'LATIN1'), 'escape'), 3)"
    run = f"CASE WHEN {_IS_STRAY} THEN {literal(backslash)} || {digits} ELSE m.run[1] END"
    found = f"pg_catalog.regexp_matches({signs} COLLATE \"C\", {_RUNS}, 'g') WITH ORDINALITY AS m (run, nth)"
    whole = f"(SELECT pg_catalog.string_agg({run}, '' ORDER BY m.nth) FROM {found})"
    made = f"pg_catalog.convert_from(pg_catalog.convert_to(coalesce({whole}, ''), 'LATIN1'), 'UTF8')"
    return f"CASE WHEN {text} IS NOT NULL THEN {made} END"


def may_have_been_said(text: bytes) -> bool:
    """Whether some of this text may be the digits of such a byte."""
    return re.search(rb"\\[23][0-7][0-7]", text) is not None


def sent_as_it_is(text: str) -> str:
    """A text's bytes, which nobody looks at: our connections speak UTF-8, as the database does."""
    return f"pg_catalog.textsend({text})"


def _each(array: str) -> str:
    parts = f"SELECT {said('part')} FROM pg_catalog.unnest({array}) WITH ORDINALITY AS u (part, nth)"
    return f"CASE WHEN {array} IS NOT NULL THEN ARRAY({parts} ORDER BY nth) END"
