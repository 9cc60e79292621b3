"""From a Secret to a connection string. Knows the keys that CloudNativePG, Crunchy and Zalando write."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field

from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.errors import ProgrammingError

from ...errors import Reason, SecretError
from ...spec.model import Database, Management, WatcherSpec
from ...spec.secrets import Secrets
from .dsn import FOREIGN, PORT_FORM, URI, are_ports, is_split, with_tls
from .tls import is_of_the_system, tls_parameters

_URI_KEYS = ("fqdn-uri", "uri")
_PART_KEYS = {
    "host": ("host",),
    "port": ("port",),
    "username": ("username", "user"),
    "password": ("password",),
    "database": ("dbname", "database"),
}
# Whoever writes the Secret must not choose files that the operator writes to, nor, unless it is theirs too, what it
# reads: a certificate of its own would be shown, a password of its own sent.
_WRITES = frozenset({"sslkeylogfile"})
_READS = frozenset({"passfile", "service", "servicefile", "sslcert", "sslkey", "sslrootcert", "sslcrl", "sslcrldir"})
_LIBPQ = {"host": "host", "port": "port", "username": "user", "password": "password", "database": "dbname"}


def conninfo(database: Database, secrets: Secrets, *, namespace: str, dsn: str | None = None) -> str:
    """The libpq connection string of the role that reads and delivers, from the Secret of `database`.

    dsn: a person's own, which takes the place of the Secret. Raises SecretError naming the Secret, and the keys that
    were looked for, never a value; TableWatcherError(SpecInvalid) for a DSN that cannot be read.
    """
    if dsn:
        return with_tls(dsn, database.tls, secrets)
    return _conninfo(database, database.secret_name, secrets, namespace)


@dataclass(frozen=True, slots=True)
class Access:
    """How the database is changed: `conninfo`, and the role that delivers where it is another one."""

    conninfo: str = field(repr=False)
    listener_role: str | None = None


def access(spec: WatcherSpec, secrets: Secrets, dsn: str | None = None, *, reads_files: bool = True) -> Access:
    """The connection that installs and removes `spec`: the admin's where there is one. Raises as `conninfo`.

    dsn: a person's own, which takes the place of both Secrets. reads_files: whoever writes the Secrets may have files
    of this machine read, as on their own, or in a Pod that has theirs.
    """
    database = spec.database
    if dsn:
        return Access(with_tls(dsn, database.tls, secrets))
    own = _conninfo(database, database.secret_name, secrets, spec.namespace, reads_files=reads_files)
    # Where a DBA runs the SQL, we only look, as the role that is to deliver.
    if database.admin_secret_name is None or spec.management is Management.OBSERVE:
        return Access(own)
    admin = _conninfo(database, database.admin_secret_name, secrets, spec.namespace, reads_files=reads_files)
    role, owner = (str(conninfo_to_dict(text).get("user") or "") for text in (own, admin))
    return Access(admin, role if role and role != owner else None)


def _conninfo(database: Database, secret: str, secrets: Secrets, namespace: str, *, reads_files: bool = True) -> str:
    # A file or `kubectl create secret --from-file` often ends in a newline that nobody meant.
    cleaned = {key: value.rstrip("\r\n") for key, value in secrets.read(secret).items()}
    keys = dict(database.keys)
    place = _uri(secret, cleaned, keys)
    parts = _from_uri(secret, place, cleaned[place]) if place else _from_parts(secret, cleaned, keys)
    _refuse_files(secret, parts, reads_files=reads_files)
    if "host" in parts:
        parts["host"] = ",".join(_in_cluster(host, namespace) for host in parts["host"].split(","))
    return make_conninfo("", **{**parts, **tls_parameters(database.tls, secrets, parts)})


def _uri(secret: str, values: Mapping[str, str], keys: Mapping[str, str]) -> str | None:
    """The key that holds the whole connection, if one does."""
    if "uri" in keys:
        if not values.get(keys["uri"]):
            raise _missing(secret, f"key {keys['uri']!r}, which spec.database.keys.uri names", values)
        return keys["uri"]
    if keys:
        return None
    return next((key for key in _URI_KEYS if values.get(key)), None)


def _from_uri(secret: str, key: str, uri: str) -> dict[str, str]:
    if not uri.startswith(URI):
        raise SecretError(
            Reason.SECRET_KEY_MISSING,
            f"the uri in Secret {secret!r} does not start with postgresql://; write it so, without quotes or spaces"
            " before it, or give host, port, username, password and dbname as keys",
        )
    try:
        parts = {key: str(value) for key, value in conninfo_to_dict(uri).items() if value is not None}
    except ProgrammingError:
        # libpq's own message quotes the text it could not read, which may be the password.
        parts = None
    if parts is None or is_split(uri, parts.get("port", "")):
        raise SecretError(
            Reason.SECRET_KEY_MISSING,
            f"the uri in Secret {secret!r} cannot be read as a connection string; percent-encode the special characters"
            f" of user and password, and leave out {FOREIGN}, or give host, port, username, password and dbname as"
            " keys",
        )
    if not are_ports(parts.get("port", "")):
        raise SecretError(Reason.SECRET_KEY_MISSING, f"the port in key {key!r} of Secret {secret!r} {PORT_FORM}")
    return parts


def _refuse_files(secret: str, parts: Mapping[str, str], *, reads_files: bool) -> None:
    """Raises SecretError where a connection would use files that it must not."""
    named = {name for name, text in parts.items() if text and not is_of_the_system(name, text)}
    if named & _WRITES:
        why = "which would write to a file of the operator's: remove it"
    elif named & _READS and not reads_files:
        why = (
            "which would read a file of the operator's: remove it; spec.database.tls names certificates and authorities"
        )
    else:
        return
    found = ", ".join(sorted(named & (_WRITES | _READS)))
    raise SecretError(Reason.SECRET_KEY_MISSING, f"the uri in Secret {secret!r} has the parameter {found}, {why}")


def _from_parts(secret: str, values: Mapping[str, str], keys: Mapping[str, str]) -> dict[str, str]:
    parts: dict[str, str] = {}
    for word, usual in _PART_KEYS.items():
        candidates = (keys[word],) if word in keys else usual
        found = next((key for key in candidates if values.get(key)), None)
        if found is not None:
            parts[_LIBPQ[word]] = values[found]
            if word == "port" and not are_ports(values[found]):
                raise SecretError(Reason.SECRET_KEY_MISSING, f"key {found!r} of Secret {secret!r} {PORT_FORM}")
        elif word in keys:
            raise _missing(secret, f"key {keys[word]!r}, which spec.database.keys.{word} names", values)
        elif word == "host":
            raise _missing(secret, "a connection: neither 'fqdn-uri' nor 'uri' nor 'host'", values)
        elif word == "username":
            raise _missing(secret, "key 'username' (or 'user')", values)
    parts.setdefault("port", "5432")
    return parts


def _missing(secret: str, what: str, values: Mapping[str, str]) -> SecretError:
    have = ", ".join(key if values[key] else f"{key} (empty)" for key in sorted(values)) or "none"
    return SecretError(
        Reason.SECRET_KEY_MISSING,
        f"Secret {secret!r} lacks {what}; it has the keys: {have}. Add the key, or name yours in spec.database.keys",
    )


def _in_cluster(host: str, namespace: str) -> str:
    """CloudNativePG writes the bare Service name, which resolves in that Service's own namespace only."""
    if "." in host or host in ("", "localhost") or host.startswith(("/", "@")):
        return host
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return f"{host}.{namespace}.svc"
    return host
