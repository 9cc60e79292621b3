"""What a failed connection means for the person who wrote the manifest. Pure."""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from urllib.parse import urlsplit

from nats import errors as nats_errors

from ...errors import Reason, SinkError, in_short
from ..tls_fault import Place, said, tls_advice

_AUTH_WORDS = ("authorization violation", "authentication", "auth timeout", "nkeys", "user credentials")
_NO_TLS_YET = ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "PACKET_LENGTH")
_PLACE = Place("the server", "spec.sink.nats.tls", "spec.sink.nats.servers")


def server_names(servers: Sequence[str]) -> str:
    """`servers` for a message: host and port only, since a URL may hold a password."""
    return ", ".join(urlsplit(server).netloc.rpartition("@")[2] or "?" for server in servers)


def fault(error: BaseException | None, servers: Sequence[str], *, encrypted: bool = False) -> SinkError:
    """What went wrong between us and `servers`, with the field of the manifest to look at.

    encrypted: whether TLS was asked for, so that each side may have waited for the other to begin.
    """
    where = server_names(servers)
    if isinstance(error, ssl.SSLError):
        return SinkError(Reason.TLS_FAILED, f"TLS with NATS at {where} failed: {_tls_remedy(error)}")
    if isinstance(error, nats_errors.SecureConnRequiredError):
        return SinkError(
            Reason.TLS_FAILED,
            f"NATS at {where} offers no TLS, and nothing is sent in the clear: turn TLS on there, or remove "
            "spec.sink.nats.tls and write nats:// for tls://",
        )
    text = str(error).lower()
    if isinstance(error, nats_errors.AuthorizationError) or any(word in text for word in _AUTH_WORDS):
        return SinkError(
            Reason.SINK_AUTH_FAILED,
            f"NATS at {where} refused the log-in: check spec.sink.nats.auth, and what its Secret holds",
        )
    # The plain class: what the server itself has said.
    told = isinstance(error, OSError) or type(error) is nats_errors.Error
    cause = f" ({in_short(error)})" if told and str(error) else ""
    first = ", and whether spec.sink.nats.tls.handshakeFirst fits its handshake_first" if encrypted else ""
    return SinkError(
        Reason.SINK_UNREACHABLE,
        f"no NATS server answers at {where}{cause}: check spec.sink.nats.servers and that the server runs{first}",
    )


def _tls_remedy(error: ssl.SSLError) -> str:
    if (advice := tls_advice(error, _PLACE)) is not None:
        return advice
    reason = said(error)
    if any(word in reason for word in _NO_TLS_YET):
        return f"{reason}: the server does not begin with TLS, see spec.sink.nats.tls.handshakeFirst"
    return f"{reason}: check spec.sink.nats.tls, and the server's own TLS settings"
