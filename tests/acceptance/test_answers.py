"""What an endpoint may answer, and what becomes of the event in a running listener."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ..conftest import Database, HttpReceiver, poll
from .arrivals import Endpoint
from .conftest import MakeListener
from .listeners import Listener, apply, http_sink, write_manifest
from .parking import command, is_aside, watched
from .writers import TABLES, put


async def attempts(listener: Listener, outcome: str) -> float:
    """How many attempts came to that."""
    return await listener.metric("delivery_attempts_total", f'outcome="{outcome}"')


async def test_an_endpoint_that_is_gone_and_comes_back(
    tmp_path: Path, database: Database, http_receiver: HttpReceiver, make_listener: MakeListener
) -> None:
    """410 is no fault of the event: nothing is parked, however often it comes."""
    endpoint = Endpoint(http_receiver)
    manifest = await watched(database, endpoint, tmp_path / "gone.yaml", maxAttempts=1)
    answer, http_receiver.respond = http_receiver.respond, lambda _: 410
    listener = make_listener(manifest, database.dsn)
    listener.start()
    await put(database, "a", "b")

    async def is_gone() -> bool:
        return (await listener.state())[:2] == (False, "EndpointGone")

    await poll(is_gone, 40)
    await poll(lambda: len(http_receiver.requests) > 4, 40)
    assert await attempts(listener, "retry") > 2
    assert await attempts(listener, "delivered") == 0
    assert await is_aside(database)
    http_receiver.respond = answer
    await poll(lambda: len(endpoint.accepted) == 2, 40)
    await poll(listener.forwards, 40)
    assert await attempts(listener, "delivered") == 2


async def test_a_refused_event_is_put_aside_at_the_age_it_may_have(
    tmp_path: Path, database: Database, http_receiver: HttpReceiver, make_listener: MakeListener
) -> None:
    """Long before it has failed as often as it may; others are accepted meanwhile."""
    endpoint = Endpoint(http_receiver)
    endpoint.refused = {"bad"}
    manifest = await watched(database, endpoint, tmp_path / "old.yaml", maxAttempts=1000, maxAgeSeconds=2)
    listener = make_listener(manifest, database.dsn)
    listener.start()
    await poll(listener.forwards, 40)
    await put(database, "bad")

    async def aside() -> bool:
        await put(database, "good")
        return await is_aside(database, "bad")

    await poll(aside, 40, every=0.1)
    assert await attempts(listener, "rejected") + await attempts(listener, "retry") < 200
    ((age,),) = await database.execute("SELECT extract(epoch FROM parked_at) - captured_at FROM tablewatcher.parked")
    assert age >= 2


async def test_unordered_events_do_not_wait_for_one_of_their_row(
    tmp_path: Path, database: Database, http_receiver: HttpReceiver, make_listener: MakeListener
) -> None:
    endpoint = Endpoint(http_receiver)
    manifest = write_manifest(tmp_path / "any.yaml", http_sink(endpoint.url), ordering="Unordered")
    await database.execute(TABLES)
    await apply(manifest, database.dsn)
    answer, refuse_first = http_receiver.respond, True

    def respond(request: Any) -> Any:
        return 503 if refuse_first and b'"version":1' in request.body else answer(request)

    http_receiver.respond = respond
    listener = make_listener(manifest, database.dsn)
    listener.start()
    await poll(listener.forwards, 40)
    await database.execute("INSERT INTO account VALUES ('k', 1); UPDATE account SET version = 2")
    await poll(lambda: [each.change for each in endpoint.accepted] == [("k", 2)], 40)
    refuse_first = False
    await poll(lambda: [each.change for each in endpoint.accepted] == [("k", 2), ("k", 1)], 40)


async def test_an_event_that_alone_is_refused_is_told(
    tmp_path: Path, database: Database, http_receiver: HttpReceiver, make_listener: MakeListener
) -> None:
    """As all are by a wrong path, of which a first row shows nothing else: others may be accepted, so it forwards."""
    endpoint = Endpoint(http_receiver)
    endpoint.refused = {"bad"}
    manifest = await watched(database, endpoint, tmp_path / "wrong.yaml")
    listener = make_listener(manifest, database.dsn)
    listener.start()
    await poll(listener.forwards, 40)
    await put(database, "bad")

    async def is_told() -> bool:
        return "an event is refused and tried again" in (await listener.state())[2]

    await poll(is_told, 40)
    assert (await listener.state())[:2] == (True, "Forwarding")
    (status,) = json.loads((await command(manifest, database, "status")).out)
    assert any("the endpoint answered" in note for note in status["notes"])
    log = listener.log.read_text()
    assert log.count("an event is refused and tried again") == 1
    endpoint.refused = set()
    await poll(lambda: len(endpoint.accepted) == 1, 40)

    async def is_well() -> bool:
        return not await is_told()

    await poll(is_well, 40)
