"""What a connection that could not be made, or broke, means. Pure: an exception in, a reason and advice out."""

from __future__ import annotations

import ssl

from ..errors import Reason, SinkError

# The codes of OpenSSL's verification, x509_vfy.h.
_EXPIRED, _NOT_YET = 10, 9
_WRONG_HOST = frozenset({62, 64})
_UNKNOWN_AUTHORITY = frozenset({2, 18, 19, 20, 21})
# In what OpenSSL calls the alerts of a server that does not like the client's certificate, or that there is none.
_WANTS_CERTIFICATE = (
    "CERTIFICATE_REQUIRED",
    "BAD_CERTIFICATE",
    "UNKNOWN_CA",
    "CERTIFICATE_UNKNOWN",
    "HANDSHAKE_FAILURE",
)


class AddressRefusedError(OSError):
    """The address may not be connected to."""


def fault(error: BaseException, where: str) -> SinkError:
    """The SinkError for `error`. `where` is host and port: no secrets."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, AddressRefusedError):
            return SinkError(
                Reason.ADDRESS_REFUSED,
                f"{where} is refused by the address policy: name a public endpoint or a Service of this namespace, or"
                " let whoever runs the listener allow it (httpGuard.allow of the chart, --http-allow of the command)",
            )
        if isinstance(cause, ssl.SSLError):
            return SinkError(Reason.TLS_FAILED, f"TLS with {where} failed: {_tls_advice(cause)}")
        cause = cause.__cause__ or getattr(cause, "os_error", None)
    if isinstance(error, TimeoutError):
        return SinkError(Reason.SINK_UNREACHABLE, f"{where} did not answer in time")
    kind = error.strerror if isinstance(error, OSError) and error.strerror else type(error).__name__
    return SinkError(Reason.SINK_UNREACHABLE, f"{where} cannot be reached ({kind}): check the URL and that it runs")


def _tls_advice(error: ssl.SSLError) -> str:
    why = str(getattr(error, "verify_message", "") or getattr(error, "reason", "") or error.strerror or "it broke off")
    code = getattr(error, "verify_code", 0)
    if code == _EXPIRED:
        return f"{why}: renew the endpoint's certificate"
    if code == _NOT_YET:
        return f"{why}: check the endpoint's certificate, and the clocks"
    if code in _WRONG_HOST:
        return f"{why}: use a host name in the URL that the certificate is for"
    if code in _UNKNOWN_AUTHORITY:
        return f"{why}: name the authority that signed the endpoint's certificate in spec.sink.http.tls.caRef"
    if isinstance(error, ssl.SSLEOFError) or any(word in why for word in _WANTS_CERTIFICATE):
        return f"{why}: if the endpoint asks for a certificate, give it one in spec.sink.http.tls.clientCertSecretRef"
    return f"{why}: check that the endpoint talks TLS 1.2 or later at this port"
