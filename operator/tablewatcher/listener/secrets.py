"""Secrets and ConfigMaps as a kubelet mounts them."""

from __future__ import annotations

import contextlib
from pathlib import Path

from ..errors import Reason, SecretError


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
    values = {}
    try:
        for entry in folder.iterdir():
            # A kubelet swaps a link `..data`; its names begin with dots and are no keys.
            if not entry.name.startswith(".") and entry.is_file():
                with contextlib.suppress(UnicodeDecodeError):  # a keystore, say, beside what is meant
                    values[entry.name] = entry.read_text(encoding="utf-8")
    except OSError as error:
        raise SecretError(
            reason, f"{what} cannot be read from {folder} ({error.strerror}): put a file for each key there"
        ) from None
    if not values:
        raise SecretError(reason, f"{what} has no keys in {folder}")
    return values
