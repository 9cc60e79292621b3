"""How the database's server is checked, and what we show it: parameters of libpq from a manifest's `tls`."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Mapping
from pathlib import Path

from ... import pem
from ...errors import Reason, SecretError
from ...spec.model import CaRef, DatabaseTls
from ...spec.secrets import Secrets
from .pem_files import kept

# The modes of a manifest, as libpq writes them.
SSL_MODES = {
    "Disable": "disable",
    "Prefer": "prefer",
    "Require": "require",
    "VerifyCA": "verify-ca",
    "VerifyFull": "verify-full",
}
_VERIFYING = frozenset({"verify-ca", "verify-full"})
# Where systems keep the authorities they trust. The OpenSSL inside psycopg's wheels looks into a directory of its own.
_SYSTEM_AUTHORITIES = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem")


def tls_parameters(tls: DatabaseTls | None, secrets: Secrets, given: Mapping[str, str]) -> dict[str, str]:
    """What `tls` adds to the connection parameters `given`, or sets in their place.

    Raises SecretError: SecretNotFound, SecretKeyMissing, ConfigMapNotFound; TLSFailed where what is there is no PEM.
    """
    found: dict[str, str] = {}
    if tls is not None and tls.ca is not None:
        found |= {"sslrootcert": kept(_authority(tls.ca, secrets)), "sslmode": SSL_MODES["VerifyFull"]}
    if tls is not None and tls.mode is not None:
        found["sslmode"] = SSL_MODES[tls.mode]
    if tls is not None and tls.client_cert is not None:
        pair = _client(tls.client_cert, secrets, given.get("sslpassword", ""))
        found |= {"sslcert": kept(pair[pem.CERTIFICATE]), "sslkey": kept(pair[pem.KEY])}
    if {**given, **found}.get("sslmode") in _VERIFYING and "sslrootcert" not in {**given, **found}:
        found["sslrootcert"] = _system_authorities()
    return found


def is_of_the_system(parameter: str, text: str) -> bool:
    """Whether a parameter of libpq's names the authorities that the system trusts, as everybody may."""
    return parameter == "sslrootcert" and text in ("system", *_SYSTEM_AUTHORITIES)


def _authority(ca: CaRef, secrets: Secrets) -> str:
    read = secrets.config_map if ca.kind == "ConfigMap" else secrets.read
    found = _values(read, ca.kind, ca.name, ca.key)[ca.key]
    if pem.trusting(found) is None:
        where = f"key {ca.key!r} of {ca.kind} {ca.name!r} (spec.database.tls.caRef)"
        raise SecretError(Reason.TLS_FAILED, f"{where} {pem.NO_AUTHORITY}")
    return pem.in_ascii(found)


def _client(name: str, secrets: Secrets, password: str) -> dict[str, str]:
    """The certificate of Secret `name` and its key, which belong together. password: of the key; "" where it has none.

    libpq tells of neither by its name, and of a certificate that is none not even that it is ours.
    """
    pair = _values(secrets.read, "Secret", name, pem.CERTIFICATE, pem.KEY)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    # How strong they must be is for libpq and the server to say.
    context.set_ciphers("ALL:@SECLEVEL=0")
    if not pem.show(context, pair[pem.CERTIFICATE], pair[pem.KEY], password):
        where = f"Secret {name!r} (spec.database.tls.clientCertSecretRef)"
        raise SecretError(Reason.TLS_FAILED, f"{where}: {pem.NO_PAIR}")
    return pair


def _values(read: Callable[[str], Mapping[str, str]], kind: str, name: str, *keys: str) -> dict[str, str]:
    """Several that belong together are read at once, for a Secret may change in between."""
    values = read(name)
    for key in keys:
        if key not in values:
            have = ", ".join(sorted(values)) or "none"
            raise SecretError(
                Reason.SECRET_KEY_MISSING,
                f"{kind} {name!r} has no key {key!r}, which spec.database.tls needs; it has the keys: {have}",
            )
    return {key: values[key] for key in keys}


def _system_authorities() -> str:
    asked = ssl.get_default_verify_paths().cafile
    return next((path for path in (asked, *_SYSTEM_AUTHORITIES) if path and Path(path).is_file()), "system")
