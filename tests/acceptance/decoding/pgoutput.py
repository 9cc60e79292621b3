"""Changes as logical decoding tells them: messages of the plugin `pgoutput`, protocol version 1. Sans I/O.

The plugin is the server's own and reads the WAL: it shares nothing with triggers. Tables have REPLICA IDENTITY FULL.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

Row = dict[str, str | None]
_ACTIONS = {"I": "insert", "U": "update", "D": "delete"}


@dataclass(frozen=True, slots=True)
class Decoded:
    """One change: `old` and `new` are texts by column, None for NULL; `table` has no schema."""

    table: str
    action: str
    old: Row | None
    new: Row | None
    transaction: int


def decoded(messages: Iterable[bytes]) -> Iterator[Decoded]:
    """Those of committed transactions, in the order of the commits."""
    relations: dict[int, tuple[str, list[str]]] = {}
    transaction = 0
    for message in messages:
        reader = _Reader(message)
        kind = reader.letter()
        if kind == "B":
            reader.skip(16)
            transaction = reader.number(4)
        elif kind == "R":
            number = reader.number(4)
            relations[number] = _relation(reader)
        elif kind in _ACTIONS:
            table, names = relations[reader.number(4)]
            rows = {}
            while reader.more:
                which = reader.letter()
                rows[which] = _row(reader, names)
            old, new = rows.get("O"), rows.get("N")
            yield Decoded(table, _ACTIONS[kind], old, new, transaction)
        elif kind == "T":
            count = reader.number(4)
            reader.skip(1)
            for _ in range(count):
                yield Decoded(relations[reader.number(4)][0], "truncate", None, None, transaction)


def _relation(reader: _Reader) -> tuple[str, list[str]]:
    """Its name, and those of its columns."""
    reader.text()
    name = reader.text()
    reader.skip(1)
    names = []
    for _ in range(reader.number(2)):
        reader.skip(1)
        names.append(reader.text())
        reader.skip(8)
    return name, names


def _row(reader: _Reader, names: list[str]) -> Row:
    assert reader.number(2) == len(names)
    row: Row = {}
    for name in names:
        kind = reader.letter()
        # Not "u", a long value that has not changed: nothing that is written here is that long.
        assert kind in "nt", kind
        row[name] = None if kind == "n" else reader.take(reader.number(4)).decode()
    return row


class _Reader:
    def __init__(self, message: bytes) -> None:
        self._message = message
        self._at = 0

    @property
    def more(self) -> bool:
        return self._at < len(self._message)

    def take(self, count: int) -> bytes:
        self._at += count
        return self._message[self._at - count : self._at]

    def skip(self, count: int) -> None:
        self._at += count

    def letter(self) -> str:
        return self.take(1).decode()

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "big")

    def text(self) -> str:
        return self.take(self._message.index(b"\0", self._at) + 1 - self._at)[:-1].decode()
