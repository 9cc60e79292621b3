"""JetStream without room, or a stream that stores nothing or only some: whose fault it is, and how soon it is said."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path

import nats
import pytest
from nats.js.api import (
    DiscardPolicy,
    PersistMode,
    RePublish,
    RetentionPolicy,
    StreamConfig,
    StreamSource,
    SubjectTransform,
)

from tablewatcher.errors import Reason, SinkError
from tablewatcher.sinks.base import Outcome, Verdict
from tablewatcher.spec.model import CreateStream

from ..running import running_time
from .conftest import add_stream, nats_sink, stored
from .events import event, events
from .servers import NatsServer

COUNT = 300
ROOM = 60_000
FULL_SERVER = f"max_file_store: {ROOM}, max_memory_store: {ROOM}"
FULL_ACCOUNT = (
    f"accounts {{A: {{jetstream: {{max_file: {ROOM}, max_mem: {ROOM}}}, users: [{{user: a, password: a}}]}}}}\n"
    "no_auth_user: a"
)
FEW_AT_ONCE = "max_buffered_msgs: 5"
FULL_STREAM = {"max_bytes": ROOM, "discard": DiscardPolicy.NEW}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Callable[..., NatsServer]]:
    """Starts one; to be called with what `NatsServer.configure` takes."""
    made = NatsServer(tmp_path)

    def start(config: str = "", jetstream: str = "") -> NatsServer:
        made.configure(config, jetstream)
        made.start()
        return made

    yield start
    made.kill()


async def _change(server: NatsServer, **config: object) -> None:
    client = await nats.connect(server.url)
    try:
        await client.jetstream().update_stream(StreamConfig(**{"name": "SHOP", "subjects": ["shop.>"], **config}))
    finally:
        await client.close()


def _verdicts(outcomes: list[Outcome]) -> set[Verdict]:
    return {outcome.verdict for outcome in outcomes}


@pytest.mark.parametrize("fast", [False, True])
@pytest.mark.parametrize(
    ("settings", "stream", "says"),
    [
        ({}, FULL_STREAM, "maximum bytes exceeded"),
        ({"jetstream": FULL_SERVER}, {}, "insufficient resources"),
        ({"config": FULL_ACCOUNT}, {}, "resource limits exceeded for account"),
    ],
    ids=["stream", "server", "account"],
)
async def test_no_room_is_the_endpoints_fault_and_heals(
    server: Callable[..., NatsServer], settings: dict[str, str], stream: dict[str, object], says: str, fast: bool
) -> None:
    running = server(**settings)
    await add_stream(running, allow_batched=fast, **stream)
    sink = nats_sink(running.url)
    await sink.open()
    sent = [event(n, key=f"k{n}", note="x" * 300) for n in range(COUNT)]
    async with running_time() as took:
        outcomes = await sink.deliver(sent)
    assert took.seconds < 4, "what the server has said was not believed"
    held = [each for each in outcomes if each.verdict is not Verdict.DELIVERED]
    assert held
    assert {(each.verdict, each.endpoint) for each in held} == {(Verdict.RETRY, True)}
    assert all(says in each.message for each in held)
    client = await nats.connect(running.url)
    kept = {each.headers["Nats-Msg-Id"] for each in await stored(running)}
    delivered = {each.event_id for each, o in zip(sent, outcomes, strict=True) if o.verdict is Verdict.DELIVERED}
    assert delivered <= kept, "told as delivered and not stored"
    await client.jetstream().purge_stream("SHOP")
    await client.close()
    assert _verdicts(await sink.deliver(events(20, first=1000))) == {Verdict.DELIVERED}
    await sink.close()


@pytest.mark.parametrize("fast", [False, True])
async def test_more_than_a_server_keeps_waiting_is_no_fault_of_an_event(
    server: Callable[..., NatsServer], fast: bool
) -> None:
    """As several watchers of one stream may bring about together."""
    running = server(jetstream=FEW_AT_ONCE)
    await add_stream(running, allow_batched=fast)
    sink = nats_sink(running.url)
    await sink.open()
    left = [event(n, key=f"k{n}", note="x" * 3000) for n in range(4000)]
    met = 0
    async with asyncio.timeout(60):
        while left:
            outcomes = await sink.deliver(left)
            assert all(each.endpoint for each in outcomes if each.verdict is not Verdict.DELIVERED)
            left = [each for each, o in zip(left, outcomes, strict=True) if o.verdict is not Verdict.DELIVERED][:1000]
            met += bool(left)
            # It needs a moment to write what it keeps, as it has between the tries of a listener.
            await asyncio.sleep(0.02)
    assert met, "the server kept all of it waiting: this test means nothing"
    await sink.close()


@pytest.mark.parametrize("fast", [False, True])
async def test_a_stream_that_is_sealed_meanwhile_is_said(nats_server: NatsServer, fast: bool) -> None:
    await add_stream(nats_server, allow_batched=fast)
    sink = nats_sink(nats_server.url)
    await sink.open()
    await _change(nats_server, allow_batched=fast, sealed=True)
    outcomes = await sink.deliver(events(COUNT))
    assert {(o.verdict, o.reason, o.endpoint) for o in outcomes} == {
        (Verdict.RETRY, Reason.NO_STREAM_FOR_SUBJECT, True)
    }
    with pytest.raises(SinkError) as caught:
        await sink.check()
    assert "sealed" in caught.value.message
    await sink.close()


async def test_a_stream_of_counters_is_refused_at_open(nats_server: NatsServer) -> None:
    await add_stream(nats_server, allow_msg_counter=True, allow_direct=True)
    with pytest.raises(SinkError) as caught:
        await nats_sink(nats_server.url).open()
    assert caught.value.reason is Reason.NO_STREAM_FOR_SUBJECT
    assert "allow_msg_counter" in caught.value.message


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"retention": RetentionPolicy.INTEREST}, "retention"),
        ({"persist_mode": PersistMode.ASYNC}, "persist_mode"),
    ],
)
async def test_acknowledged_and_perhaps_not_kept_is_said(
    nats_server: NatsServer, config: dict[str, object], words: str
) -> None:
    await add_stream(nats_server, **config)
    sink = nats_sink(nats_server.url)
    await sink.open()
    assert any(words in note for note in sink.notes)
    assert _verdicts(await sink.deliver(events(3))) == {Verdict.DELIVERED}
    await sink.close()


@pytest.mark.parametrize("fast", [False, True])
@pytest.mark.parametrize(
    "config",
    [
        {"allow_direct": True, "deny_delete": True, "allow_rollup_hdrs": True, "max_age": 3600},
        {"duplicate_window": 0.1},
        {"retention": RetentionPolicy.WORK_QUEUE},
        {"subject_transform": SubjectTransform("shop.>", "moved.>"), "republish": RePublish("shop.>", "again.>")},
    ],
    ids=["direct", "short memory", "work queue", "moved subjects"],
)
async def test_other_settings_change_nothing(nats_server: NatsServer, config: dict[str, object], fast: bool) -> None:
    await add_stream(nats_server, allow_batched=fast, **config)
    sink = nats_sink(nats_server.url)
    await sink.open()
    sent = events(COUNT)
    assert _verdicts(await sink.deliver(sent)) == {Verdict.DELIVERED}
    await sink.close()
    assert {each.headers["Nats-Msg-Id"] for each in await stored(nats_server)} == {each.event_id for each in sent}


async def test_a_copy_of_the_stream_is_never_taken_for_it(nats_server: NatsServer) -> None:
    await add_stream(nats_server)
    await add_stream(nats_server, name="MIRROR", subjects=None, mirror=StreamSource("SHOP"))
    await add_stream(nats_server, name="GATHERED", subjects=["other.>"], sources=[StreamSource("SHOP")])
    sink = nats_sink(nats_server.url)
    await sink.open()
    assert all("'SHOP'" in note for note in sink.notes)
    assert _verdicts(await sink.deliver(events(3))) == {Verdict.DELIVERED}
    await sink.close()
    for create in (None, CreateStream()):
        with pytest.raises(SinkError) as caught:
            await nats_sink(nats_server.url, stream="MIRROR", create=create).open()
        assert caught.value.reason is Reason.NO_STREAM_FOR_SUBJECT
