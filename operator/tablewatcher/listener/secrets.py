"""Secrets and ConfigMaps as a kubelet mounts them."""

from __future__ import annotations

import contextlib
from pathlib import Path

from ..errors import Reason, SecretError
from ..spec.secrets import CONFIG_MAPS

# How often one may come while we read, before what is there is taken as it is.
_SWAPS = 100


class DirectorySecrets:
    """Secrets as a kubelet mounts them: `<directory>/<secret>/<key>`. database_too: the database's are among them."""

    def __init__(self, directory: Path | None, *, database_too: bool = True) -> None:
        self._directory = directory
        self._database_too = database_too

    def read(self, name: str) -> dict[str, str]:
        """Every key of Secret `name`. Raises SecretError."""
        if self._directory is None:
            raise SecretError(
                Reason.SECRET_NOT_FOUND,
                f"Secret {name!r} is needed; give --secrets-dir DIR with one file a key in DIR/{name}/"
                + (", or --dsn if it is the database's" if self._database_too else ""),
            )
        return _values(self._directory / name, Reason.SECRET_NOT_FOUND, f"Secret {name!r}")

    def config_map(self, name: str) -> dict[str, str]:
        """Every key of ConfigMap `name`: below one of CONFIG_MAPS, else beside the Secrets."""
        if self._directory is None:
            raise SecretError(
                Reason.CONFIG_MAP_NOT_FOUND,
                f"ConfigMap {name!r} is needed; give --secrets-dir DIR with one file a key in DIR/configmaps/{name}/",
            )
        own = [self._directory / place / name for place in CONFIG_MAPS]
        folder = next((each for each in (*own, self._directory / name) if each.is_dir()), own[0])
        return _values(folder, Reason.CONFIG_MAP_NOT_FOUND, f"ConfigMap {name!r}")


def _values(folder: Path, reason: Reason, what: str) -> dict[str, str]:
    """The text of each file in `folder` by its name, all of one moment where a kubelet has mounted it."""
    try:
        values = _of_one_moment(folder)
    except PermissionError as error:
        raise SecretError(
            reason, f"{what} cannot be read: {error.filename} is closed to the user that this runs as; let it read that"
        ) from None
    except OSError as error:
        raise SecretError(
            reason, f"{what} cannot be read from {folder} ({error.strerror}): put a file for each key there"
        ) from None
    if not values:
        raise SecretError(reason, f"{what} has no keys in {folder}: put a file for each key there, as UTF-8 text")
    return values


def _of_one_moment(folder: Path) -> dict[str, str]:
    """A kubelet fills a new directory, swaps the link `..data` to it, and removes the old one.

    Read by way of the link, a new certificate might come with the old key.
    """
    mounted = folder / "..data"
    for _ in range(_SWAPS):
        if not mounted.is_symlink():
            break
        there = mounted.resolve()
        with contextlib.suppress(FileNotFoundError):
            values = _read(there)
            if mounted.resolve() == there:
                return values
    return _read(folder)


def _read(folder: Path) -> dict[str, str]:
    values = {}
    for entry in folder.iterdir():
        # What belongs to the kubelet begins with dots: those are no keys.
        if not entry.name.startswith(".") and entry.is_file():
            with contextlib.suppress(UnicodeDecodeError):  # a keystore, say, beside what is meant
                # Without the mark that editors of Windows begin a file with.
                values[entry.name] = entry.read_text(encoding="utf-8-sig")
    return values
