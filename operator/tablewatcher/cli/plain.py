"""Text of others, such as names in a database, for a terminal that would obey what is hidden in it."""

from __future__ import annotations

import re

# But for line ends and tabs, all that a terminal takes as a command, and what turns the direction of writing: a text
# would read as another one.
_OBEYED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")


def plain(text: str) -> str:
    """`text` with such signs as a program would write them: `\\x1b`."""
    return _OBEYED.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def one_line(text: str) -> str:
    """The same on one line, as in a comment of SQL, which ends with it."""
    return plain(" ".join(text.split()))
