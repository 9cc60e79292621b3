"""What a single text in a manifest may be: identifiers, names, URLs, subjects. Each check raises ValueError.

The messages never repeat a URL: people put passwords there.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from urllib.parse import urlsplit

MAX_IDENTIFIER_BYTES = 63
MAX_NAME = 253
MAX_TEXT = 2048
MAX_SUBJECT = 1024

IDENTIFIER = "must be an SQL identifier of 1 to 63 bytes without a NUL character"
SCHEMA_OURS = (
    "must be a schema of the application's: a table in tablewatcher, pg_catalog or information_schema cannot be"
    " watched; name one that the application writes to"
)
DNS_NAME = (
    "must be a Kubernetes name: lower case letters, digits, '-' and '.', starting and ending with a letter or digit"
)
DNS_LABEL = "must be a Kubernetes namespace: at most 63 lower case letters, digits and '-'"
SECRET_KEY = "must be a key of a Secret: 1 to 253 letters, digits, '-', '_' or '.'"  # noqa: S105 - a message
STREAM = "must be the name of a stream: 1 to 255 characters without spaces, '.', '*', '>', '/' or '\\'"
SERVER_FORM = "must be nats:// or tls:// with a host and nothing after the port, such as nats://nats.nats.svc:4222"
SERVER_LIST = "must be one server: write each as an item of its own, such as servers: [nats://a:4222, nats://b:4222]"
SERVER_USER = "must not hold a user, password or token, a manifest is no place for one: name a Secret in `auth`"
URL_FORM = "must be an http:// or https:// URL with a host and without spaces, such as https://hooks.example.com/orders"
URL_USER = (
    "must not hold a user or password, a manifest is no place for one: remove it, and sign requests with `signing`"
)
URL_FRAGMENT = "must not have a fragment (#...), it would never be sent: remove it"
SUBJECT_SIGNS = (
    "must not hold control characters, nor spaces or the wildcards * and > outside of {column:NAME}: an event is"
    " published to one subject"
)
SUBJECT_TOKENS = "must not have an empty token: no '.' at the start, at the end, or twice in a row"
SUBJECT_DOLLAR = "must not start with $: such subjects belong to the server"
SUBJECT_PLACEHOLDERS = (
    "has an unknown placeholder or a stray brace: use {schema}, {table}, {action}, {key} or {column:NAME}"
)
CONDITION_VALUE = "must not hold a NUL character: no value in PostgreSQL does"
HEADER_NAME = "must be the name of a header: letters, digits, '-' and '_'"
HEADER_VALUE = "must be text of one line"
HEADER_OURS = "is a header that is ours to set: remove it (Host, Content-*, traceparent, webhook-*, ce-* and the like)"

_NOT_WATCHED = frozenset(["tablewatcher", "pg_catalog", "information_schema"])
_DNS_NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*\Z")
_DNS_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?\Z")
_SECRET_KEY = re.compile(r"[-._a-zA-Z0-9]{1,253}\Z")
_STREAM = re.compile(r"[^\s.*>/\\]{1,255}\Z")
_SERVER = re.compile(r"(nats|tls)://[^/?#@\\\s]+\Z")
_URL = re.compile(r"https?://[^/?#@\\\s]+([/?]\S*)?\Z")
_USER = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^/?#]*@")
_TEMPLATE = re.compile(r"([^{}]|\{(schema|table|action|key|column:[^{}]+)\})*\Z")
_PLACEHOLDER = re.compile(r"\{[^{}]*\}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_HEADER_NAME = re.compile(r"[A-Za-z0-9_-]{1,256}\Z")
_HEADER_VALUE = re.compile(r"[^\x00-\x08\x0a-\x1f\x7f]*\Z")
_OUR_HEADER = re.compile(
    r"(host|content-.*|connection|keep-alive|te|trailer|transfer-encoding|upgrade|expect|proxy-.*|traceparent|webhook-.*|ce-.*)\Z",
    re.IGNORECASE,
)


def identifier(text: str) -> str:
    """A name in Postgres, unquoted, as the catalog holds it."""
    return _require(text, 1 <= len(text.encode()) <= MAX_IDENTIFIER_BYTES and "\0" not in text, IDENTIFIER)


def watched_schema(text: str) -> str:
    """The schema of a watched table. Changes of what is ours would, delivered, change it again."""
    return _require(identifier(text), text not in _NOT_WATCHED, SCHEMA_OURS)


def dns_name(text: str) -> str:
    """The name of a Kubernetes object (an RFC 1123 subdomain)."""
    return _require(text, len(text) <= MAX_NAME and _DNS_NAME.match(text) is not None, DNS_NAME)


def dns_label(text: str) -> str:
    """The name of a namespace (an RFC 1123 label)."""
    return _require(text, _DNS_LABEL.match(text) is not None, DNS_LABEL)


def secret_key(text: str) -> str:
    """A key inside a Secret."""
    return _require(text, _SECRET_KEY.match(text) is not None, SECRET_KEY)


def stream_name(text: str) -> str:
    """The name of a JetStream stream."""
    return _require(text, _STREAM.match(text) is not None, STREAM)


def server_url(text: str) -> str:
    """The address of a NATS server."""
    _require(text, not _USER.match(text), SERVER_USER)
    _require(text, "," not in text, SERVER_LIST)
    return _require(text, _SERVER.match(text) is not None and _has_host(text), SERVER_FORM)


def http_url(text: str) -> str:
    """The address events are posted to."""
    _require(text, not _USER.match(text), URL_USER)
    _require(text, "#" not in text, URL_FRAGMENT)
    return _require(text, _URL.match(text) is not None and _has_host(text), URL_FORM)


def subject_template(text: str) -> str:
    """A NATS subject with placeholders; what they are filled with is always one token, never empty.

    A column's name may hold what a subject may not, but for braces and control characters.
    """
    _require(text, _TEMPLATE.match(text) is not None, SUBJECT_PLACEHOLDERS)
    outside = _PLACEHOLDER.sub("x", text)
    _require(text, not _CONTROL.search(text) and not re.search(r"[\s*>]", outside), SUBJECT_SIGNS)
    _require(text, all(outside.split(".")), SUBJECT_TOKENS)
    return _require(text, not text.startswith("$"), SUBJECT_DOLLAR)


def condition_value(text: str) -> str:
    """What a condition compares a column with, as text of its type."""
    return _require(text, "\0" not in text, CONDITION_VALUE)


def header_name(text: str) -> str:
    """The name of a header that a manifest may set."""
    _require(text, _HEADER_NAME.match(text) is not None, HEADER_NAME)
    return _require(text, _OUR_HEADER.match(text) is None, HEADER_OURS)


def header_value(text: str) -> str:
    """The value of a header; a line end in it would start another header."""
    return _require(text, _HEADER_VALUE.match(text) is not None, HEADER_VALUE)


def holds(check: Callable[[str], str], value: object) -> bool:
    """Whether `value` is text that passes `check`."""
    try:
        return isinstance(value, str) and check(value) == value
    except ValueError:
        return False


def _has_host(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def _require(text: str, holds: bool, message: str) -> str:
    if not holds:
        raise ValueError(message)
    return text
