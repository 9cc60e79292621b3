"""When writers may be asked to wake a listener."""

from __future__ import annotations

from pathlib import Path

from tablewatcher.embedded import EmbeddedPostgres
from tablewatcher.postgres.database import open_session

from ..conftest import POSTGRES_SETTINGS, Database, poll


async def test_nobody_is_asked_while_another_session_fills_the_queue(server_directory: Path) -> None:
    """One that listens and sits in a transaction keeps all notifications, and a full queue fails writers' commits."""
    settings = {**POSTGRES_SETTINGS, "max_notify_queue_pages": "64"}
    with EmbeddedPostgres(server_directory / "small_queue", 18, settings) as server:
        database = Database(server, "postgres")
        session = await open_session(database.dsn)
        try:
            assert await session.wakeup.usable()
            async with await database.connect() as sits:
                await sits.execute("LISTEN other")
                await sits.execute("BEGIN; SELECT 1")
                many = "SELECT pg_notify('other', repeat('x', 7000) || n) FROM generate_series(1, 40) AS n"
                await database.execute(many)
                assert not await session.wakeup.usable()
            await poll(session.wakeup.usable)
        finally:
            await session.close()
