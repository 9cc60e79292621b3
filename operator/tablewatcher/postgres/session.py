"""Connections to Postgres, and what its errors mean to a person."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import psycopg
from psycopg import AsyncConnection
from psycopg.rows import DictRow, dict_row

from ..errors import DatabaseError, Reason

Connection = AsyncConnection[DictRow]
P = ParamSpec("P")
T = TypeVar("T")

CONNECT_TIMEOUT = 5
_KEEPALIVE: dict[str, Any] = {
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 15_000,
}
# libpq gives no SQLSTATE for a connection that failed, only a text; first match wins.
_CONNECT_FAULTS = (
    ("password authentication failed", Reason.AUTHENTICATION_FAILED, "the database refuses the user name or password"),
    ("no password supplied", Reason.AUTHENTICATION_FAILED, "the database asks for a password and none is given"),
    ("authentication failed", Reason.AUTHENTICATION_FAILED, "the database refuses the login"),
    (
        "no pg_hba.conf entry",
        Reason.AUTHENTICATION_FAILED,
        "pg_hba.conf of the database has no entry that lets this login in",
    ),
    ("is not permitted to log in", Reason.AUTHENTICATION_FAILED, "the role may not log in: ALTER ROLE ... LOGIN"),
    ("role ", Reason.AUTHENTICATION_FAILED, "the role does not exist in the database"),
    ("certificate", Reason.TLS_FAILED, "the server's certificate is not accepted"),
    ("ssl", Reason.TLS_FAILED, "no TLS connection could be made as sslmode asks"),
    ("translate host name", Reason.DATABASE_UNREACHABLE, "the database's host name does not resolve"),
    ("resolve", Reason.DATABASE_UNREACHABLE, "the database's host name does not resolve"),
    ("name or service not known", Reason.DATABASE_UNREACHABLE, "the database's host name does not resolve"),
    (
        "connection refused",
        Reason.DATABASE_UNREACHABLE,
        "nothing answers at the database's host and port (connection refused)",
    ),
    ("timeout", Reason.DATABASE_UNREACHABLE, "the database does not answer (timed out)"),
    ("timed out", Reason.DATABASE_UNREACHABLE, "the database does not answer (timed out)"),
    ("too many clients", Reason.DATABASE_UNREACHABLE, "the database has no free connection slot (max_connections)"),
    (
        "remaining connection slots",
        Reason.DATABASE_UNREACHABLE,
        "the database has no free connection slot (max_connections)",
    ),
    ("starting up", Reason.DATABASE_UNREACHABLE, "the database is starting up"),
    ("shutting down", Reason.DATABASE_UNREACHABLE, "the database is shutting down"),
    ("recovery mode", Reason.DATABASE_UNREACHABLE, "the database is recovering from a crash"),
    ("database ", Reason.DATABASE_UNREACHABLE, "the server answers, but has no database of that name"),
)


async def connect(conninfo: str, *, application: str = "tablewatcher") -> Connection:
    """An autocommit connection whose dead peer is noticed in seconds. Raises DatabaseError."""
    try:
        return await AsyncConnection.connect(
            conninfo,
            autocommit=True,
            row_factory=dict_row,
            connect_timeout=CONNECT_TIMEOUT,
            application_name=application,
            client_encoding="utf8",
            **_KEEPALIVE,
        )
    except (psycopg.Error, OSError) as error:
        raise connect_error(error) from None


def connect_error(error: Exception) -> DatabaseError:
    """The fault of a failed connection, without host, user or password: they come from a Secret."""
    text = str(error).lower()
    for sign, reason, message in _CONNECT_FAULTS:
        if sign in text:
            return DatabaseError(reason, message)
    return DatabaseError(Reason.DATABASE_UNREACHABLE, "no connection to the database could be made")


@contextmanager
def translated() -> Iterator[None]:
    """Turns what psycopg raises inside into DatabaseError: SQLSTATE and our own words."""
    try:
        yield
    except psycopg.errors.InsufficientPrivilege as error:
        raise DatabaseError(
            Reason.PERMISSION_DENIED, f"the database denies it (42501): {error.diag.message_primary}"
        ) from error
    except psycopg.errors.ReadOnlySqlTransaction as error:
        raise DatabaseError(Reason.READ_ONLY_REPLICA, "the database is read-only; use its primary") from error
    except (psycopg.errors.UndefinedTable, psycopg.errors.UndefinedFunction, psycopg.errors.InvalidSchemaName) as error:
        raise DatabaseError(
            Reason.TRIGGERS_DRIFTED, "objects of this watcher are missing in the database; apply it again"
        ) from error
    except psycopg.OperationalError as error:
        state = f" ({error.sqlstate})" if error.sqlstate else ""
        raise DatabaseError(Reason.DATABASE_UNREACHABLE, f"the connection to the database broke{state}") from error
    except psycopg.Error as error:
        raise DatabaseError(
            Reason.MANUAL_ACTION_REQUIRED, f"the database answered {error.sqlstate}: {error.diag.message_primary}"
        ) from error


def translating(function: Callable[P, Coroutine[Any, Any, T]]) -> Callable[P, Coroutine[Any, Any, T]]:
    """`translated`, as a decorator of coroutine functions."""

    @wraps(function)
    async def wrapper(*args: P.args, **kwargs: P.kwargs) -> T:
        with translated():
            return await function(*args, **kwargs)

    return wrapper


@asynccontextmanager
async def connected(conninfo: str) -> AsyncIterator[Connection]:
    """A connection for one piece of work; faults inside come out as DatabaseError."""
    connection = await connect(conninfo)
    try:
        with translated():
            yield connection
    finally:
        await connection.close()
