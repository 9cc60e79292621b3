"""How values of Secrets are asked for, wherever they come from: mounted files, or the API server."""

from __future__ import annotations

from typing import Protocol

# Where ConfigMaps lie below a directory of mounted Secrets: for people, and for the operator's listeners. No Secret has
# a name with an underscore; `configmaps` is one that a Secret may have.
CONFIG_MAPS = ("configmaps", "config_maps")


class Secrets(Protocol):
    """Secrets of one namespace. Read anew at every connection, so that a rotated value is used."""

    def read(self, name: str) -> dict[str, str]:
        """Every key of Secret `name`; SecretError(SecretNotFound) where there is none."""
        ...

    def config_map(self, name: str) -> dict[str, str]:
        """Every key of ConfigMap `name`, for what is no secret; SecretError(ConfigMapNotFound) where there is none."""
        ...
