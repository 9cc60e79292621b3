"""A row that changes much faster than its endpoint takes it, or that is refused, and what becomes of all others."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from aiohttp import web

from ..conftest import Database, HttpReceiver, ReceivedRequest, poll
from .arrivals import Endpoint
from .checker import Arrival
from .conftest import MakeListener
from .listeners import Listener, apply
from .parking import changes, has_parked, is_aside, watched
from .writers import put

# More events than are held in memory at a time.
MANY = 3_000
UPDATES = f"DO $$ BEGIN FOR n IN 2..{MANY} LOOP UPDATE account SET version = n WHERE key = 'hot'; END LOOP; END $$"


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
    await database.execute(UPDATES)
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


@pytest.mark.parametrize("refuses_truncations", [False, True])
async def test_a_truncation_behind_what_is_refused_and_does_not_fit_holds_nothing_up_for_ever(
    tmp_path: Path,
    database: Database,
    http_receiver: HttpReceiver,
    endpoint: Endpoint,
    listener: Listener,
    *,
    refuses_truncations: bool,
) -> None:
    """Nothing may pass it, so nothing else could be accepted. Another refused row stands before it, unread too."""
    endpoint.refused = {"hot", "bad"}
    arrived = told(http_receiver, accept_truncations=not refuses_truncations)
    await apply(with_truncations(tmp_path / "http.yaml"), database.dsn)
    await put(database, "hot")
    await database.execute(UPDATES)
    await put(database, "bad")
    await database.execute("TRUNCATE account")
    await put(database, "later")
    listener.start()
    bad, good = (["t"], []) if refuses_truncations else ([], ["truncate"])

    async def are_aside() -> bool:
        rows = await database.execute("SELECT CASE op WHEN 't' THEN op ELSE key END FROM tablewatcher.parked")
        return sorted(key for (key,) in rows) == ["bad", *["hot"] * MANY, *bad]

    await poll(are_aside, 60)
    await poll(lambda: "later" in arrived, 40)
    assert list(dict.fromkeys(arrived)) == [*good, "later"]
    await put(database, "new")
    await poll(lambda: arrived[-1] == "new", 40)


def with_truncations(manifest: Path) -> Path:
    """The same watcher, of truncations too."""
    found = json.loads(manifest.read_text())
    found["spec"]["actions"].append("truncate")
    manifest.write_text(json.dumps(found))
    return manifest


def told(receiver: HttpReceiver, *, accept_truncations: bool) -> list[str]:
    """What the endpoint accepts from now on: keys, and `truncate`."""
    accept, arrived = receiver.respond, list[str]()

    def respond(request: ReceivedRequest) -> web.Response:
        data = json.loads(request.body)
        if data["data"]["action"] == "truncate":
            if accept_truncations:
                arrived.append("truncate")
            return web.Response(status=204 if accept_truncations else 400)
        answer = accept(request)
        assert isinstance(answer, web.Response)
        if answer.status == 204:
            arrived.append(data["partitionkey"])
        return answer

    receiver.respond = respond
    return arrived


def firsts(accepted: list[Arrival]) -> dict[str, list[int]]:
    """The versions of each key, in the order in which they came first."""
    found: dict[str, list[int]] = {}
    for each in accepted:
        versions = found.setdefault(each.key, [])
        if each.version not in versions:
            versions.append(each.version)
    return found
