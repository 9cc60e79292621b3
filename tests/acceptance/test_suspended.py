"""`spec.suspend` that comes while a request is under way, and goes again: the request waits, and says what for."""

from __future__ import annotations

import asyncio
import contextlib
import json
from pathlib import Path
from typing import Any

import pytest

from ..conftest import Database, HttpReceiver, poll
from .arrivals import Endpoint
from .commands import Answer, tablewatcher
from .commands import put as write_over
from .conftest import MakeListener
from .listeners import Listener
from .parking import changes, command, is_aside, put_aside, watched
from .programs import PROGRAM, started
from .writers import put


def suspend(manifest: Path, *, suspended: bool) -> None:
    """The listener reads it within some seconds."""
    found = json.loads(manifest.read_text())
    found["spec"]["suspend"] = suspended
    write_over(manifest, json.dumps(found))


async def is_suspended(listener: Listener) -> bool:
    return (await listener.state())[1] == "Suspended"


async def said(manifest: Path, database: Database, *words: str) -> Answer:
    """The answer of a command as a person reads it."""
    return await tablewatcher(*words, "-f", manifest, "--dsn", database.dsn)


async def state(database: Database, kind: str) -> tuple[Any, ...]:
    """The state of the request of that kind, how much of it is done, and what it says."""
    found = await database.execute("SELECT state, done, message FROM tablewatcher.request WHERE kind = %s", kind)
    return found[0]


async def proofs(database: Database) -> int:
    """How often the owner of the lease has proved it: about once a second."""
    (log,) = await database.execute(
        "SELECT string_agg('SELECT epoch, n FROM tablewatcher.' || relname, ' UNION ALL ') FROM pg_class"
        " WHERE relname ~ '^cursor_.*_[012]$' AND relkind = 'r'"
    )
    ((number,),) = await database.execute(f"SELECT n FROM ({log[0]}) AS l ORDER BY epoch DESC, n DESC LIMIT 1")
    return int(number)


class Stage:
    """One listener; key `bad` has four events aside, the endpoint is mended, and answers no more of what is replayed
    than it must until the listener has seen that the watcher is suspended."""

    def __init__(self, listener: Listener, database: Database, receiver: HttpReceiver, endpoint: Endpoint) -> None:
        self.listener, self.database, self.receiver, self.endpoint = listener, database, receiver, endpoint
        self.came, self.is_seen = asyncio.Event(), asyncio.Event()
        accept = receiver.respond

        async def respond(request: Any) -> Any:
            if b'"replay":' in request.body:
                self.came.set()
                # A replay of the ring goes on without what gets no answer for three seconds.
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(None if b'"partitionkey":"bad"' in request.body else 1.0):
                        await self.is_seen.wait()
            return accept(request)

        receiver.respond = respond

    async def suspended_in_the_midst(self) -> None:
        """Once the first event has come; nothing comes any more then."""
        await asyncio.wait_for(self.came.wait(), 40)
        suspend(self.listener.manifest, suspended=True)
        # It waits for what is under way; then it begins again.
        await poll(self.listener.serves_nothing, 40)
        self.is_seen.set()
        await poll(lambda: is_suspended(self.listener), 40)
        sent, proved = len(self.receiver.requests), await proofs(self.database)
        await put(self.database, "other")

        async def has_lived_on() -> bool:
            return await proofs(self.database) > proved + 2

        await poll(has_lived_on, 40)
        assert len(self.receiver.requests) == sent


@pytest.fixture
async def stage(tmp_path: Path, database: Database, http_receiver: HttpReceiver, make_listener: MakeListener) -> Stage:
    endpoint = Endpoint(http_receiver)
    manifest = await watched(database, endpoint, tmp_path / "http.yaml", maxAttempts=2)
    listener = make_listener(manifest, database.dsn)
    listener.start()
    await put_aside(database, endpoint, "bad")
    await put(database, "bad", "bad", "bad", *["good"] * 20)
    await poll(lambda: is_aside(database, *["bad"] * 4), 40)
    endpoint.refused = set()
    return Stage(listener, database, http_receiver, endpoint)


async def test_a_replay_of_what_is_parked_waits(stage: Stage) -> None:
    """The command ends, as where no listener runs; what was sent is counted, and the rest goes on by itself."""
    manifest, database = stage.listener.manifest, stage.database
    asked = asyncio.create_task(said(manifest, database, "parked", "replay"))
    await stage.suspended_in_the_midst()
    answer = await asyncio.wait_for(asked, 40)
    assert answer.code == 0, answer.err
    assert "is noted; it is done when a listener of this watcher runs and spec.suspend is false" in answer.out
    assert (await state(database, "parked"))[::2] == ("running", "the watcher is suspended: spec.suspend is true")
    suspend(manifest, suspended=False)

    async def is_done() -> bool:
        return await state(database, "parked") == ("done", 4, "4 sent")

    await poll(is_done, 40)
    await poll(lambda: ("other", 1) in changes(stage.endpoint), 40)
    assert [version for key, version in dict.fromkeys(changes(stage.endpoint)) if key == "bad"] == [1, 2, 3, 4]


async def test_a_replay_of_what_was_delivered_waits(stage: Stage) -> None:
    """It begins anew, and the command that waits says what for; to drop something needs no delivery."""
    manifest, database = stage.listener.manifest, stage.database
    words = ("replay", "--since", "1h", "--key", "good", "-f", manifest, "--dsn", database.dsn)
    with started(PROGRAM, *words) as asked:
        await stage.suspended_in_the_midst()
        answer = await command(manifest, database, "parked", "skip")
        assert (answer.code, json.loads(answer.out)[0]["events"]) == (0, 4), answer.out
        await poll(lambda: "the watcher is suspended: spec.suspend is true; waiting" in asked.err, 40)
        assert asked.code is None
        number = changes(stage.endpoint).count(("good", 1))
        suspend(manifest, suspended=False)
        assert await asked.ended(60) == 0
        assert "sent again" in asked.out
    assert changes(stage.endpoint).count(("good", 1)) == number + 1
    await poll(lambda: ("other", 1) in changes(stage.endpoint), 40)
