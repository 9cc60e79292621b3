"""How a sink's server is checked, and what we show it: one ssl.SSLContext from a manifest's `tls` and its Secrets."""

from __future__ import annotations

import functools
import ssl
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from .. import pem
from ..errors import Reason, SecretError, SinkError

if TYPE_CHECKING:
    from ..spec.model import CaRef, Tls
    from ..spec.secrets import Secrets


def client_context(tls: Tls | None, secrets: Secrets) -> ssl.SSLContext:
    """A context that verifies the server's certificate and host name, always.

    The authority is `tls.ca` alone where there is one, else the system's. Reads `secrets` anew: ask again for every
    connection, so that a rotated certificate is used. Where there is nothing to read, one context serves all.
    SinkError: SecretNotFound, SecretKeyMissing, ConfigMapNotFound, or TLSFailed where what is there is no usable PEM.
    """
    ca, client = (None, None) if tls is None else (tls.ca, tls.client_cert)
    if ca is None and client is None:
        return _system_context()
    context = ssl.create_default_context() if ca is None else _context_of(ca, secrets)
    if client is not None:
        _show(context, client, secrets)
    return context


@functools.cache
def _system_context() -> ssl.SSLContext:
    # 150 authorities take 0.8 MB and 30 ms: not again for each of 200 watchers.
    return ssl.create_default_context()


def secret_value(read: Callable[[str], Mapping[str, str]], kind: str, name: str, key: str) -> str:
    """Value `key` of Secret or ConfigMap (`kind`) `name`, got with `read`; SinkError where there is none."""
    (value,) = secret_values(read, kind, name, key)
    return value


def secret_values(read: Callable[[str], Mapping[str, str]], kind: str, name: str, *keys: str) -> tuple[str, ...]:
    """Several values that belong together, as `secret_value`: read at once, for a Secret may change in between."""
    try:
        values = read(name)
    except SecretError as error:
        raise SinkError(error.reason, error.message) from None
    for key in keys:
        if key not in values:
            have = ", ".join(sorted(values)) or "none"
            raise SinkError(
                Reason.SECRET_KEY_MISSING,
                f"{kind} {name!r} has no key {key!r}: add it, or name another; it has the keys: {have}",
            )
    return tuple(values[key] for key in keys)


def _context_of(ca: CaRef, secrets: Secrets) -> ssl.SSLContext:
    read = secrets.config_map if ca.kind == "ConfigMap" else secrets.read
    context = pem.trusting(secret_value(read, ca.kind, ca.name, ca.key))
    if context is None:
        where = f"key {ca.key!r} of {ca.kind} {ca.name!r} (tls.caRef of spec.sink)"
        raise SinkError(Reason.TLS_FAILED, f"{where} {pem.NO_AUTHORITY}")
    return context


def _show(context: ssl.SSLContext, name: str, secrets: Secrets) -> None:
    """Let `context` show the certificate of Secret `name` to a server that asks for one."""
    key, certificate = secret_values(secrets.read, "Secret", name, pem.KEY, pem.CERTIFICATE)
    if not pem.show(context, certificate, key):
        where = f"Secret {name!r} (tls.clientCertSecretRef of spec.sink)"
        raise SinkError(Reason.TLS_FAILED, f"{where}: {pem.NO_PAIR}")
    # Of a server that asks for one once it has seen the path, as Apache does for a part of its site.
    context.post_handshake_auth = True
