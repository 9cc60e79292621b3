"""Where manifests and Secrets come from when they are files, and what has changed there."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from ..errors import FieldError, Reason, SecretError, SpecInvalid
from ..spec.model import WatcherSpec
from ..spec.parse import load_manifests

_SUFFIXES = (".yaml", ".yml", ".json")


class DirectorySecrets:
    """Secrets as a kubelet mounts them: `<directory>/<secret>/<key>`."""

    def __init__(self, directory: Path | None) -> None:
        self._directory = directory

    def read(self, name: str) -> dict[str, str]:
        """Every key of Secret `name`. Raises SecretError."""
        if self._directory is None:
            raise SecretError(
                Reason.SECRET_NOT_FOUND,
                f"Secret {name!r} is needed; give --secrets-dir DIR with one file a key in DIR/{name}/,"
                " or --dsn for the database",
            )
        return _values(self._directory / name, Reason.SECRET_NOT_FOUND, f"Secret {name!r}")

    def config_map(self, name: str) -> dict[str, str]:
        """Every key of ConfigMap `name`: in `<directory>/configmaps/<name>`, else beside the Secrets."""
        if self._directory is None:
            raise SecretError(
                Reason.CONFIG_MAP_NOT_FOUND,
                f"ConfigMap {name!r} is needed; give --secrets-dir DIR with one file a key in DIR/configmaps/{name}/",
            )
        folder = self._directory / "configmaps" / name
        if not folder.is_dir():
            folder = self._directory / name
        return _values(folder, Reason.CONFIG_MAP_NOT_FOUND, f"ConfigMap {name!r}")


def _values(folder: Path, reason: Reason, what: str) -> dict[str, str]:
    """The text of each file in `folder` by its name."""
    # A kubelet swaps a link `..data`; its names begin with dots and are no keys.
    try:
        files = [entry for entry in folder.iterdir() if not entry.name.startswith(".") and entry.is_file()]
        values = {entry.name: entry.read_text(encoding="utf-8") for entry in files}
    except (OSError, UnicodeDecodeError) as error:
        detail = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise SecretError(
            reason, f"{what} cannot be read from {folder} ({detail}): put a file for each key there"
        ) from None
    if not values:
        raise SecretError(reason, f"{what} has no keys in {folder}")
    return values


def manifest_files(paths: Iterable[Path]) -> list[Path]:
    """The files that `-f` names: each file, and those of each directory that look like manifests."""
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            found += sorted(
                entry
                for entry in path.iterdir()
                if entry.suffix in _SUFFIXES and not entry.name.startswith(".") and entry.is_file()
            )
        else:
            found.append(path)
    return found


def load(paths: Iterable[Path], *, require_secret: bool) -> tuple[list[WatcherSpec], list[SpecInvalid]]:
    """Every watcher that can be read, and what is wrong with those that cannot: a bad one stops no good one."""
    specs: dict[str, WatcherSpec] = {}
    origins: dict[str, Path] = {}
    faults: list[SpecInvalid] = []
    for path in manifest_files(paths):
        try:
            content = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            detail = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
            faults.append(SpecInvalid(str(path), (FieldError("-f", f"{path} cannot be read: {detail}"),)))
            continue
        try:
            for spec in load_manifests(content, str(path), require_secret=require_secret):
                name = spec.qualified_name
                if name in specs:
                    where = " and ".join(dict.fromkeys((str(origins[name]), str(path))))
                    text = f"{name} is declared more than once (in {where}); names must differ, and the last one counts"
                    faults.append(SpecInvalid(name, (FieldError("metadata.name", text),)))
                specs[name], origins[name] = spec, path
        except SpecInvalid as error:
            faults.append(error)
    return list(specs.values()), faults
