"""What libpq and the server say of a connection string itself, as a reason and a remedy. Pure."""

from __future__ import annotations

import re

from ...errors import DatabaseError, Reason

_INVALID, _UNREACHABLE = Reason.SPEC_INVALID, Reason.DATABASE_UNREACHABLE
# The names are libpq's own, and no value of a Secret.
_PARAMETER = re.compile(r'invalid "?([a-z_]+)"? value: |for connection option "([a-z_]+)"')

# Patterns of what may stand in their words, in lower case and with "" for every name; first match wins.
STRING_FAULTS: tuple[tuple[str, Reason, str], ...] = (
    (
        "invalid sslmode value",
        _INVALID,
        "sslmode of the connection must be disable, allow, prefer, require, verify-ca or verify-full",
    ),
    (
        "weak sslmode",
        _INVALID,
        (
            "sslmode of the connection is too weak: sslnegotiation=direct wants require, verify-ca or verify-full, and"
            " sslrootcert=system wants verify-full"
        ),
    ),
    (
        "definition of service",
        _INVALID,
        (
            "the service that the connection names is not in the service file: correct its name, or name the right"
            " file in PGSERVICEFILE"
        ),
    ),
    (
        "service file",
        _INVALID,
        "the service file cannot be used: name one in PGSERVICEFILE that has a section of the name",
    ),
    (
        "port numbers to|hostaddr values",
        _INVALID,
        "the connection has another number of hosts than of ports or of hostaddr: give each host its own, or one port",
    ),
    ("could not parse network address", _INVALID, "hostaddr of the connection must be an IP address"),
    (
        "not in hot standby mode|session is not read-only",
        _INVALID,
        (
            "target_session_attrs of the connection asks for a server that takes no writes, which a watcher needs:"
            " leave it out"
        ),
    ),
    (
        "server is in hot standby mode",
        Reason.READ_ONLY_REPLICA,
        "the server is a standby or read-only; connect to the primary",
    ),
    (
        "channel binding required",
        Reason.TLS_FAILED,
        (
            "channel_binding=require of the connection needs TLS and a password kept as SCRAM: ask for TLS"
            " (sslmode=require), or leave it out"
        ),
    ),
    (
        "authentication method requirement",
        Reason.AUTHENTICATION_FAILED,
        (
            "the server asks for another way to sign in than require_auth of the connection allows: correct that, or"
            " pg_hba.conf"
        ),
    ),
    (
        "gssapi encryption required",
        Reason.AUTHENTICATION_FAILED,
        "gssencmode=require of the connection needs a Kerberos ticket: get one (kinit), or leave it out",
    ),
    (
        (
            "unrecognized configuration parameter|invalid value for parameter|permission denied to set parameter"
            "|requires a value|invalid command-line argument"
        ),
        _INVALID,
        "the server does not take what options of the connection (or PGOPTIONS) sets: correct it there",
    ),
    (
        "'idna' codec",
        _UNREACHABLE,
        (
            "the database's host is no host name, a part between its dots is empty or too long: correct it in the"
            " Secret, or in --dsn"
        ),
    ),
    (
        'on socket "" failed: no such file or directory',
        _UNREACHABLE,
        (
            "no server has its Unix socket where the connection leads, as one without a host does: name the host, or"
            " start the server"
        ),
    ),
)


def parameter_fault(text: str) -> DatabaseError | None:
    """The fault of a parameter whose value libpq does not know. text: libpq's, in lower case, names and all."""
    found = _PARAMETER.search(text)
    if found is None or found[1] == "sslmode":
        return None
    return DatabaseError(
        _INVALID,
        f"{found[1] or found[2]} of the connection has a value it cannot have: correct it in the connection string,"
        " or in the environment variable that sets it",
    )
