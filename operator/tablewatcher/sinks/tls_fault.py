"""Whose certificate a TLS connection failed for, and what to do about it. Pure: an exception in, advice out."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from dataclasses import dataclass

# The codes of OpenSSL's verification, x509_vfy.h.
_EXPIRED, _NOT_YET = 10, 9
_WRONG_HOST = frozenset({62, 64})
_UNKNOWN_AUTHORITY = frozenset({2, 18, 19, 20, 21})
_ISSUER_MISSING = frozenset({2, 20, 21})
# In what OpenSSL calls the alerts of a server that does not like the client's certificate, or that there is none.
_EXPIRED_CLIENT = "CERTIFICATE_EXPIRED"
_UNKNOWN_CLIENT = ("UNKNOWN_CA", "CERTIFICATE_UNKNOWN", "CERTIFICATE_REVOKED")
_WANTS_CERTIFICATE = ("CERTIFICATE_REQUIRED", "BAD_CERTIFICATE", "UNSUPPORTED_CERTIFICATE", "HANDSHAKE_FAILURE")


@dataclass(frozen=True, slots=True)
class Place:
    """What a person may look at. peer: the server; tls: our settings; address: where the server's name stands."""

    peer: str
    tls: str
    address: str


def causes(error: BaseException) -> Iterator[BaseException]:
    """`error` and what it was raised for, outermost first; the HTTP client keeps some of it in an attribute."""
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__ or getattr(cause, "os_error", None)


def tls_error(error: BaseException) -> ssl.SSLError | None:
    """The error of TLS that `error` is or was raised for.

    The innermost: what a library wraps around it is often of the same class, without what it knows.
    """
    found = None
    for cause in causes(error):
        if isinstance(cause, ssl.SSLError):
            found = cause
    return found


def said(error: ssl.SSLError) -> str:
    """OpenSSL's name of what happened, or the words of whoever made the error."""
    # Only OpenSSL's own errors have a reason.
    return str(getattr(error, "reason", "") or error.strerror or "it broke off")


def tls_advice(error: ssl.SSLError, place: Place) -> str | None:
    """What went wrong and what to do; None where it is not about a certificate."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"{error.verify_message.rstrip('.')}: {_of_the_server(error.verify_code, place)}"
    why = said(error)
    ours = f"{place.tls}.clientCertSecretRef"
    if _EXPIRED_CLIENT in why:
        return f"{why}: our certificate has expired, put a new one with its key into the Secret of {ours}"
    if any(word in why for word in _UNKNOWN_CLIENT):
        return f"{why}: {place.peer} does not trust our certificate, put one that it trusts into the Secret of {ours}"
    if isinstance(error, ssl.SSLEOFError) or any(word in why for word in _WANTS_CERTIFICATE):
        return f"{why}: if {place.peer} asks for a certificate, give it one that it trusts, and not expired, in {ours}"
    return None


def _of_the_server(code: int, place: Place) -> str:
    if code == _EXPIRED:
        return f"renew {place.peer}'s certificate; if it is its authority's, put the new one into {place.tls}.caRef"
    if code in _WRONG_HOST:
        return f"write a host name that the certificate is for in {place.address}"
    if code in _UNKNOWN_AUTHORITY:
        named = f"name the authority that signed {place.peer}'s certificate in {place.tls}.caRef"
        if code in _ISSUER_MISSING:
            return f"{named}; if it is there, have {place.peer} send the certificates between the two with its own"
        return named
    return f"check {place.peer}'s certificate{', and the clocks' if code == _NOT_YET else ''}"
