"""Connections to Postgres, and what its errors mean to a person."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import psycopg
from psycopg.conninfo import conninfo_to_dict
from psycopg.rows import dict_row

from ...errors import DatabaseError, Reason
from .connect_fault import connect_error
from .pem_files import Files
from .pooled import Connection as Connection
from .sql_fault import sql_error

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
    Raises DatabaseError, also where what is in between leaves no transactions.
    """
    wanted = str(conninfo_to_dict(conninfo).get("target_session_attrs") or "read-write")
    try:
        return await _connect(conninfo, application, wanted)
    except DatabaseError as error:
        if error.reason is not Reason.READ_ONLY_REPLICA or wanted != "read-write":
            raise
        refused = error
    # PgBouncer goes on telling what it heard from a server when it first met it, which may have been promoted since.
    connection = await _connect(conninfo, application, "any")
    if not (connection.pooled and await _takes_writes(connection)):
        await connection.close()
        raise refused
    return connection


async def _takes_writes(connection: Connection) -> bool:
    with translated():
        return bool((await connection.one("SHOW transaction_read_only"))["transaction_read_only"] == "off")


async def _connect(conninfo: str, application: str, wanted: str) -> Connection:
    files = Files(conninfo)
    try:
        connection = await Connection.connect(
            files.conninfo,
            autocommit=True,
            row_factory=dict_row,
            connect_timeout=CONNECT_TIMEOUT,
            application_name=application,
            client_encoding="utf8",
            target_session_attrs=wanted,
            **_KEEPALIVE,
        )
    except BaseException as error:
        files.close()
        # A host that cannot be a name is none of the former: Python's own encoder of names refuses it.
        if isinstance(error, psycopg.Error | OSError | UnicodeError):
            raise connect_error(error) from None
        raise
    connection.files = files
    try:
        await _look(connection)
    except BaseException:
        await connection.close()
        raise
    return connection


async def _look(connection: Connection) -> None:
    """Finds out what is in between. Raises DatabaseError."""
    with translated():
        try:
            # A pooler whose pool is used up lets us in, and then has nobody to ask.
            async with asyncio.timeout(CONNECT_TIMEOUT):
                await connection.look()
        except TimeoutError:
            raise DatabaseError(
                Reason.DATABASE_UNREACHABLE,
                "the connection is made, but nothing answers on it; if a pooler is in between, raise its pool_size",
            ) from None
        if not connection.pooled:
            return
        try:
            async with connection.transaction():
                pass
        except psycopg.errors.ProtocolViolation as error:
            if "statement pooling" not in str(error):
                raise
            raise DatabaseError(
                Reason.POOLER_DETECTED,
                "the pooler pools by statement, which leaves no transactions; set its pool_mode to transaction or"
                " session for this database, or name the database's own host and port",
            ) from None


@contextmanager
def translated() -> Iterator[None]:
    """Turns what psycopg raises inside into DatabaseError: SQLSTATE and our own words."""
    try:
        yield
    except psycopg.Error as error:
        raise sql_error(error) from error


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


@asynccontextmanager
async def connected(conninfo: str) -> AsyncIterator[Connection]:
    """A connection for one piece of work; faults inside come out as DatabaseError."""
    connection = await connect(conninfo)
    try:
        with translated():
            yield connection
    finally:
        await connection.close()
