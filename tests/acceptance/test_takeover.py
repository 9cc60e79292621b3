"""The active listener is killed between two of its statements, and the one that stands by goes on."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
from pathlib import Path
from typing import Any

import pytest

from ..conftest import Database, HttpReceiver, poll
from .commands import Answer
from .conftest import MakeListener
from .gates import gate
from .pairs import Pair
from .parking import changes, command, is_aside
from .writers import put

CURSOR = "^cursor_"
NOTHING_ASIDE = "NOT EXISTS (SELECT FROM tablewatcher.parked)"


class Takeover(Pair):
    """What these tests ask of a pair."""

    async def put_aside(self) -> None:
        """Three events of key `bad` are aside."""
        await put(self.database, "bad", "bad", "bad")
        await poll(self._are_aside, 40)

    async def _are_aside(self) -> bool:
        await put(self.database, "good")
        return await is_aside(self.database, "bad", "bad", "bad")

    async def command(self, *words: str) -> Answer:
        return await command(self.manifest, self.database, *words)

    def bad(self) -> list[int]:
        """Versions of key `bad` as they were first accepted."""
        return list(dict.fromkeys(version for key, version in changes(self.endpoint) if key == "bad"))

    async def all_well(self, last: int) -> None:
        """Nothing is left to do or aside; what comes for the key arrives, and is its version `last`."""
        await put(self.database, "bad")
        await poll(lambda: self.bad()[-1:] == [last], 40)
        assert self.bad() == sorted(self.bad())
        await poll(lambda: is_aside(self.database), 40)
        await poll(self._is_done, 40)

    async def _is_done(self) -> bool:
        return not await self.database.execute("SELECT FROM tablewatcher.request WHERE state IN ('asked', 'running')")

    def hold(self, mark: bytes) -> tuple[asyncio.Event, asyncio.Event]:
        """Requests with `mark` are accepted, and not answered until the second is set; the first is when one comes."""
        answer, came, may_go = self.receiver.respond, asyncio.Event(), asyncio.Event()

        async def respond(request: Any) -> Any:
            answered = answer(request)
            if mark in request.body:
                came.set()
                await may_go.wait()
            return answered

        self.receiver.respond = respond
        return came, may_go


@pytest.fixture
async def pair(
    tmp_path: Path, database: Database, http_receiver: HttpReceiver, make_listener: MakeListener
) -> Takeover:
    made = await Takeover.made(tmp_path / "http.yaml", database, http_receiver, make_listener, 2, maxAttempts=2)
    made.endpoint.refused = {"bad"}
    return made


either = pytest.mark.parametrize("is_lost", [True, False], ids=["lost", "lands"])


async def killed_at(pair: Takeover, *place: str, is_lost: bool = True, asked: tuple[str, ...] = ()) -> Answer | None:
    """kill -9 of the active listener at a gate at `place`; the answer of the command that had `asked`.

    is_lost: the statement at which it is killed never happens; else it does all the same.
    """
    async with gate(pair.database, *place) as shut:
        waiting = asyncio.create_task(pair.command(*asked)) if asked else None
        await shut.reached()
        await pair.active.kill()
        if is_lost:
            await shut.lose()
    return await asyncio.wait_for(waiting, 60) if waiting else None


@either
async def test_between_parking_and_the_cursor(pair: Takeover, is_lost: bool) -> None:
    await put(pair.database, "bad", "bad", "good")
    some = asyncio.create_task(_some_good(pair))
    await killed_at(pair, "INSERT", CURSOR, "EXISTS (SELECT FROM tablewatcher.parked)", is_lost=is_lost)
    await put(pair.database, "bad")
    await poll(lambda: is_aside(pair.database, "bad", "bad", "bad"), 40)
    some.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await some
    assert pair.bad() == []
    pair.endpoint.refused = set()
    answer = await pair.command("parked", "replay")
    assert (answer.code, json.loads(answer.out)[0]["events"]) == (0, 3), answer.out
    assert pair.bad() == [1, 2, 3]
    await pair.all_well(4)


async def _some_good(pair: Takeover) -> None:
    while True:
        await put(pair.database, "good")
        await asyncio.sleep(0.05)


PARKED_REPLAY = {
    "sent, not deleted": ("DELETE", "^parked$"),
    "deleted, no cursor": ("INSERT", CURSOR, NOTHING_ASIDE),
    "not told to be done": ("UPDATE", "^request$", NOTHING_ASIDE),
}


@either
@pytest.mark.parametrize("place", PARKED_REPLAY.values(), ids=PARKED_REPLAY)
async def test_in_a_replay_of_what_is_parked(pair: Takeover, place: tuple[str, ...], is_lost: bool) -> None:
    await pair.put_aside()
    pair.endpoint.refused = set()
    answer = await killed_at(pair, *place, is_lost=is_lost, asked=("parked", "replay"))
    assert answer is not None
    (found,) = json.loads(answer.out)
    assert (answer.code, found["state"], found["events"], found["detail"]) == (0, "done", 3, "3 sent"), answer.out
    assert pair.bad() == [1, 2, 3]
    await pair.all_well(4)


REPLAY = {
    "sent, not told": ("UPDATE", "^request$", "EXISTS (SELECT FROM tablewatcher.request WHERE state = 'running')"),
    "not told to be done": ("UPDATE", "^request$", "EXISTS (SELECT FROM tablewatcher.request WHERE done > 0)"),
}


@pytest.mark.parametrize("place", REPLAY.values(), ids=REPLAY)
async def test_in_a_replay_of_what_was_delivered(pair: Takeover, place: tuple[str, ...]) -> None:
    pair.endpoint.refused = set()
    await put(pair.database, "bad", "good", "bad", "good")
    await poll(lambda: len(set(changes(pair.endpoint))) == 4, 40)
    answer = await killed_at(pair, *place, asked=("replay", "--since", "1h"))
    assert answer is not None
    (found,) = json.loads(answer.out)
    assert (answer.code, found["state"], found["events"]) == (0, "done", 4), answer.out
    assert found["detail"].startswith("4 sent again; the watcher was installed at 20")
    await pair.all_well(3)


SKIP = {
    "dropped, not committed": ("UPDATE", "^request$"),
    "dropped, no cursor": ("INSERT", CURSOR, "EXISTS (SELECT FROM tablewatcher.request WHERE state = 'done')"),
}


@pytest.mark.parametrize("place", SKIP.values(), ids=SKIP)
async def test_in_a_skip(pair: Takeover, place: tuple[str, ...]) -> None:
    """What stood behind is sent, whoever drops the first; nothing else is gone."""
    await pair.put_aside()
    pair.endpoint.refused = set()
    ((first,),) = await pair.database.execute("SELECT event_id FROM tablewatcher.parked ORDER BY n LIMIT 1")
    answer = await killed_at(pair, *place, asked=("parked", "skip", "--id", first))
    assert answer is not None
    (found,) = json.loads(answer.out)
    assert (answer.code, found["state"], found["events"]) == (0, "done", 1), answer.out
    await poll(lambda: pair.bad() == [2, 3], 40)
    await pair.all_well(4)


@pytest.mark.parametrize("words", [("parked", "replay"), ("replay", "--since", "1h")], ids=["parked", "delivered"])
async def test_the_owner_of_a_request_sleeps_through_its_lease(pair: Takeover, words: tuple[str, ...]) -> None:
    """It wakes up in the middle of a send that its successor has made too: what is done stays done."""
    await pair.put_aside()
    pair.endpoint.refused = set()
    came, may_go = pair.hold(b'"replay":')
    asked = asyncio.create_task(pair.command(*words))
    await asyncio.wait_for(came.wait(), 40)
    pair.active.send(signal.SIGSTOP)
    may_go.set()
    answer = await asyncio.wait_for(asked, 60)
    assert answer.code == 0, answer.out
    done = await pair.database.execute("SELECT state, done, total, message FROM tablewatcher.request")
    again = sum(b'"replay":' in request.body for request in pair.receiver.requests)
    pair.active.send(signal.SIGCONT)
    await poll(pair.active.stands_by, 40)
    assert await pair.database.execute("SELECT state, done, total, message FROM tablewatcher.request") == done
    if words[0] == "parked":
        assert pair.bad() == [1, 2, 3]
        await pair.all_well(4)
    assert sum(b'"replay":' in request.body for request in pair.receiver.requests) == again
