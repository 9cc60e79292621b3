"""Where manifests and Secrets come from when they are files, and what has changed there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ..errors import FieldError, Reason, SecretError, SpecInvalid
from ..spec.model import WatcherSpec
from ..spec.parse import read_manifests

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


def load(paths: Iterable[Path], *, require_secret: bool) -> Manifests:
    """Every watcher that can be read, and what is wrong with those that cannot: a bad one stops no good one.

    Of two watchers of one name neither is taken: nobody can say which is meant.
    """
    declared: dict[str, list[tuple[Path, WatcherSpec]]] = {}
    faults: list[SpecInvalid] = []
    faulty: set[Path] = set()
    for path in manifest_files(paths):
        found, fault = _read(path, require_secret=require_secret)
        for spec in found:
            declared.setdefault(spec.qualified_name, []).append((path, spec))
        if fault is not None:
            faults.append(fault)
            faulty.add(path)
    for name, places in declared.items():
        if len(places) > 1:
            files = tuple(dict.fromkeys(path for path, _ in places))
            faults.append(_repeated(name, files))
            faulty.update(files)
    single = {name: places[0] for name, places in declared.items() if len(places) == 1}
    return Manifests(
        {name: spec for name, (_, spec) in single.items()},
        {name: path for name, (path, _) in single.items()},
        tuple(faults),
        frozenset(faulty),
    )


def _read(path: Path, *, require_secret: bool) -> tuple[list[WatcherSpec], SpecInvalid | None]:
    try:
        content = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        detail = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        return [], SpecInvalid(str(path), (FieldError("-f", f"{path} cannot be read: {detail}"),))
    return read_manifests(content, str(path), require_secret=require_secret)


def _repeated(name: str, files: Iterable[Path]) -> SpecInvalid:
    where = " and ".join(map(str, files))
    text = f"{name} is declared more than once (in {where}), so none of these is used: rename or remove all but one"
    return SpecInvalid(name, (FieldError("metadata.name", text),))
