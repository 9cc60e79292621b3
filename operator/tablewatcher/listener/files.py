"""Which files `-f` names, whether they have changed, and what was found in them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ..errors import SpecInvalid
from ..spec.model import WatcherSpec

_SUFFIXES = (".yaml", ".yml", ".json")


@dataclass(frozen=True, slots=True)
class Manifests:
    """What files hold. specs: the good watchers by name; origins: the file of each; faulty: files with a mistake."""

    specs: Mapping[str, WatcherSpec]
    origins: Mapping[str, Path]
    faults: tuple[SpecInvalid, ...]
    faulty: frozenset[Path]

    def are_silent_on(self, name: str, origin: Path) -> bool:
        """Whether watcher `name`, last seen in file `origin`, may be meant to go on though it is not among `specs`."""
        return name not in self.specs and not self.faulty.isdisjoint((origin, *origin.parents))


def manifest_files(paths: Iterable[Path]) -> list[Path]:
    """The files that `-f` names: each file, and those of each directory that look like manifests."""
    found: list[Path] = []
    for path in paths:
        try:
            found += sorted(
                entry
                for entry in path.iterdir()
                if entry.suffix in _SUFFIXES and not entry.name.startswith(".") and entry.is_file()
            )
        except OSError:
            found.append(path)  # a file, or what cannot be read: whoever reads it says so
    return list(dict.fromkeys(found))


def signature(files: Iterable[Path]) -> object:
    """Equal as long as no manifest has changed."""
    found = []
    with contextlib.suppress(OSError):
        for path in manifest_files(files):
            with contextlib.suppress(OSError):
                status = path.stat()  # of the file a link leads to: a kubelet swaps links
                found.append((str(path), status.st_mtime_ns, status.st_size, status.st_ino))
    return tuple(found)
