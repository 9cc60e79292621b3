"""What a connection that could not be made, or broke, means. Pure: an exception in, a reason and advice out."""

from __future__ import annotations

from errno import ECONNREFUSED, EHOSTUNREACH, ENETUNREACH, ETIMEDOUT

from ...errors import Reason, SinkError
from ..tls_fault import Place, causes, said, tls_advice, tls_error

_PLACE = Place("the endpoint", "spec.sink.http.tls", "the URL")
# Of connections that were made, by the names that the client's library and Python have for them.
_SILENT = {
    "ClientResponseError": "what answers there is no HTTP/1.1",
    "ServerDisconnectedError": "it hangs up without a word",
    "ConnectionResetError": "it breaks the connection off",
    "BrokenPipeError": "it breaks the connection off",
}
# Of connections that were not made. Python's own words name the address, of which a name may have several: each attempt
# would say something else, and be written down as news.
_NOBODY = {
    ECONNREFUSED: "Connection refused",
    ETIMEDOUT: "Connection timed out",
    EHOSTUNREACH: "No route to host",
    ENETUNREACH: "Network is unreachable",
}


class AddressRefusedError(OSError):
    """The address may not be connected to."""


def fault(error: BaseException, where: str) -> SinkError:
    """The SinkError for `error`. `where` is host and port: no secrets."""
    if any(isinstance(cause, AddressRefusedError) for cause in causes(error)):
        return SinkError(
            Reason.ADDRESS_REFUSED,
            # Not which of these it is: where a name leads is not for the author of a manifest.
            f"{where} is refused by the address policy: name a public endpoint or a Service of this namespace; whoever"
            " runs the listener may allow a private one (httpGuard.allow of the chart, --http-allow of the command),"
            " but none that is link-local or of a metadata service, or that httpGuard.deny or --http-deny names",
        )
    if (broken := tls_error(error)) is not None:
        advice = tls_advice(broken, _PLACE) or (
            f"{said(broken)}: check that the endpoint talks TLS 1.2 or later at this port"
        )
        return SinkError(Reason.TLS_FAILED, f"TLS with {where} failed: {advice}")
    if isinstance(error, TimeoutError):
        return SinkError(Reason.SINK_UNREACHABLE, f"{where} did not answer in time")
    if (words := _SILENT.get(type(error).__name__)) is not None:
        return SinkError(
            Reason.SINK_UNREACHABLE, f"{where} gives no answer ({words}): check the URL, and what runs there"
        )
    words = error.strerror if isinstance(error, OSError) else None
    kind = _NOBODY.get(getattr(error, "errno", None) or 0) or words or type(error).__name__
    return SinkError(Reason.SINK_UNREACHABLE, f"{where} cannot be reached ({kind}): check the URL and that it runs")
