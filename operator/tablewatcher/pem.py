"""Certificates and keys as Secrets hold them, PEM: whether a connection can use them, and what to store where not."""

from __future__ import annotations

import ssl

from .private_file import private_file

# The keys of a Secret of type kubernetes.io/tls.
CERTIFICATE, KEY = "tls.crt", "tls.key"
NO_AUTHORITY = "holds no certificate: put the authority's there, as PEM"
NO_PAIR = (
    f"{CERTIFICATE} and {KEY} are not a certificate and its key: store both as PEM, the key without a password, and"
    " check that they belong together"
)


def in_ascii(pem: str) -> str:
    """`pem` as libraries take it: bundles have names of authorities between the certificates, in any script."""
    return pem.encode("ascii", "replace").decode()


def trusting(authority: str) -> ssl.SSLContext | None:
    """A context that trusts this authority alone; None: there is no certificate in it."""
    if not authority.strip():
        return None  # the library would trust the system's authorities
    try:
        return ssl.create_default_context(cadata=in_ascii(authority))
    except (ssl.SSLError, ValueError):
        return None


def show(context: ssl.SSLContext, certificate: str, key: str, password: str = "") -> bool:
    """Lets `context` show a certificate, whose key it is; False: they are none, or of two pairs.

    password: of the key. Without one of its own the library would ask for it on the terminal.
    """
    try:
        with private_file(f"{key}\n{certificate}") as path:
            context.load_cert_chain(path, password=password)
    except (ssl.SSLError, ValueError):
        return False
    return True
