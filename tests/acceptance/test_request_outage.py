"""A database that goes away while a command waits for its request: the request is still there afterwards."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from tablewatcher.embedded import EmbeddedPostgres

from ..conftest import Database, HttpReceiver, poll
from .arrivals import Endpoint
from .commands import Answer
from .conftest import MakeListener
from .parking import changes, command, watched
from .writers import put

REQUESTS = "SELECT id, kind, state FROM tablewatcher.request"


async def _asked(path: Path, database: Database) -> asyncio.Task[Answer]:
    """`replay`, once its request is there."""
    task = asyncio.create_task(command(path, database, "replay", "--since", "1h"))

    async def is_there() -> bool:
        return await database.execute(REQUESTS) == [(1, "replay", "asked")]

    await poll(is_there, 40)
    # It looks five times a second.
    await asyncio.sleep(0.5)
    return task


def _found(answer: Answer) -> dict[str, Any]:
    (found,) = json.loads(answer.out)
    return dict(found)


@pytest.mark.parametrize("times", [1, 3])
async def test_a_restart_of_the_database_is_waited_out(
    tmp_path: Path,
    mortal_postgres: EmbeddedPostgres,
    mortal_database: Database,
    http_receiver: HttpReceiver,
    make_listener: MakeListener,
    times: int,
) -> None:
    """Each time anew: the patience is not for all of them together."""
    endpoint = Endpoint(http_receiver)
    path = await watched(mortal_database, endpoint, tmp_path / "http.yaml")
    listener = make_listener(path, mortal_database.dsn)
    listener.start()
    await put(mortal_database, "a", "b")
    await poll(lambda: len(changes(endpoint)) == 2, 40)
    await listener.terminate()
    asked = await _asked(path, mortal_database)
    for _ in range(times):
        mortal_postgres.kill()
        await asyncio.sleep(4)
        mortal_postgres.start()
        await asyncio.sleep(2)
        assert not asked.done(), asked.result()
    listener.start()
    answer = await asked
    assert answer.code == 0, answer.out + answer.err
    found = _found(answer)
    assert (found["request"], found["state"], found["events"]) == (1, "done", 2)
    assert await mortal_database.execute(REQUESTS) == [(1, "replay", "done")]


async def test_where_it_is_given_up_the_request_is_named(
    tmp_path: Path, mortal_postgres: EmbeddedPostgres, mortal_database: Database, http_receiver: HttpReceiver
) -> None:
    path = await watched(mortal_database, Endpoint(http_receiver), tmp_path / "http.yaml")
    asked = await _asked(path, mortal_database)
    mortal_postgres.kill()
    answer = await asked
    assert answer.code == 4
    found = _found(answer)
    assert (found["reason"], found["request"], found["state"], found["events"]) == (
        "DatabaseUnreachable",
        1,
        "asked",
        0,
    )
    assert "request 1 stays asked, and a listener of this watcher does it" in found["message"]
    assert "the row of tablewatcher.request with id 1 says how far it is" in found["message"]
    mortal_postgres.start()
    assert await mortal_database.execute(REQUESTS) == [(1, "replay", "asked")]
