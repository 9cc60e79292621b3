"""A connection string that a person gave: read before anything is done with it, so that a slip is told at once."""

from __future__ import annotations

from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.errors import ProgrammingError

from ...errors import Reason, SecretError, TableWatcherError
from ...spec.model import DatabaseTls
from ...spec.secrets import Secrets
from .tls import tls_parameters

# Not which they are: what stands behind a ? of an unencoded password is one, too.
FOREIGN = "parameters that libpq does not know, such as schema or pgbouncer of other libraries"
_FORM = (
    "--dsn (or TABLEWATCHER_DSN) cannot be read as a connection string: write"
    " postgresql://user:password@host:5432/database, with special characters of user and password percent-encoded, or"
    f" host=... port=... user=... password=... dbname=..., and leave out {FOREIGN}"
)


URI = ("postgres://", "postgresql://")
PORT_FORM = "must be a number from 1 to 65535, or one for each host with commas between them"


def are_ports(text: str) -> bool:
    """Whether `text` is a port as libpq takes it, or several; an empty one is the default. libpq looks at it only when
    it connects, and then it is as if nobody were there."""
    ports = [port.strip() for port in text.split(",")]
    return all(
        not port or (port.isascii() and port.isdigit() and len(port) < 10 and 1 <= int(port) <= 65535) for port in ports
    )


def is_split(uri: str, port: str) -> bool:
    """Whether libpq ends the password of `uri` too early, as at a @ or / of it that was not encoded.

    The rest would be host, or port and database, and it would be as if nobody were there. port: what it takes for that.
    """
    place = uri.partition("://")[2].partition("?")[0]
    return place.count("@") > 1 or ("@" in place.partition("/")[2] and not are_ports(port))


def checked(dsn: str) -> str:
    """`dsn` itself. Raises TableWatcherError(SpecInvalid) where libpq could not read it, or its port is none."""
    try:
        found = conninfo_to_dict(dsn)
    except ProgrammingError:
        # libpq's own message quotes the text, which may be the password.
        raise TableWatcherError(Reason.SPEC_INVALID, _FORM) from None
    port = str(found.get("port") or "")
    if dsn.startswith(URI) and is_split(dsn, port):
        raise TableWatcherError(Reason.SPEC_INVALID, _FORM)
    if not are_ports(port):
        raise TableWatcherError(Reason.SPEC_INVALID, f"the port in --dsn (or TABLEWATCHER_DSN) {PORT_FORM}")
    return dsn


def brings_tls(dsn: str) -> bool:
    """Whether `dsn` says itself how its connection is encrypted: any parameter of libpq's that begins with ssl."""
    return any(parameter.startswith("ssl") for parameter in conninfo_to_dict(dsn))


def with_tls(dsn: str, tls: DatabaseTls | None, secrets: Secrets) -> str:
    """`dsn`, encrypted and checked as a manifest's `tls` says, unless it says so itself.

    All or nothing: `sslmode=require` of one and an authority of the other would make a third thing of both. Raises
    TableWatcherError(SpecInvalid) for a DSN that cannot be read, SecretError for what `tls` names and is not there.
    """
    checked(dsn)
    if tls is None or brings_tls(dsn):
        return dsn
    try:
        added = tls_parameters(tls, secrets, {})
    except SecretError as error:
        remedy = "or say in --dsn itself how to encrypt (such as sslmode=require): spec.database.tls is left out then"
        raise SecretError(error.reason, f"{error.message}; {remedy}") from None
    return make_conninfo(dsn, **added)
