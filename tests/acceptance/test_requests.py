"""Several requests at once: what gets nowhere keeps no other waiting."""

from __future__ import annotations

import asyncio
import json
import signal
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from ..conftest import Database, HttpReceiver, poll
from .arrivals import Endpoint
from .conftest import MakeListener
from .listeners import Listener
from .parking import changes, command, is_aside, put_aside, watched
from .programs import PROGRAM, started
from .writers import put


@pytest.fixture
def endpoint(http_receiver: HttpReceiver) -> Endpoint:
    return Endpoint(http_receiver)


@pytest.fixture
async def manifest(tmp_path: Path, database: Database, endpoint: Endpoint) -> Path:
    """A watcher that gives an event up after two refusals."""
    return await watched(database, endpoint, tmp_path / "http.yaml", maxAttempts=2)


@pytest.fixture
def listener(manifest: Path, database: Database, make_listener: MakeListener) -> Listener:
    """It is started."""
    found = make_listener(manifest, database.dsn)
    found.start()
    return found


async def states(database: Database) -> dict[Any, Any]:
    """The state of every request, by its kind."""
    return dict(await database.execute("SELECT kind, state FROM tablewatcher.request"))


@pytest.mark.parametrize("waiting", [("parked", "replay"), ("replay", "--since", "1h")], ids=["parked", "delivered"])
async def test_a_skip_waits_for_no_endpoint(
    database: Database, endpoint: Endpoint, manifest: Path, listener: Listener, waiting: tuple[str, ...]
) -> None:
    """What another request has in delivery is taken back; what is left of it arrives in order when it can."""
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
    database: Database, endpoint: Endpoint, http_receiver: HttpReceiver, manifest: Path, listener: Listener
) -> None:
    """The endpoint answers 500 to one event, and nothing else is there that could prove it guilty."""
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


async def test_a_row_that_takes_a_key_meanwhile_overtakes_nothing_of_its_own(
    database: Database, endpoint: Endpoint, manifest: Path, listener: Listener
) -> None:
    """While what is aside of one key is sent, another row with events aside gets that key: it stays behind these."""
    await put_aside(database, endpoint, "bad", "fine")
    await database.execute(
        'BEGIN; SET LOCAL tablewatcher.context = \'{"versions": {"fine": 2}}\';'
        " DELETE FROM account WHERE key = 'fine'; COMMIT"
    )
    await poll(lambda: is_aside(database, "bad", "fine", "fine"), 40)
    endpoint.refused = {"bad"}
    await endpoint.die()
    replay = asyncio.create_task(command(manifest, database, "parked", "replay", "--key", "fine"))
    await poll(lambda: _begun(database, "parked"), 40)
    read = await listener.metric("events_captured_total")
    await database.execute("UPDATE account SET key = 'fine', version = 7 WHERE key = 'bad'")

    async def is_read() -> bool:
        return await listener.metric("events_captured_total") > read

    await poll(is_read, 40)
    await endpoint.rise()
    answer = await replay
    assert ("fine", 7) not in changes(endpoint)
    assert answer.code == 10
    assert "parked again: keys bad, fine" in answer.out
    endpoint.refused = set()
    assert (await command(manifest, database, "parked", "replay")).code == 0
    of_both = [change for change in changes(endpoint) if change[0] in ("bad", "fine")]
    assert of_both[-2:] == [("bad", 1), ("fine", 7)]
    assert await is_aside(database)


async def test_how_many_rows_are_put_aside_again_is_told_where_they_are_many(
    database: Database, endpoint: Endpoint, manifest: Path, listener: Listener
) -> None:
    bad = [f"bad{nth:02}" for nth in range(12)]
    await put_aside(database, endpoint, *bad)
    answer = await command(manifest, database, "parked", "replay")
    assert answer.code == 10
    assert f"parked again: keys {', '.join(bad[:10])} and 2 more" in answer.out


async def test_a_row_that_has_taken_a_key_waits_for_what_is_refused_of_its_own(
    database: Database, endpoint: Endpoint, manifest: Path, listener: Listener
) -> None:
    """So many events are aside of the key that its change comes only with the second piece of them."""
    await put_aside(database, endpoint, "bad", "fine")
    await database.execute(
        "DO $$ BEGIN FOR n IN 2..520 LOOP UPDATE account SET version = n WHERE key = 'fine'; END LOOP;"
        " UPDATE account SET key = 'gone', version = 521 WHERE key = 'fine';"
        " UPDATE account SET key = 'fine', version = 522 WHERE key = 'bad'; END $$"
    )

    async def all_aside() -> bool:
        return (await database.execute("SELECT count(*) FROM tablewatcher.parked"))[0][0] >= 523

    await poll(all_aside, 40)
    endpoint.refused = {"bad"}
    answer = await command(manifest, database, "parked", "replay")
    assert ("fine", 522) not in changes(endpoint)
    assert ("fine", 2) in changes(endpoint)
    assert answer.code == 10
    endpoint.refused = set()
    assert (await command(manifest, database, "parked", "replay")).code == 0
    assert await is_aside(database)
    of_all = [change for change in changes(endpoint) if change[0] in ("bad", "fine", "gone")]
    assert of_all.index(("fine", 522)) > max(of_all.index(("bad", 1)), of_all.index(("gone", 521)))


async def test_a_program_hears_what_a_replay_waits_for(database: Database, manifest: Path) -> None:
    """On standard error: what is printed is JSON, and comes when it is done."""
    words = ("replay", "--since", "1h", "-f", manifest, "--dsn", database.dsn, "-o", "json")
    with started(PROGRAM, *words) as program:
        await poll(lambda: "no listener of this watcher is active; waiting" in program.err, 40)
        assert await program.end(signal.SIGINT) == 130
        assert program.out == ""


@pytest.mark.parametrize(("word", "said"), [("replay", "0 sent"), ("skip", "0 dropped")])
async def test_where_nothing_is_parked_that_is_said(
    database: Database, manifest: Path, listener: Listener, word: str, said: str
) -> None:
    """As where an event is refused, and not given up yet."""
    await poll(listener.forwards, 40)
    (found,) = json.loads((await command(manifest, database, "parked", word)).out)
    assert (found["ok"], found["detail"]) == (True, f"{said}: nothing is parked")
