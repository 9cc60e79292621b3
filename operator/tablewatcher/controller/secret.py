"""A watcher's database Secret, read anew from time to time. Its values stay in here, its hash is keyed."""

from __future__ import annotations

import base64
import binascii
import hashlib
import secrets

from ..errors import Reason, SecretError
from ..postgres.conninfo import conninfo
from ..spec.model import WatcherSpec
from .client import ApiError, Cluster

ALLOW_LABEL = "tablewatcher.io/allow"

# Of this process only: the hash of a guessed password can be compared with nothing.
_KEY = secrets.token_bytes(32)


class SecretReader:
    """Reads connection strings. `require_label`: only Secrets whose owner has opted in."""

    def __init__(self, cluster: Cluster, *, require_label: bool) -> None:
        self._cluster = cluster
        self._require_label = require_label

    async def conninfo(self, spec: WatcherSpec) -> str:
        """The connection string of a watcher's database. Raises SecretError, and ApiError where it cannot be read."""
        name = spec.database.secret_name
        try:
            found = await self._cluster.secret(spec.namespace, name)
        except ApiError as error:
            raise _fault(spec.namespace, name, error) from None
        labels = found["metadata"].get("labels") or {}
        if self._require_label and labels.get(ALLOW_LABEL) != "true":
            raise SecretError(
                Reason.SECRET_NOT_ALLOWED,
                f"Secret {name!r} may not be used: its owner must label it {ALLOW_LABEL}=true",
            )
        return conninfo(spec.database, _decoded(name, found.get("data") or {}), namespace=spec.namespace)


def keyed_hash(text: str) -> str:
    """Tells two connection strings apart without keeping them."""
    return hashlib.blake2b(text.encode(), key=_KEY, digest_size=16).hexdigest()


def _decoded(name: str, values: dict[str, str]) -> dict[str, str]:
    decoded = {}
    for key, value in values.items():
        try:
            decoded[key] = base64.b64decode(value).decode()
        except (binascii.Error, UnicodeDecodeError):
            continue  # a keystore, say; nothing that a connection is made of
    if not decoded:
        raise SecretError(
            Reason.SECRET_KEY_MISSING,
            f"Secret {name!r} has no keys; it needs uri, or host, username, password and dbname",
        )
    return decoded


def _fault(namespace: str, name: str, error: ApiError) -> Exception:
    if error.status == 404:
        return SecretError(
            Reason.SECRET_NOT_FOUND,
            f"there is no Secret {name!r} in namespace {namespace!r};"
            " create it, or correct spec.database.secretRef.name",
        )
    if error.status == 403:
        return SecretError(
            Reason.SECRET_NOT_ALLOWED,
            f"the operator may not read Secret {name!r} in namespace {namespace!r};"
            " give it the verb get on secrets there",
        )
    return error
