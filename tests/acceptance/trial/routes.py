"""Whether events went where the subject of their watcher leads: its last word is made of their row. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

from tablewatcher.naming import token

from .judging import matches
from .truth import Arrival, Change

# Stands for what an event does not have.
_NOTHING = "_"


def misrouted(name: str, made: Iterable[Change], arrivals: Iterable[Arrival], *, changed: bool) -> Iterable[str]:
    """Events whose subject is not of watcher `name`, or not of their row, in words.

    changed: the subject was, so that events may lack the column that it names by now.
    """
    rows: dict[tuple[str, str, str], list[Change]] = defaultdict(list)
    for change in made:
        rows[change.action, change.key, change.xid].append(change)
    for each in arrivals:
        _, watcher, action, *last = each.subject.split(".")
        if (watcher, action) != (name, each.action):
            yield f"{each} went to {each.subject}"
        elif last and not _may_be(last[0], each, rows[each.action, each.key, each.xid], changed=changed):
            yield f"{each} with key {each.token} went to {each.subject}"


def _may_be(word: str, each: Arrival, rows: Sequence[Change], *, changed: bool) -> bool:
    """Whether a subject may have made it of its table, key, kind or version."""
    if word in (each.source, each.token):
        return True
    if word == _NOTHING:
        return changed or each.action == "truncate"
    if each.action == "delete":  # which version it had, nobody has noted
        return word.isdigit() or any(word == token(change.old_kind) for change in rows)
    return any(word in (token(change.kind), str(change.n)) for change in rows if matches(change, each))
