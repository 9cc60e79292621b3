"""A gate within the database: holds a listener between two of its statements, where a test wants to kill it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from ..conftest import Database, poll

_LOCK = 4711
_WAITING = f"SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND objid = {_LOCK} AND NOT granted"


class Gate:
    """Shut from the beginning."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._pids: list[int] = []

    async def reached(self, seconds: float = 40.0) -> None:
        """Returns when somebody stands before it."""
        await poll(self._is_reached, seconds, every=0.005)

    async def lose(self) -> None:
        """What stands before it never happens, as where a client dies before its statement is sent."""
        for pid in self._pids:
            await self._database.execute("SELECT pg_terminate_backend(%s)", pid)
        await poll(self._is_free, 40)

    async def _is_reached(self) -> bool:
        self._pids = [pid for (pid,) in await self._database.execute(_WAITING)]
        return bool(self._pids)

    async def _is_free(self) -> bool:
        return not {pid for (pid,) in await self._database.execute(_WAITING)} & set(self._pids)


@asynccontextmanager
async def gate(database: Database, action: str, tables: str, condition: str = "true") -> AsyncIterator[Gate]:
    """A gate before `action` on our tables whose names match `tables`, while `condition` holds.

    action: INSERT, UPDATE or DELETE. Inside it is shut, afterwards it is open.
    """
    await database.execute(
        "CREATE FUNCTION gate() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        f" IF {condition} THEN PERFORM pg_advisory_xact_lock({_LOCK}); END IF; RETURN NULL; END $$"
    )
    async with await database.connect() as keeper:
        await keeper.execute(f"SELECT pg_advisory_lock({_LOCK})".encode())
        names = await database.execute(
            "SELECT relname FROM pg_class WHERE relnamespace = 'tablewatcher'::regnamespace AND relkind = 'r'"
            f" AND relname ~ '{tables}'"
        )
        assert names
        for (name,) in names:
            await database.execute(
                f"CREATE TRIGGER gate BEFORE {action} ON tablewatcher.{name} EXECUTE FUNCTION public.gate()"
            )
        yield Gate(database)
