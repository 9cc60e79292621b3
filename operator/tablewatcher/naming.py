"""Names: of a watcher's objects in Postgres, and of what is sent. One identity, one hash, no user text.

Everything of ours in a database lives in schema `tablewatcher`, is named from the hash of the watcher's
identity, and carries the identity itself in a COMMENT: ownership is read from the comment, never guessed
from the name.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

SCHEMA = "tablewatcher"
RING_SLOTS = 3
LOCAL_INSTANCE = "local"
# Bytes. A NATS server takes a command line of 4 KiB; what stands there beside the subject takes well under 256.
LONGEST_SUBJECT = 4096 - 256

_PLAIN = re.compile(r"[A-Za-z0-9_-]+\Z")


@dataclass(frozen=True, slots=True)
class WatcherNames:
    """Names of one watcher's database objects; all but the trigger live in schema `tablewatcher`."""

    identity: str
    hash: str

    @property
    def function(self) -> str:
        return f"capture_{self.hash}"

    @property
    def trigger(self) -> str:
        # Sorts before an application's triggers: with a name that sorts last, a trigger of theirs that
        # updates its own row makes the update arrive before the insert.
        return f"00_tablewatcher_{self.hash}"

    @property
    def insert_trigger(self) -> str:
        return f"{self.trigger}_insert"

    @property
    def truncate_trigger(self) -> str:
        return f"{self.trigger}_truncate"

    @property
    def rings(self) -> tuple[str, ...]:
        return tuple(f"ring_{self.hash}_{slot}" for slot in range(RING_SLOTS))

    @property
    def cursors(self) -> tuple[str, ...]:
        return tuple(f"cursor_{self.hash}_{slot}" for slot in range(RING_SLOTS))

    @property
    def ids(self) -> str:
        return f"ids_{self.hash}"

    @property
    def slot(self) -> str:
        return f"slot_{self.hash}"

    @property
    def wake(self) -> str:
        return f"wake_{self.hash}"

    @property
    def stop(self) -> str:
        return f"stop_{self.hash}"

    @property
    def skips(self) -> str:
        return f"skips_{self.hash}"

    @property
    def sequences(self) -> tuple[str, ...]:
        return (self.ids, self.slot, self.wake, self.stop, self.skips)

    @property
    def channel(self) -> str:
        return f"tablewatcher_{self.hash}"

    def namesakes(self, identities: Iterable[str]) -> tuple[str, ...]:
        """The instances, but ours, of those that are of a watcher of the same namespace and name."""
        ours, *name = self.identity.rsplit("/", 2)
        found = (identity.rsplit("/", 2) for identity in identities)
        return tuple(instance for instance, *of in found if of == name and instance != ours)

    @property
    def longest(self) -> int:
        """Bytes of the longest name; PostgreSQL would cut what is longer than it takes."""
        triggers = (self.trigger, self.insert_trigger, self.truncate_trigger)
        indexes = tuple(f"{ring}_xid" for ring in self.rings)
        return max(map(len, (*triggers, self.function, *indexes, *self.cursors, *self.sequences, self.channel)))


def watcher_names(instance: str, namespace: str, name: str) -> WatcherNames:
    """The names of watcher `namespace/name` as `instance` (a chart value, a cluster's id, or `local`) owns it."""
    identity = f"{instance}/{namespace}/{name}"
    return WatcherNames(identity, hashlib.sha256(identity.encode()).hexdigest()[:16])


def source(namespace: str, name: str) -> str:
    """The CloudEvents `source` of a watcher."""
    return f"/namespaces/{namespace}/tablewatchers/{name}"


def token(text: str | None) -> str:
    """One subject token: ASCII letters, digits, `_`, `-` stay; other UTF-8 bytes become `%XX`; empty is `_`.

    `tablewatcher.token` in SQL is its twin; a test holds them to the same answers.
    """
    if not text:
        return "_"
    if _PLAIN.match(text):
        return text
    return "".join(
        chr(byte) if chr(byte).isascii() and (chr(byte).isalnum() or byte in b"_-") else f"%{byte:02X}"
        for byte in text.encode()
    )


def key_token(parts: tuple[str | None, ...]) -> str:
    """A key as one token: the tokens of its parts in key order, joined by `,`."""
    return ",".join(token(part) for part in parts)


def key_parts(text: str) -> tuple[bytes, ...] | None:
    """The parts of the keys whose token is `text`, in UTF-8; b"_": null, empty or "_". None: it is no key's."""
    parts = tuple(map(unquote_to_bytes, text.split(",")))
    try:
        is_token = key_token(tuple(part.decode() for part in parts)) == text
    except UnicodeDecodeError:
        return None
    return parts if is_token else None
