"""Why a connection to the database failed: libpq's text as a reason and a remedy. Pure."""

from __future__ import annotations

import re

from ...errors import DatabaseError, Reason
from .string_fault import STRING_FAULTS, parameter_fault

_AUTHENTICATION, _TLS, _UNREACHABLE = Reason.AUTHENTICATION_FAILED, Reason.TLS_FAILED, Reason.DATABASE_UNREACHABLE
_CLIENT_CERTIFICATE = (
    "a client certificate, give it one that it trusts, and not expired, in spec.database.tls.clientCertSecretRef (or"
    " sslcert and sslkey)"
)
# Of hosts, roles, databases and files: what they are called is no sign of anything.
_NAMES = re.compile(r"\"[^\"\n]*\"|(?<=host )'[^'\n]*'|(?<=host: )'[^'\n]*'")
# libpq gives no SQLSTATE for a connection that failed, only a text: patterns of what may stand in it, first match wins.
_FAULTS: tuple[tuple[str, Reason, str], ...] = (
    *STRING_FAULTS,
    (
        "unsupported startup parameter",
        Reason.POOLER_DETECTED,
        (
            "the pooler takes no such parameter of a connection: take options out of the connection string (and out of"
            " PGOPTIONS), or name them in the pooler's ignore_startup_parameters"
        ),
    ),
    ("no more connections allowed", _UNREACHABLE, "the pooler has no room for another client: raise max_client_conn"),
    (
        "query_wait_timeout",
        _UNREACHABLE,
        "the pooler has no free server connection: raise its pool_size, or end transactions that stay open",
    ),
    (
        "invalid response to ssl negotiation|expected authentication request",
        _UNREACHABLE,
        "what answers there is no Postgres: correct host and port",
    ),
    (
        "password authentication failed",
        _AUTHENTICATION,
        ("the database refuses the user name or password: correct them in the Secret, or in --dsn"),
    ),
    (
        "no password supplied",
        _AUTHENTICATION,
        ("the database asks for a password and none is given: add it to the Secret, or to --dsn"),
    ),
    (
        "certificate authentication failed",
        _AUTHENTICATION,
        ("the client certificate names another role than the one that logs in"),
    ),
    ("authentication failed", _AUTHENTICATION, "the database refuses the login"),
    (
        "no pg_hba.conf entry",
        _AUTHENTICATION,
        (
            "pg_hba.conf of the database has no entry that lets this login in: add one for the role, the"
            " database and our address, or ask for encryption where the entry does (hostssl)"
        ),
    ),
    ("is not permitted to log in", _AUTHENTICATION, "the role may not log in: ALTER ROLE ... LOGIN"),
    (
        "permission denied for database",
        Reason.PERMISSION_DENIED,
        (
            "the role may not connect to this database; its owner must run: GRANT CONNECT ON DATABASE ... TO ... (the"
            " database and the role of the connection)"
        ),
    ),
    (
        "too many connections for",
        _UNREACHABLE,
        (
            "the role or the database has as many connections as it may have: end some, or raise its CONNECTION LIMIT"
            " (ALTER ROLE, ALTER DATABASE)"
        ),
    ),
    (
        "not currently accepting connections",
        _UNREACHABLE,
        "the database takes no connections: ALTER DATABASE ... ALLOW_CONNECTIONS true",
    ),
    (
        "role ",
        _AUTHENTICATION,
        ("the role does not exist in the database: create it with LOGIN, or correct the user name"),
    ),
    (
        "server does not support ssl",
        _TLS,
        (
            "the server offers no TLS; switch it on there (ssl = on), or ask for less with"
            " spec.database.tls.mode or sslmode"
        ),
    ),
    (
        "does not match host name",
        _TLS,
        (
            "the server's certificate is for another host name; connect by a name that stands in it, or use"
            " mode VerifyCA"
        ),
    ),
    (
        "certificate verify failed",
        _TLS,
        (
            "the server's certificate is not signed by an authority that we trust, or one of both has expired; name its"
            " authority in spec.database.tls.caRef (or sslrootcert), or renew what has expired"
        ),
    ),
    (
        "root certificate file",
        _TLS,
        (
            "there is no authority to check the server's certificate with, or no certificate in its file; name it in"
            " spec.database.tls.caRef (or sslrootcert)"
        ),
    ),
    (
        "alert certificate expired",
        _TLS,
        (
            "our certificate has expired; put a new one with its key into the Secret of"
            " spec.database.tls.clientCertSecretRef (or where sslcert and sslkey name them)"
        ),
    ),
    (
        " alert ",
        _TLS,
        (
            "the server does not accept our certificate, or wants one and got none; give one that it trusts"
            " in spec.database.tls.clientCertSecretRef (or sslcert and sslkey)"
        ),
    ),
    (
        "client certificate",
        _AUTHENTICATION,
        (
            "the server wants a client certificate that names this role; give it in"
            " spec.database.tls.clientCertSecretRef"
        ),
    ),
    (
        "private key",
        _TLS,
        (
            "the client's private key (sslkey) cannot be used; it must be PEM, belong to the certificate (sslcert), and"
            " be closed to others: chmod 600"
        ),
    ),
    ("certificate file", _TLS, "our certificate (sslcert) cannot be read; put it there, as PEM"),
    ("certificate", _TLS, "the certificate of the server, or ours, is not accepted"),
    (
        "ssl",
        _TLS,
        f"no TLS connection could be made as sslmode asks; if the server wants {_CLIENT_CERTIFICATE}",
    ),
    (
        "session is read-only",
        Reason.READ_ONLY_REPLICA,
        (
            "sessions are read-only here: if the server is a standby, connect to the primary; else"
            " default_transaction_read_only is on for the server, the database or the role, and ALTER ROLE ... SET"
            " default_transaction_read_only = off for the role that connects is enough"
        ),
    ),
    (
        "conversion between utf8 and",
        Reason.MANUAL_ACTION_REQUIRED,
        "the database has an encoding that PostgreSQL cannot turn into UTF-8, which events are: it cannot be watched",
    ),
    (
        "translate host name|resolve|name or service not known",
        _UNREACHABLE,
        (
            "the database's host name does not resolve: correct it in the Secret, or in --dsn; of a Secret, a host"
            " without a dot is a Service of the watcher's namespace on Kubernetes, of --dsn it is the host itself"
        ),
    ),
    (
        "connection refused",
        _UNREACHABLE,
        (
            "nothing answers at the database's host and port (connection refused): correct them in the Secret, or in"
            " --dsn, or start the server"
        ),
    ),
    (
        "timeout|timed out",
        _UNREACHABLE,
        (
            "the database does not answer (timed out): correct host and port in the Secret, or in --dsn, or let the"
            " network through"
        ),
    ),
    (
        "too many clients|remaining connection slots",
        _UNREACHABLE,
        ("the database has no free connection slot: raise max_connections, or end connections that are idle"),
    ),
    (
        "closed the connection unexpectedly",
        _UNREACHABLE,
        f"what answers there hangs up without a word: see its log; where it wants {_CLIENT_CERTIFICATE}",
    ),
    ("starting up", _UNREACHABLE, "the database is starting up: wait"),
    ("shutting down", _UNREACHABLE, "the database is shutting down: start it again"),
    ("recovery mode", _UNREACHABLE, "the database is recovering from a crash: wait"),
    (
        "database ",
        _UNREACHABLE,
        (
            "the server answers, but has no database of that name: create it, or correct the name in the Secret, or in"
            " --dsn"
        ),
    ),
)


def connect_error(error: Exception) -> DatabaseError:
    """The fault of a failed connection, without host, user or password: they come from a Secret."""
    said = str(error).lower()
    if fault := parameter_fault(said):
        return fault
    text = _NAMES.sub('""', said)
    for sign, reason, message in _FAULTS:
        if re.search(sign, text):
            return DatabaseError(reason, message)
    return DatabaseError(
        Reason.DATABASE_UNREACHABLE, "no connection to the database could be made: check host, port and network"
    )
