"""A mounted Secret or ConfigMap: its files, and how they change."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Mapping
from pathlib import Path


class Mount:
    """`folder` as a kubelet keeps it, each version a directory of its own behind the link `..data`."""

    def __init__(self, folder: Path, values: Mapping[str, str] | None = None) -> None:
        self.folder = folder
        self._numbers = itertools.count()
        self._before: Path | None = None
        folder.mkdir(parents=True)
        if values is not None:
            self.put(values)

    def put(self, values: Mapping[str, str]) -> None:
        """A new version, all keys at once."""
        version = self.folder / f"..version_{next(self._numbers)}"
        version.mkdir()
        for key, value in values.items():
            (version / key).write_text(value)
        link = self.folder / "..data_tmp"
        link.symlink_to(version.name)
        link.replace(self.folder / "..data")
        for key in values:
            if not (self.folder / key).is_symlink():
                (self.folder / key).symlink_to(f"..data/{key}")
        if self._before is not None:
            shutil.rmtree(self._before)
        self._before = version

    def overwrite(self, values: Mapping[str, str]) -> None:
        """The same files with other contents, one after the other, as a person or a script does it."""
        for key, value in values.items():
            (self.folder / key).write_text(value)
