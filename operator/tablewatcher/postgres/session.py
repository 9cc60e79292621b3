"""Connections to Postgres, and what its errors mean to a person."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import psycopg
from psycopg import AsyncConnection
from psycopg.conninfo import conninfo_to_dict
from psycopg.rows import DictRow, dict_row

from ..errors import DatabaseError, Reason
from .connect_fault import connect_error

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


async def connect(conninfo: str, *, application: str = "tablewatcher") -> Connection:
    """An autocommit connection whose dead peer is noticed in seconds, to a server that takes writes.

    Of several hosts it is the primary's, whichever that is by now: unless the DSN itself says what session it wants.
    Raises DatabaseError.
    """
    try:
        wanted = {"target_session_attrs": "read-write", **conninfo_to_dict(conninfo)}["target_session_attrs"]
        return await AsyncConnection.connect(
            conninfo,
            autocommit=True,
            row_factory=dict_row,
            connect_timeout=CONNECT_TIMEOUT,
            application_name=application,
            client_encoding="utf8",
            target_session_attrs=wanted,
            **_KEEPALIVE,
        )
    except (psycopg.Error, OSError) as error:
        raise connect_error(error) from None


@contextmanager
def translated() -> Iterator[None]:
    """Turns what psycopg raises inside into DatabaseError: SQLSTATE and our own words."""
    try:
        yield
    except psycopg.errors.InsufficientPrivilege as error:
        said = str(error.diag.message_primary)
        # As when a watcher gets an adminSecretRef after it was applied without one.
        remedy = "; another role has made it: apply as that role, or GRANT that role to this one"
        advice = remedy if said.startswith("must be owner of") else ""
        raise DatabaseError(Reason.PERMISSION_DENIED, f"the database denies it (42501): {said}{advice}") from error
    except psycopg.errors.ReadOnlySqlTransaction as error:
        raise DatabaseError(Reason.READ_ONLY_REPLICA, "the database is read-only; use its primary") from error
    except (
        psycopg.errors.UndefinedTable,
        psycopg.errors.UndefinedFunction,
        psycopg.errors.UndefinedColumn,
        psycopg.errors.InvalidSchemaName,
    ) as error:
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


def encrypted(connection: Connection) -> bool:
    """Whether what we say to the server is unreadable on its way."""
    return bool(connection.pgconn.ssl_in_use)


async def refuse_pooler(connection: Connection) -> None:
    """A pooler gives out process ids of its own. Behind one, our settings would stay on connections of others."""
    found = await (await connection.execute("SELECT pg_catalog.pg_backend_pid() AS pid")).fetchone()
    if found is not None and found["pid"] != connection.info.backend_pid:
        raise DatabaseError(
            Reason.POOLER_DETECTED,
            "the connection leads through a pooler (such as PgBouncer); name the database's own host and port",
        )


@asynccontextmanager
async def connected(conninfo: str) -> AsyncIterator[Connection]:
    """A connection for one piece of work; faults inside come out as DatabaseError."""
    connection = await connect(conninfo)
    try:
        with translated():
            yield connection
    finally:
        await connection.close()
