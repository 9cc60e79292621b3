"""Which files `-f` names, whether they have changed, and what was found in them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from stat import S_ISREG

from ..errors import SpecInvalid
from ..spec.model import WatcherSpec

RESTLESS_LOOKS = 5
_SUFFIXES = (".yaml", ".yml", ".json")


@dataclass(frozen=True, slots=True)
class Manifests:
    """What files hold. specs: the good watchers by name; origins: the file of each; faulty: files with a mistake, or
    that cannot be read; deleted: those that `-f` names and that are gone."""

    specs: Mapping[str, WatcherSpec]
    origins: Mapping[str, Path]
    faults: tuple[SpecInvalid, ...]
    faulty: frozenset[Path]
    deleted: frozenset[Path] = frozenset()

    def are_silent_on(self, name: str, origin: Path) -> bool:
        """Whether watcher `name`, last seen in file `origin`, may be meant to go on though it is not among `specs`."""
        if name in self.specs:
            return False
        # What was a directory and is gone may come back with all it held, as a volume that is not mounted does.
        return origin in self.faulty or not (self.faulty | self.deleted).isdisjoint(origin.parents)


class Looks:
    """When to read manifests again, from one look to the next: a change has to stand for a look. Pure.

    Editors and scripts empty a file before they write it, or take it away before they put the new one in its place: a
    watcher would be stopped for that moment, or run with half of its manifest. What never rests is read all the same.
    """

    def __init__(self) -> None:
        self._seen: object = None
        self._waited = 0

    def is_due(self, newest: object, read: object) -> bool:
        """Whether to read files of signature `newest` now. read: the one they were last read with, None at first."""
        rests, self._seen = newest == self._seen, newest
        if newest == read:
            self._waited = 0
            return False
        self._waited += 1
        return read is None or rests or self._waited > RESTLESS_LOOKS


def manifest_files(paths: Iterable[Path]) -> list[Path]:
    """The files that `-f` names: each file, and those of each directory that look like manifests."""
    found: list[Path] = []
    for path in paths:
        try:
            found += sorted(
                entry
                for entry in path.iterdir()
                if entry.suffix in _SUFFIXES and not entry.name.startswith(".") and _may_be_file(entry)
            )
        except OSError:
            found.append(path)  # a file, or what cannot be read: whoever reads it says so
    return list(dict.fromkeys(found))


def _may_be_file(entry: Path) -> bool:
    """Whether it is a file, or something that cannot be looked at: whoever reads it says why."""
    try:
        return S_ISREG(entry.stat().st_mode)
    except FileNotFoundError:
        return entry.is_symlink()  # one that leads nowhere; else it is gone since we looked
    except OSError:
        return True


def signature(files: Iterable[Path]) -> object:
    """Equal as long as no manifest has changed."""
    found: list[tuple[object, ...]] = []
    with contextlib.suppress(OSError):
        for path in manifest_files(files):
            try:
                status = path.stat()  # of the file a link leads to: a kubelet swaps links
                found.append((str(path), status.st_mtime_ns, status.st_size, status.st_ino))
            except OSError as error:
                found.append((str(path), error.errno))
    return tuple(found)
