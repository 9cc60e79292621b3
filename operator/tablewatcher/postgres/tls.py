"""How the database's server is checked, and what we show it: parameters of libpq from a manifest's `tls`."""

from __future__ import annotations

import atexit
import os
import shutil
import ssl
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from ..errors import Reason, SecretError
from ..spec.model import CaRef, DatabaseTls
from ..spec.secrets import Secrets

# The modes of a manifest, as libpq writes them.
SSL_MODES = {
    "Disable": "disable",
    "Prefer": "prefer",
    "Require": "require",
    "VerifyCA": "verify-ca",
    "VerifyFull": "verify-full",
}
_VERIFYING = frozenset({"verify-ca", "verify-full"})
_CERTIFICATE, _KEY = "tls.crt", "tls.key"
# Where systems keep the authorities they trust. The OpenSSL inside psycopg's wheels looks into a directory of its own.
_SYSTEM_AUTHORITIES = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem")


def tls_parameters(tls: DatabaseTls | None, secrets: Secrets, given: Mapping[str, str]) -> dict[str, str]:
    """What `tls` adds to the connection parameters `given`, or sets in their place.

    Raises SecretError: SecretNotFound, SecretKeyMissing, ConfigMapNotFound; TLSFailed where what is there is no PEM.
    """
    found: dict[str, str] = {}
    if tls is not None and tls.ca is not None:
        found |= {"sslrootcert": _path(_authority(tls.ca, secrets)), "sslmode": SSL_MODES["VerifyFull"]}
    if tls is not None and tls.mode is not None:
        found["sslmode"] = SSL_MODES[tls.mode]
    if tls is not None and tls.client_cert is not None:
        for parameter, key, mark in (("sslcert", _CERTIFICATE, "CERTIFICATE"), ("sslkey", _KEY, "PRIVATE KEY")):
            pem = _value(secrets.read, "Secret", tls.client_cert, key)
            if f"{mark}-----" not in pem:
                raise SecretError(
                    Reason.TLS_FAILED,
                    f"key {key!r} of Secret {tls.client_cert!r} (spec.database.tls.clientCertSecretRef) is no PEM:"
                    f" put the {mark.lower()} there, beginning with -----BEGIN",
                )
            found[parameter] = _path(pem)
    if {**given, **found}.get("sslmode") in _VERIFYING and "sslrootcert" not in {**given, **found}:
        found["sslrootcert"] = _system_authorities()
    return found


def _authority(ca: CaRef, secrets: Secrets) -> str:
    pem = _value(secrets.config_map if ca.kind == "ConfigMap" else secrets.read, ca.kind, ca.name, ca.key)
    try:
        if pem.strip():
            ssl.create_default_context(cadata=pem)
            return pem
    except (ssl.SSLError, ValueError):
        pass
    raise SecretError(
        Reason.TLS_FAILED,
        f"key {ca.key!r} of {ca.kind} {ca.name!r} (spec.database.tls.caRef) holds no certificate:"
        " put the authority's there, as PEM",
    )


def _value(read: Callable[[str], Mapping[str, str]], kind: str, name: str, key: str) -> str:
    values = read(name)
    if key not in values:
        have = ", ".join(sorted(values)) or "none"
        raise SecretError(
            Reason.SECRET_KEY_MISSING,
            f"{kind} {name!r} has no key {key!r}, which spec.database.tls needs; it has the keys: {have}",
        )
    return values[key]


def _system_authorities() -> str:
    asked = ssl.get_default_verify_paths().cafile
    return next((path for path in (asked, *_SYSTEM_AUTHORITIES) if path and Path(path).is_file()), "system")


_files: dict[str, str] = {}


def _path(pem: str) -> str:
    """The path of a file with this content that only this process can read; the same content, the same path.

    libpq takes certificates from files only, and a key only from one that is closed to others, which a mounted Secret
    is not. In memory where the system can: a key never reaches a disk then, a read-only root is no hindrance, and
    nothing is left behind even by SIGKILL. They stay open for as long as the process: a connection may be made at any
    time, and there are as many as there are certificates.
    """
    if pem not in _files:
        _files[pem] = _in_memory(pem) if hasattr(os, "memfd_create") else _on_disk(pem)
    return _files[pem]


def _in_memory(pem: str) -> str:
    descriptor = os.memfd_create("tablewatcher", os.MFD_CLOEXEC)
    os.fchmod(descriptor, 0o600)
    with os.fdopen(os.dup(descriptor), "w", encoding="utf-8") as file:
        file.write(pem)
    return f"/proc/self/fd/{descriptor}"


def _on_disk(pem: str) -> str:
    directory = tempfile.mkdtemp(prefix="tablewatcher-")  # mode 0700
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    path = Path(directory, "pem")
    path.touch(mode=0o600)
    path.write_text(pem, encoding="utf-8")
    return str(path)
