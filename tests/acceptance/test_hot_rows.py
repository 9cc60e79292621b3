"""A row that changes much faster than its endpoint takes it, or that is refused, and what becomes of all others."""

from __future__ import annotations

from pathlib import Path

import pytest

from ..conftest import Database, HttpReceiver, poll
from .arrivals import Endpoint
from .checker import Arrival
from .conftest import MakeListener
from .listeners import Listener
from .parking import changes, has_parked, is_aside, watched
from .writers import put

# More events than are held in memory at a time.
MANY = 3_000


@pytest.fixture
async def endpoint(http_receiver: HttpReceiver) -> Endpoint:
    """Takes everything but one row."""
    found = Endpoint(http_receiver)
    found.refused = {"hot"}
    return found


@pytest.fixture
async def listener(tmp_path: Path, database: Database, endpoint: Endpoint, make_listener: MakeListener) -> Listener:
    """One that is not started yet, of a table whose events go to that endpoint."""
    return make_listener(await watched(database, endpoint, tmp_path / "http.yaml"), database.dsn)


async def test_a_refused_row_with_more_events_than_fit_in_memory_is_put_aside(
    database: Database, endpoint: Endpoint, listener: Listener
) -> None:
    """Nothing else could be read, so nothing else was accepted, and without that nothing was ever given up."""
    await put(database, "hot")
    await database.execute(
        f"DO $$ BEGIN FOR n IN 2..{MANY} LOOP UPDATE account SET version = n WHERE key = 'hot'; END LOOP; END $$"
    )
    await put(database, "good", "other", "good")
    listener.start()
    await poll(lambda: has_parked(listener), 40)
    await poll(lambda: len(set(changes(endpoint))) == 3, 40)
    await poll(lambda: is_aside(database, *["hot"] * MANY), 40)
    assert firsts(endpoint.accepted) == {"good": [1, 2], "other": [1]}


async def test_what_is_sent_to_judge_by_overtakes_nothing(
    database: Database, endpoint: Endpoint, listener: Listener
) -> None:
    """Of what was read past, too: earlier events of its own row."""
    update = "UPDATE account SET version = version + 1 WHERE key = 'hot'"
    many = f"DO $$ BEGIN FOR n IN 1..{MANY} LOOP {update}; END LOOP; END $$"
    await put(database, "hot")
    await database.execute(many)
    await put(database, "good", "other", "other")
    await database.execute(many)
    await put(database, "other", "good")
    listener.start()
    await poll(lambda: len(set(changes(endpoint))) == 5, 60)
    assert firsts(endpoint.accepted) == {"good": [1, 2], "other": [1, 2, 3]}


def firsts(accepted: list[Arrival]) -> dict[str, list[int]]:
    """The versions of each key, in the order in which they came first."""
    found: dict[str, list[int]] = {}
    for each in accepted:
        versions = found.setdefault(each.key, [])
        if each.version not in versions:
            versions.append(each.version)
    return found
