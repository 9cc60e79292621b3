"""Connections that are closed while somebody uses them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
import uvloop

from tablewatcher.postgres.connection.session import connect

from ..conftest import Database


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_a_statement_under_way_ends_before_its_connection_is_freed(
    database: Database, new_loop: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    """libpq's memory, and the number of the socket, belong to whoever comes next as soon as it is freed."""

    async def scenario() -> None:
        connection = await connect(database.dsn)
        sleeps = asyncio.create_task(connection.execute("SELECT pg_sleep(60)"))
        waits = asyncio.create_task(connection.execute("SELECT 1"))
        await asyncio.sleep(0.1)
        assert connection.lock.locked()
        closing = asyncio.create_task(connection.close())
        ended: list[asyncio.Task[Any]] = []
        for task in (sleeps, closing):
            task.add_done_callback(ended.append)
        async with asyncio.timeout(30):
            await closing
        assert ended == [sleeps, closing]
        for statement in (sleeps, waits):
            with pytest.raises(psycopg.OperationalError):
                await statement
        assert connection.closed

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(scenario())
