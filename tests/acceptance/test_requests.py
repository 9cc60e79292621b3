"""Several requests at once: what gets nowhere keeps no other waiting."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from ..conftest import Database, HttpReceiver, poll
from .arrivals import Endpoint
from .conftest import MakeListener
from .parking import changes, command, is_aside, put_aside, watched
from .writers import put


async def states(database: Database) -> dict[Any, Any]:
    """The state of every request, by its kind."""
    return dict(await database.execute("SELECT kind, state FROM tablewatcher.request"))


@pytest.mark.parametrize("waiting", [("parked", "replay"), ("replay", "--since", "1h")], ids=["parked", "delivered"])
async def test_a_skip_waits_for_no_endpoint(
    tmp_path: Path,
    database: Database,
    http_receiver: HttpReceiver,
    make_listener: MakeListener,
    waiting: tuple[str, ...],
) -> None:
    """What another request has in delivery is taken back; what is left of it arrives in order when it can."""
    endpoint = Endpoint(http_receiver)
    manifest = await watched(database, endpoint, tmp_path / "http.yaml", maxAttempts=2)
    listener = make_listener(manifest, database.dsn)
    listener.start()
    await put_aside(database, endpoint, "bad", "worse")
    await put(database, "bad", "bad")
    await poll(lambda: is_aside(database, "bad", "bad", "bad", "worse"), 40)
    await endpoint.die()
    held = asyncio.create_task(command(manifest, database, *waiting))
    kind = "parked" if waiting[0] == "parked" else "replay"
    await poll(lambda: _begun(database, kind), 40)
    async with asyncio.timeout(60):
        ((first,),) = await database.execute(
            "SELECT event_id FROM tablewatcher.parked WHERE key = 'bad' ORDER BY n LIMIT 1"
        )
        answer = await command(manifest, database, "parked", "skip", "--id", first)
        assert answer.code == 0, answer.out
        assert "1 dropped, of key bad; what was held behind" in answer.out
        answer = await command(manifest, database, "parked", "skip", "--key", "worse")
        assert answer.code == 0, answer.out
    assert not held.done()
    assert await is_aside(database, "bad", "bad")
    endpoint.refused = set()
    await endpoint.rise()
    assert (await held).code == 0
    await poll(lambda: ("bad", 3) in changes(endpoint), 40)
    bad = [version for key, version in changes(endpoint) if key == "bad"]
    # A replay of the ring may bring the one that was dropped, before or after the others: it is there still.
    assert [version for version in bad if version != 1][-2:] == [2, 3]
    assert 1 not in bad or kind == "replay"
    await put(database, "worse", "bad")
    await poll(lambda: {("worse", 2), ("bad", 4)} <= set(changes(endpoint)), 40)
    await poll(lambda: is_aside(database), 40)


async def _begun(database: Database, kind: str) -> bool:
    # A replay says that it runs once what was read before it has gone out.
    return (await states(database)).get(kind) in ("running", "asked" if kind == "replay" else "running")


async def test_a_request_that_gets_nowhere_lets_others_by(
    tmp_path: Path, database: Database, http_receiver: HttpReceiver, make_listener: MakeListener
) -> None:
    """The endpoint answers 500 to one event, and nothing else is there that could prove it guilty."""
    endpoint = Endpoint(http_receiver)
    manifest = await watched(database, endpoint, tmp_path / "http.yaml", maxAttempts=2)
    listener = make_listener(manifest, database.dsn)
    listener.start()
    await put_aside(database, endpoint, "bad", "fine")
    endpoint.refused = set()
    accept, broken = http_receiver.respond, True

    def respond(request: Any) -> Any:
        if broken and b'"partitionkey":"bad"' in request.body:
            return web.Response(status=500)
        return accept(request)

    http_receiver.respond = respond
    stuck = asyncio.create_task(command(manifest, database, "parked", "replay", "--key", "bad"))
    await poll(lambda: _begun(database, "parked"), 40)
    async with asyncio.timeout(60):
        answer = await command(manifest, database, "parked", "replay", "--key", "fine")
        assert answer.code == 0, answer.out
        answer = await command(manifest, database, "replay", "--since", "1h", "--key", "good")
        assert json.loads(answer.out)[0]["events"] > 0, answer.out
    assert not stuck.done()
    broken = False
    assert (await stuck).code == 0
    assert ("bad", 1) in changes(endpoint)
