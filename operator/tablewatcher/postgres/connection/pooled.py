"""A connection that may lead through a pooler: nothing of ours stays on a server connection that others get next.

A pooler may give another server connection to each transaction. So through one, every statement goes out as one
message that begins with the settings it needs, local to its transaction: the server runs such a message as one
transaction, as it would the bare statement, and waits for us nowhere within it. Nothing is prepared, nothing is SET
for the session, and what others have left there is put back for the length of our transaction.

What a broken connection tells of a direct one, a pooler hides: that the server was started again, or that another one
has taken its place, which may lack the newest commits. A connection that is pinned refuses to go on there.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Self, TypeVar

import psycopg
from psycopg import AsyncClientCursor, AsyncConnection, AsyncTransaction, pq
from psycopg.abc import Params, PQGen, Query
from psycopg.rows import AsyncRowFactory, DictRow, Row, dict_row

from .pem_files import Files

T = TypeVar("T")

# Division by zero, which no statement of ours does otherwise. A DO block that raises a code of its own takes 140 us.
_ELSEWHERE = "22012"
# Seconds a statement may still take on a connection that is to be closed.
_PATIENCE = 0.5
# In every session of ours. An operator or a function in a schema where others may make one, such as public, would be
# taken for PostgreSQL's own where it fits our operands better, and would run with our rights. Names come back with
# quotes only where they need some, as they are in what was written before. Of other dates psycopg reads none.
_FIXED = ("search_path = pg_catalog, pg_temp", "quote_all_identifiers = off", "datestyle = 'ISO'")
# Limits that a role or a database has for its application, with the version that brought them. Our work takes as long
# as much has gathered: under a limit it would be begun again and again, and never come to its end. Where ours must not
# take long it has limits of its own.
_LIMITS = {"statement_timeout": 0, "lock_timeout": 0, "transaction_timeout": 170_000}
# Whoever listens says nothing for long. Of a pooler's own connections to the server it is for the pooler to say.
_IDLE_LIMIT = {"idle_session_timeout": 140_000}
# What reads serializably is taken into account where others are serializable: a look of ours at a ring would be why a
# writer's transaction fails. Through a pooler each transaction says so for itself.
_ISOLATION = "SET default_transaction_isolation = 'read committed';"
# Our statements are written for the first. The others change what a statement means or how it ends, and a program
# that SETs them through a pooler by transaction leaves them to whoever comes next.
_CLEAN = (
    "SET TRANSACTION ISOLATION LEVEL READ COMMITTED;"
    + "".join(f" SET LOCAL {setting};" for setting in _FIXED)
    + "".join(
        f" SET LOCAL {name} TO DEFAULT;" for name in ("role", "idle_in_transaction_session_timeout", "bytea_output")
    )
)
_HERE = (
    "SELECT pg_catalog.pg_postmaster_start_time()::text || '/' ||"
    " (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database()) AS here"
)


class Connection(AsyncConnection[DictRow]):
    """A connection of psycopg in autocommit. pooled: it leads through a pooler, of whatever mode.

    files: those that its connection string names, for as long as it lives. asked: since when the server owes an answer,
    on the event loop's clock; None while it owes none.
    """

    def __init__(self, pgconn: pq.abc.PGconn, row_factory: AsyncRowFactory[DictRow] = dict_row) -> None:
        super().__init__(pgconn, row_factory)
        self.pooled = False
        self.opening = ""
        self.files = Files("")
        self.asked: float | None = None
        self._settings: dict[str, str] = {}
        self._pinned = ""

    async def look(self) -> None:
        """Finds out whether a pooler is in between: it gives out process ids of its own. Raises psycopg.Error.

        Before anything else is asked: with that come the settings that all our sessions have.
        """
        found = await self.one("SELECT pg_catalog.pg_backend_pid() AS pid")
        if found["pid"] != self.info.backend_pid:
            self.pooled = True
            self.cursor_factory = _PooledCursor
            self._compose()
        else:
            fixed = "".join(f"SET {setting};" for setting in _FIXED)
            limits = _sets("SET", self._without(_LIMITS | _IDLE_LIMIT))
            await self.execute((fixed + _ISOLATION + limits).encode())

    async def wait(self, gen: PQGen[T], *limits: float | None, **named: float | None) -> T:
        """As psycopg has it: all that is asked of the server goes through here."""
        self.asked = asyncio.get_running_loop().time()
        try:
            return await super().wait(gen, *limits, **named)  # type: ignore[arg-type]
        finally:
            self.asked = None

    async def one(self, query: str, params: Params | None = None) -> DictRow:
        """The row of a query that gives exactly one, such as an aggregate. Raises psycopg.Error."""
        row = await (await self.execute(query.encode(), params)).fetchone()
        assert row is not None  # noqa: S101 - asked for only where there always is one
        return row

    async def use(self, settings: Mapping[str, str]) -> None:
        """Has every statement run under these settings from now on."""
        if self.pooled:
            self._settings |= settings
            self._compose()
        else:
            await self.execute(_sets("SET", settings).encode())

    async def pin(self, place: str = "") -> str:
        """Holds the connection to one database of one start of one server: to `place`, else to where it leads now.

        Gives that place. Through a pooler a statement anywhere else fails, before it does anything, and closes this
        connection; a direct one cannot lead anywhere else.
        """
        place = place or str((await self.one(_HERE))["here"])
        self._pinned = place
        self._compose()
        return place

    @asynccontextmanager
    async def transaction(
        self, savepoint_name: str | None = None, force_rollback: bool = False
    ) -> AsyncIterator[AsyncTransaction]:
        """As psycopg has it; an outermost one through a pooler begins with what each statement begins with."""
        outermost = self.pooled and not self.in_transaction
        async with super().transaction(savepoint_name, force_rollback) as transaction:
            if outermost:
                await self.execute(self.opening.encode())
            yield transaction

    async def close(self) -> None:
        """Closes the connection once nobody waits on it; a statement that takes long is cut off.

        Not as psycopg does, which frees what libpq knows of a connection although a statement is under way: its
        generators, in C, go on with that memory, and the event loop with the number of the socket, which the next
        connection gets. The listener crashed where one watcher closed what fifty others had just lost.
        """
        if not self.closed:
            await self._close()
        self.files.close()

    async def _close(self) -> None:
        try:
            async with asyncio.timeout(_PATIENCE):
                await self.lock.acquire()
        except TimeoutError:
            self.hang_up()
            await self.lock.acquire()
        try:
            await super().close()
        finally:
            self.lock.release()

    def hang_up(self) -> None:
        """Ends the conversation: whoever waits for an answer is told at once that there is none."""
        with contextlib.suppress(OSError, psycopg.Error), socket.socket(fileno=os.dup(self.fileno())) as ours:
            ours.shutdown(socket.SHUT_RDWR)

    @property
    def in_transaction(self) -> bool:
        """Whether a transaction block is open."""
        return self.info.transaction_status is not pq.TransactionStatus.IDLE

    def _compose(self) -> None:
        self.opening = _CLEAN + _sets("SET LOCAL", self._without(_LIMITS) | self._settings)
        if self._pinned:
            self.opening += f" SELECT 1 / (({_HERE}) = '{self._pinned}')::integer;"

    def _without(self, limits: Mapping[str, int]) -> dict[str, str]:
        """The settings that lift those of the limits that this server knows."""
        return {name: "0" for name, since in limits.items() if self.info.server_version >= since}


class _PooledCursor(AsyncClientCursor[Row]):
    """Parameters are put into the text here, since only a text may hold several statements. Results come as text."""

    async def execute(
        self, query: Query, params: Params | None = None, *, prepare: bool | None = None, binary: bool | None = None
    ) -> Self:
        """The last result is the one that stands. `prepare` and `binary` are left out of account."""
        connection = self.connection
        assert isinstance(connection, Connection)  # noqa: S101 - only it makes cursors of this kind
        try:
            opening = "" if connection.in_transaction else connection.opening
            await super().execute(f"{opening} {self.mogrify(query, params)}".encode(), binary=False)
        except psycopg.Error as error:
            if error.sqlstate == _ELSEWHERE:
                await connection.close()
                raise psycopg.OperationalError("the pooler leads to another server by now") from None
            raise
        return await self.set_result(-1)


def _sets(command: str, settings: Mapping[str, str]) -> str:
    return "".join(f" {command} {name} = '{value}';" for name, value in settings.items())
