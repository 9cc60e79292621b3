"""Where an event goes: the subject template filled in, and whether a stream takes what it yields. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...errors import Reason, SinkError
from ...naming import LONGEST_SUBJECT, token

if TYPE_CHECKING:
    from ...spec.model import Table

_KEY = -1
_PER_ROW = re.compile(r"(\{key\}|\{column:[^{}]+\})")
MAX_BYTES = LONGEST_SUBJECT


@dataclass(frozen=True, slots=True)
class Subject:
    """The subject of one action: `texts` around the `slots`, each the key (-1) or a place in `Event.routing`."""

    texts: tuple[str, ...]
    slots: tuple[int, ...] = ()

    def of(self, key: str, routing: Sequence[str] | None = None) -> str:
        """The subject of a row; `key` and `routing` are tokens already. What a row does not have is `_`."""
        texts, slots = self.texts, self.slots
        if slots == (_KEY,):  # most of those that have any
            return f"{texts[0]}{key or '_'}{texts[1]}"
        parts = [texts[0]]
        for place, slot in enumerate(slots, 1):
            word = key if slot == _KEY else (routing[slot] if routing else "")
            parts += (word or "_", texts[place])
        return "".join(parts)

    @property
    def least(self) -> int:
        """Bytes of the fixed text."""
        return sum(len(text.encode()) for text in self.texts)

    @property
    def pattern(self) -> str:
        """What `of` can yield, as a NATS wildcard subject: a token with something of the row becomes `*`."""
        words = "\0".join(self.texts).split(".")
        return ".".join("*" if "\0" in word else word for word in words)


def subject(template: str, table: Table, action: str, columns: Sequence[str] = ()) -> Subject:
    """`template` filled in for `table` and `action`; SinkError where that is no subject.

    columns: `WatcherSpec.routing_columns`, what the places in `Event.routing` stand for.
    """
    filled = {"{schema}": token(table.schema), "{table}": token(table.name), "{action}": token(action)}
    pieces = _PER_ROW.split(template)
    texts = pieces[::2]
    for placeholder, word in filled.items():
        texts = [text.replace(placeholder, word) for text in texts]
    sample = "k".join(texts)
    # The client's own check of each message is switched off for speed: this one takes its place.
    if any(not word for word in sample.split(".")) or any(sign.isspace() or sign in "*>{}\0" for sign in sample):
        raise SinkError(
            Reason.SPEC_INVALID,
            f"spec.sink.nats.subject: {template!r} gives {sample!r}, which is not a subject to publish to: leave out "
            "spaces, wildcards and empty tokens, and use only {schema} {table} {action} {key} {column:NAME}",
        )
    if len(sample.encode()) > MAX_BYTES:
        raise SinkError(
            Reason.SPEC_INVALID, f"spec.sink.nats.subject: is longer than {MAX_BYTES} bytes when filled in: shorten it"
        )
    return Subject(tuple(texts), tuple(_slot(name, columns) for name in pieces[1::2]))


def _slot(placeholder: str, columns: Sequence[str]) -> int:
    return _KEY if placeholder == "{key}" else columns.index(placeholder.removeprefix("{column:")[:-1])


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
