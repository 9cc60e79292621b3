"""Where an event goes: the subject template filled in, and whether a stream takes what it yields. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...errors import Reason, SinkError
from ...naming import token

if TYPE_CHECKING:
    from ...spec.model import Table

_KEY = "{key}"


@dataclass(frozen=True, slots=True)
class Subject:
    """The subject of one action: its text around every `{key}`."""

    parts: tuple[str, ...]

    def of(self, key: str) -> str:
        """The subject of a row; `key` is a token already."""
        return (key or "_").join(self.parts)

    @property
    def pattern(self) -> str:
        """What `of` can yield, as a NATS wildcard subject: a token that holds the key becomes `*`."""
        tokens = _KEY.join(self.parts).split(".")
        return ".".join("*" if _KEY in word else word for word in tokens)


def subject(template: str, table: Table, action: str) -> Subject:
    """`template` filled in for `table` and `action`; SinkError where that is no subject."""
    filled = (
        template.replace("{schema}", token(table.schema))
        .replace("{table}", token(table.name))
        .replace("{action}", token(action))
    )
    fixed = filled.replace(_KEY, "k")
    # The client's own check of each message is switched off for speed: this one takes its place.
    if any(not word for word in fixed.split(".")) or any(sign.isspace() or sign in "*>{}" for sign in fixed):
        raise SinkError(
            Reason.SPEC_INVALID,
            f"spec.sink.nats.subject: {template!r} gives {filled!r}, which is not a subject to publish to: "
            "leave out spaces, wildcards and empty tokens, and use only {schema} {table} {action} {key}",
        )
    return Subject(tuple(filled.split(_KEY)))


def covers(stream_subject: str, pattern: str) -> bool:
    """Whether every subject of `pattern` is one of `stream_subject` (both may hold wildcards)."""
    wide, narrow = stream_subject.split("."), pattern.split(".")
    for place, word in enumerate(wide):
        if word == ">":
            return len(narrow) > place
        if place >= len(narrow) or narrow[place] == ">" or (word not in ("*", narrow[place])):
            return False
    return len(wide) == len(narrow)


def covered(stream_subjects: Iterable[str], pattern: str) -> bool:
    """Whether one of `stream_subjects` takes all of `pattern`."""
    return any(covers(each, pattern) for each in stream_subjects)
