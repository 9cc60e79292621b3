"""What a manifest and its Secrets say of an HTTP endpoint, read anew now and then so that a rotated value is used."""

from __future__ import annotations

import contextlib
import re
import ssl
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from yarl import URL

from ...errors import Reason, SecretError, SinkError
from ...spec import checks
from ..tls import client_context, secret_value
from .signing import signing_key

if TYPE_CHECKING:
    from ...spec.model import Header, HttpSink, SecretKey
    from ...spec.secrets import Secrets

_FRESH_SECONDS = 60.0
_PLACE = re.compile(r"[^/?]*(?P<path>[^?]*)\??(?P<query>.*)", re.DOTALL)
# What RFC 3986 lets stand in a path and a query.
_ENCODED = re.compile(r"(?:[A-Za-z0-9._~!$&'()*+,;=:@/?-]|%[0-9A-Fa-f]{2})*\Z")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """headers: name and value of those that the manifest adds. keys: to sign with. tls: None for http.

    host: in ASCII, the one spelling that is looked up, connected to and compared with the policy alike.
    """

    url: URL = field(repr=False)
    host: str
    port: int
    headers: tuple[tuple[str, str], ...] = field(repr=False)
    keys: tuple[bytes, ...] = field(repr=False)
    tls: ssl.SSLContext | None

    @property
    def where(self) -> str:
        """Host and port: a URL may hold a token, so only this much of it is ever shown."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    @property
    def peer(self) -> tuple[object, ...]:
        """Equal for endpoints that can share connections."""
        return self.url.scheme, self.host, self.port, self.tls


class EndpointSource:
    """The endpoint of `spec` as manifest and `secrets` have it now."""

    def __init__(self, spec: HttpSink, secrets: Secrets) -> None:
        self._spec = spec
        self._secrets = secrets
        self._endpoint: Endpoint | None = None
        self._until = 0.0
        self._tls: tuple[object, ssl.SSLContext] | None = None
        self._fault: SinkError | None = None

    def read(self) -> Endpoint:
        """Everything anew. Raises SinkError."""
        url = self._url()
        host, port = url.raw_host, url.port
        if url.scheme not in ("http", "https") or host is None or port is None:
            raise SinkError(Reason.SPEC_INVALID, f"spec.sink.http.url {checks.URL_FORM}")
        tls = self._context() if url.scheme == "https" else None
        if tls is None and self._spec.tls is not None:
            raise SinkError(
                Reason.SPEC_INVALID, "spec.sink.http.tls needs an https:// URL: give one, or remove the field"
            )
        headers = tuple(self._header(each) for each in self._spec.headers)
        keys = tuple(self._key(each) for each in self._spec.signing)
        self._endpoint = Endpoint(url, host, port, headers, keys, tls)
        self._until = time.monotonic() + _FRESH_SECONDS
        self._fault = None
        return self._endpoint

    def current(self) -> Endpoint:
        """As read within the last minute. A Secret that is gone meanwhile must not stop what works: it goes on."""
        if self._endpoint is None:
            return self.read()
        if time.monotonic() >= self._until:
            try:
                return self.read()
            except SinkError as error:
                self._fault = error
            self._until = time.monotonic() + _FRESH_SECONDS
        return self._endpoint

    def distrust(self) -> None:
        """The endpoint has refused what we have: read it anew before the next request."""
        self._until = 0.0

    def with_fault(self, message: str) -> str:
        """`message`, which tells what the endpoint has against what was read, and why nothing newer is used."""
        if self._fault is None:
            return message
        return f"{message}; what is there by now cannot be used: {self._fault.message}"

    def _url(self) -> URL:
        place = self._spec.url_secret
        if place is None:
            return self._written()
        text = self._value(place).strip()
        try:
            return _as_written(checks.http_url(text))
        except ValueError:
            raise SinkError(
                Reason.SPEC_INVALID,
                f"key {place.key!r} of Secret {place.name!r} (spec.sink.http.urlSecretRef) is no URL to post to: it"
                " must be an http:// or https:// URL with a host, and without spaces, user, password or fragment",
            ) from None

    def _written(self) -> URL:
        try:
            return _as_written(self._spec.url)
        except ValueError:  # a name that cannot be, such as one with a label of 70 letters
            raise SinkError(Reason.SPEC_INVALID, f"spec.sink.http.url {checks.URL_FORM}") from None

    def _header(self, header: Header) -> tuple[str, str]:
        value = header.value or ""
        if header.secret is not None:
            # `kubectl create secret --from-file` often ends in a newline that nobody meant.
            value = self._value(header.secret).strip()
        try:
            return header.name, checks.header_value(value)
        except ValueError as error:
            text = f"spec.sink.http.headers: the value of {header.name} {error}"
            raise SinkError(Reason.SPEC_INVALID, text) from None

    def _key(self, place: SecretKey) -> bytes:
        try:
            return signing_key(self._value(place))
        except ValueError as error:
            raise SinkError(
                Reason.SECRET_KEY_MISSING,
                f"key {place.key!r} of Secret {place.name!r} (spec.sink.http.signing) is no signing key: {error}",
            ) from None

    def _value(self, place: SecretKey) -> str:
        return secret_value(self._secrets.read, "Secret", place.name, place.key)

    def _context(self) -> ssl.SSLContext:
        """A new one only where what it is made from has changed: with it, connections are made anew."""
        made_from = self._tls_content()
        if self._tls is None or self._tls[0] != made_from:
            self._tls = made_from, client_context(self._spec.tls, self._secrets)
        return self._tls[1]

    def _tls_content(self) -> object:
        tls = self._spec.tls
        found: list[object] = []
        # What is missing is told by `client_context`, which reads the same.
        with contextlib.suppress(SecretError):
            if tls is not None and tls.ca is not None:
                read = self._secrets.config_map if tls.ca.kind == "ConfigMap" else self._secrets.read
                found.append(read(tls.ca.name).get(tls.ca.key))
            if tls is not None and tls.client_cert is not None:
                found.append(self._secrets.read(tls.client_cert))
        return found


def _as_written(text: str) -> URL:
    """The URL `text`, its path and query byte by byte where they can be sent so. ValueError where it is none.

    The library would write them in its own way, which means the same. A receiver that signs or compares them need not
    know that.
    """
    url = URL(text)
    place = _PLACE.match(text.partition("//")[2])
    if place is None or not (_ENCODED.match(place["path"]) and _ENCODED.match(place["query"])):
        return url
    return URL.build(
        scheme=url.scheme,
        authority=url.raw_authority,
        path=place["path"] or "/",
        query_string=place["query"],
        encoded=True,
    )
