"""What libpq and the server say about a connection that failed, as a reason and a remedy."""

from __future__ import annotations

import psycopg
import pytest

from tablewatcher.errors import Reason
from tablewatcher.postgres.connection.connect_fault import connect_error

HEAD = 'connection failed: connection to server at "10.1.2.3", port 5432 failed: '
# As psycopg 3.3 with libpq 18 reports them of PostgreSQL 15 with ssl = on.
SAID = [
    ("SSL error: tlsv1 alert unknown ca", Reason.TLS_FAILED, "clientCertSecretRef"),
    ("SSL error: ssl/tls alert certificate expired", Reason.TLS_FAILED, "our certificate has expired"),
    ("SSL error: certificate verify failed", Reason.TLS_FAILED, "caRef"),
    ("SSL error: certificate verify failed", Reason.TLS_FAILED, "has expired"),
    ("SSL error: unexpected eof while reading", Reason.TLS_FAILED, "clientCertSecretRef"),
    ('could not read certificate file "/shop": bad base64 decode', Reason.TLS_FAILED, "sslcert"),
    ('could not load private key file "/shop": key values mismatch', Reason.TLS_FAILED, "belong to the certificate"),
    ('private key file "/shop" has group or world access; file must have ...', Reason.TLS_FAILED, "chmod 600"),
    ('could not read root certificate file "/shop": no certificate or crl found', Reason.TLS_FAILED, "sslrootcert"),
    (
        'server certificate for "db.example" does not match host name "10.1.2.3"',
        Reason.TLS_FAILED,
        "another host name",
    ),
    ("server does not support SSL, but SSL was required", Reason.TLS_FAILED, "ssl = on"),
    ('root certificate file "/none" does not exist', Reason.TLS_FAILED, "caRef"),
    (
        'FATAL:  certificate authentication failed for user "app"',
        Reason.AUTHENTICATION_FAILED,
        "names another role",
    ),
    (
        "FATAL:  connection requires a valid client certificate",
        Reason.AUTHENTICATION_FAILED,
        "clientCertSecretRef",
    ),
    (
        'FATAL:  no pg_hba.conf entry for host "10.1.2.3", user "app", database "shop", no encryption',
        Reason.AUTHENTICATION_FAILED,
        "pg_hba.conf",
    ),
    ('FATAL:  password authentication failed for user "app"', Reason.AUTHENTICATION_FAILED, "password"),
    ('FATAL:  role "app" is not permitted to log in', Reason.AUTHENTICATION_FAILED, "may not log in"),
    ("Connection refused\n\tIs the server running on that host?", Reason.DATABASE_UNREACHABLE, "connection refused"),
    ("received invalid response to SSL negotiation: H", Reason.DATABASE_UNREACHABLE, "no Postgres"),
    (
        "server closed the connection unexpectedly\n\tThis probably means the server terminated abnormally",
        Reason.DATABASE_UNREACHABLE,
        "hangs up",
    ),
    ("expected authentication request from server, but received H", Reason.DATABASE_UNREACHABLE, "no Postgres"),
    ('invalid sslmode value: "shop"', Reason.SPEC_INVALID, "verify-full"),
    (
        'FATAL:  permission denied for database "shop"\nDETAIL:  User does not have CONNECT privilege.',
        Reason.PERMISSION_DENIED,
        "GRANT CONNECT ON DATABASE",
    ),
    ('FATAL:  too many connections for role "app"', Reason.DATABASE_UNREACHABLE, "CONNECTION LIMIT"),
    ('FATAL:  too many connections for database "shop"', Reason.DATABASE_UNREACHABLE, "CONNECTION LIMIT"),
    (
        'FATAL:  database "shop" is not currently accepting connections',
        Reason.DATABASE_UNREACHABLE,
        "ALLOW_CONNECTIONS",
    ),
    ('FATAL:  role "app" does not exist', Reason.AUTHENTICATION_FAILED, "does not exist in the database"),
    (
        'FATAL:  database "shop" does not exist',
        Reason.DATABASE_UNREACHABLE,
        "correct the name in the Secret, or in --dsn",
    ),
]
# Said by libpq before it connects, and by the server of what the string asks for.
OF_THE_STRING = [
    ('invalid target_session_attrs value: "shop"', Reason.SPEC_INVALID, "target_session_attrs"),
    ('invalid sslnegotiation value: "shop"', Reason.SPEC_INVALID, "sslnegotiation"),
    ('invalid "ssl_min_protocol_version" value: "shop"', Reason.SPEC_INVALID, "ssl_min_protocol_version"),
    ('invalid integer value "shop" for connection option "keepalives"', Reason.SPEC_INVALID, "keepalives"),
    ('definition of service "shop" not found', Reason.SPEC_INVALID, "service"),
    ('service file "/shop" not found', Reason.SPEC_INVALID, "PGSERVICEFILE"),
    ("could not match 2 port numbers to 3 hosts", Reason.SPEC_INVALID, "number of hosts"),
    ("could not match 2 host names with 1 hostaddr values", Reason.SPEC_INVALID, "number of hosts"),
    ("server is not in hot standby mode", Reason.SPEC_INVALID, "target_session_attrs"),
    ("session is not read-only", Reason.SPEC_INVALID, "target_session_attrs"),
    ("server is in hot standby mode", Reason.READ_ONLY_REPLICA, "primary"),
    ('weak sslmode "prefer" may not be used with sslnegotiation=direct', Reason.SPEC_INVALID, "sslnegotiation"),
    ("channel binding required, but SSL not in use", Reason.TLS_FAILED, "channel_binding"),
    (
        'authentication method requirement "md5" failed: server requested SASL authentication',
        Reason.AUTHENTICATION_FAILED,
        "require_auth",
    ),
    ('FATAL:  unrecognized configuration parameter "shop"', Reason.SPEC_INVALID, "options"),
    ('FATAL:  invalid value for parameter "work_mem": "shop"', Reason.SPEC_INVALID, "options"),
    ("FATAL:  -c shop requires a value", Reason.SPEC_INVALID, "options"),
]
# Names that hold what is a sign elsewhere.
NAMED = [
    ("failed to resolve host 'ssl.shop': [Errno -2] Name or service not known", "does not resolve"),
    ('could not translate host name "ssl.shop" to address: Name or service not known', "does not resolve"),
    ('connection to server at "certificate.shop" (10.1.2.3), port 5432 failed: Connection refused', "refused"),
    ('FATAL:  database "ssl_shop" does not exist', "no database of that name"),
    ('FATAL:  database "certificates of the shop" does not exist', "no database of that name"),
    ('connection to server on socket "/ssl/shop/.s.PGSQL.5432" failed: No such file or directory', "Unix socket"),
    ("- host: 'ssl.shop', port: '5432', hostaddr: '10.1.2.3': Connection refused", "refused"),
]


@pytest.mark.parametrize(("said", "words"), NAMED)
def test_a_name_is_no_sign(said: str, words: str) -> None:
    found = connect_error(psycopg.OperationalError(said))
    assert (found.reason, words in found.message) == (Reason.DATABASE_UNREACHABLE, True), found.message


@pytest.mark.parametrize(("said", "reason", "words"), [*SAID, *OF_THE_STRING])
def test_the_reason_and_the_remedy_without_a_value(said: str, reason: Reason, words: str) -> None:
    found = connect_error(psycopg.OperationalError(HEAD + said))
    assert (found.reason, words in found.message) == (reason, True), found.message
    for value in ("10.1.2.3", "db.example", '"app"', "shop"):
        assert value not in found.message
