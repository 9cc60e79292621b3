"""A watcher's database Secret, read anew from time to time. Its values stay in here, its hash is keyed."""

from __future__ import annotations

import base64
import binascii
import hashlib
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field

from ..errors import Reason, SecretError
from ..postgres.connection.conninfo import Access, access
from ..spec.model import WatcherSpec
from .client import ApiError, Cluster
from .objects import Object
from .references import of_database, of_listener

ALLOW_LABEL = "tablewatcher.io/allow"

# Of this process only: the hash of a guessed password can be compared with nothing.
_KEY = secrets.token_bytes(32)


@dataclass(frozen=True, slots=True)
class _Fetched:
    """Secrets and ConfigMaps as the API server had them a moment ago."""

    secrets: Mapping[str, dict[str, str]] = field(repr=False)
    config_maps: Mapping[str, dict[str, str]]

    def read(self, name: str) -> dict[str, str]:
        """Every key of Secret `name`."""
        return self.secrets[name]

    def config_map(self, name: str) -> dict[str, str]:
        """Every key of ConfigMap `name`."""
        return self.config_maps[name]


class SecretReader:
    """Reads how databases are reached. `require_label`: only Secrets whose owner has opted in are used, by anybody."""

    def __init__(self, cluster: Cluster, *, require_label: bool) -> None:
        self._cluster = cluster
        self._require_label = require_label

    async def access(self, spec: WatcherSpec) -> Access:
        """How a watcher's database is changed. Raises SecretError, and ApiError where a Secret cannot be read."""
        wanted = of_database(spec)
        fetched = _Fetched(
            {name: await self._secret(spec.namespace, name) for name in wanted.secrets},
            {name: await self._config_map(spec.namespace, name) for name in wanted.config_maps},
        )
        return access(spec, fetched, reads_files=False)

    async def check_mounted(self, spec: WatcherSpec) -> None:
        """Hold that a listener may have what `spec` makes it mount. Raises SecretError and ApiError.

        A kubelet asks for no label, and what a listener has it sends wherever the manifest says. One that is not there
        yet is refused too: it would be mounted whatever it is by then.
        """
        if not self._require_label:
            return
        for name in of_listener([spec]).secrets:
            await self._allowed(spec.namespace, name)

    async def _secret(self, namespace: str, name: str) -> dict[str, str]:
        return _decoded(name, (await self._allowed(namespace, name)).get("data") or {})

    async def _allowed(self, namespace: str, name: str) -> Object:
        try:
            found = await self._cluster.secret(namespace, name)
        except ApiError as error:
            raise _fault(namespace, "Secret", name, error) from None
        labels = found["metadata"].get("labels") or {}
        if self._require_label and labels.get(ALLOW_LABEL) != "true":
            raise SecretError(
                Reason.SECRET_NOT_ALLOWED,
                f"Secret {name!r} may not be used: its owner must label it {ALLOW_LABEL}=true",
            )
        return found

    async def _config_map(self, namespace: str, name: str) -> dict[str, str]:
        try:
            found = await self._cluster.config_map(namespace, name)
        except ApiError as error:
            raise _fault(namespace, "ConfigMap", name, error) from None
        return dict(found.get("data") or {})


def keyed_hash(text: str) -> str:
    """Tells two connection strings apart without keeping them."""
    return hashlib.blake2b(text.encode(), key=_KEY, digest_size=16).hexdigest()


def _decoded(name: str, values: dict[str, str]) -> dict[str, str]:
    decoded = {}
    for key, value in values.items():
        try:
            decoded[key] = base64.b64decode(value).decode("utf-8-sig")
        except (binascii.Error, UnicodeDecodeError):
            continue  # a keystore, say; nothing that a connection is made of
    if not decoded:
        raise SecretError(
            Reason.SECRET_KEY_MISSING,
            f"Secret {name!r} has no keys; it needs uri, or host, username, password and dbname",
        )
    return decoded


def _fault(namespace: str, kind: str, name: str, error: ApiError) -> Exception:
    secret = kind == "Secret"
    if error.status == 404:
        return SecretError(
            Reason.SECRET_NOT_FOUND if secret else Reason.CONFIG_MAP_NOT_FOUND,
            f"there is no {kind} {name!r} in namespace {namespace!r}; create it, or correct its name in the manifest",
        )
    if error.status == 403:
        return SecretError(
            Reason.SECRET_NOT_ALLOWED,
            f"the operator may not read {kind} {name!r} in namespace {namespace!r};"
            f" give it the verb get on {kind.lower()}s there",
        )
    return error
