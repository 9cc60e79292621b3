"""Streams made where they are missing, doubtful settings said in words, subjects with columns, and core NATS."""

from __future__ import annotations

from pathlib import Path

import nats
import pytest
from nats.aio.msg import Msg
from nats.js.api import DiscardPolicy, StorageType, StreamConfig
from nats.js.errors import NotFoundError

from tablewatcher.errors import Reason, SinkError
from tablewatcher.sinks.base import Verdict
from tablewatcher.sinks.nats import NatsSink
from tablewatcher.spec.model import CreateStream

from ..running import running_time
from .conftest import add_stream, nats_sink, stored, subscribed
from .events import event, events
from .servers import NatsServer


async def _config(server: NatsServer, stream: str = "SHOP") -> StreamConfig:
    client = await nats.connect(server.url)
    try:
        return (await client.jetstream().stream_info(stream)).config
    finally:
        await client.close()


async def _opened(server: NatsServer, **fields: object) -> NatsSink:
    sink = nats_sink(server.url, **fields)
    await sink.open()
    return sink


async def _refused(server: NatsServer, **fields: object) -> SinkError:
    with pytest.raises(SinkError) as caught:
        await nats_sink(server.url, **fields).open()
    return caught.value


async def test_a_missing_stream_is_made_and_an_existing_one_left_alone(nats_server: NatsServer) -> None:
    made = {"stream": "SHOP", "create": CreateStream(max_bytes=10 << 20, replicas=1)}
    sink = await _opened(nats_server, **made)
    assert sink.limits.ordered
    for op in "iudtg":
        assert (await sink.deliver([event(ord(op), op=op)]))[0].verdict is Verdict.DELIVERED
    await sink.close()
    config = await _config(nats_server)
    assert sorted(config.subjects) == [
        f"shop.public.orders.{action}" for action in ("delete", "gap", "insert", "truncate", "update")
    ]
    assert (config.storage, config.discard, config.max_bytes) == (StorageType.FILE, DiscardPolicy.OLD, 10 << 20)
    assert (config.num_replicas, config.duplicate_window, config.allow_batched) == (1, 120, True)
    other = await _opened(nats_server, stream="SHOP", create=CreateStream(max_bytes=20 << 20))
    await other.close()
    assert await _config(nats_server) == config
    # One that does not take the subjects is not changed either.
    error = await _refused(nats_server, stream="SHOP", create=CreateStream(), subject="other.{action}")
    assert error.reason is Reason.NO_STREAM_FOR_SUBJECT
    assert await _config(nats_server) == config


async def test_two_listeners_may_make_the_same_stream(nats_server: NatsServer) -> None:
    sinks = [nats_sink(nats_server.url, stream="SHOP", create=CreateStream(max_bytes=(n + 1) << 20)) for n in range(4)]
    for sink in sinks:
        await sink.open()
        await sink.close()


@pytest.mark.parametrize(
    ("create", "others", "words"),
    [
        (CreateStream(replicas=3), [], "replicas"),
        (CreateStream(max_bytes=1 << 60), [], "resources"),
        (CreateStream(), ["shop.public.orders.*"], "overlap"),
    ],
)
async def test_a_stream_that_cannot_be_made_is_said(
    nats_server: NatsServer, create: CreateStream, others: list[str], words: str
) -> None:
    if others:
        await add_stream(nats_server, name="OTHER", subjects=others)
    error = await _refused(nats_server, stream="SHOP", create=create)
    assert error.reason is Reason.NO_STREAM_FOR_SUBJECT
    assert "cannot be created" in error.message
    assert words in error.message


async def test_a_look_says_what_would_be_made_and_makes_nothing(nats_server: NatsServer) -> None:
    made = {"stream": "SHOP", "create": CreateStream(max_bytes=10 << 20)}
    sink = nats_sink(nats_server.url, **made)
    (sentence,) = await sink.look()
    assert "'SHOP' does not exist yet" in sentence
    assert "shop.public.orders.gap, shop.public.orders.insert" in sentence
    with pytest.raises(NotFoundError):
        await _config(nats_server)
    # What would be doubtful about it is said before it is there.
    doubts = sink.notes
    assert any("discard" in note for note in doubts)
    assert (await sink.deliver([event(1)]))[0].verdict is Verdict.RETRY, "a look leaves no sink open"
    await sink.open()
    assert sink.notes == doubts
    await sink.close()
    assert (await sink.look(), sink.notes) == ((), doubts)
    with pytest.raises(SinkError, match=r"does not take it: .* spec\.sink\.nats"):
        await nats_sink(nats_server.url, subject="other.{action}", **made).look()


async def test_a_look_says_that_a_stream_cannot_be_made(tmp_path: Path, nats_server: NatsServer) -> None:
    await add_stream(nats_server, name="OTHER", subjects=["shop.public.orders.*"])
    sink = nats_sink(nats_server.url, stream="SHOP", create=CreateStream())
    with pytest.raises(SinkError, match="its subjects overlap with those of stream OTHER"):
        await sink.look()
    (tmp_path / "bare").mkdir()
    bare = NatsServer(tmp_path / "bare", "accounts {NOBODY {users: [{user: a, password: a}]}}\nno_auth_user: a")
    bare.start()
    try:
        with pytest.raises(SinkError, match="JetStream is not enabled") as caught:
            await nats_sink(bare.url, stream="SHOP", create=CreateStream()).look()
    finally:
        bare.kill()
    assert caught.value.reason is Reason.NO_STREAM_FOR_SUBJECT


async def test_a_made_stream_takes_every_value_of_a_column(nats_server: NatsServer) -> None:
    fields = {"subject": "shop.{column:region}.x-{key}.{action}", "columns": ("region",)}
    sink = await _opened(nats_server, stream="SHOP", create=CreateStream(), **fields)
    sent = [event(1, key="7"), event(2, key="a b"), event(3, op="g", key="")]
    sent[0].routing, sent[1].routing = ("eu-west",), ("*.>",)
    assert {each.verdict for each in await sink.deliver(sent)} == {Verdict.DELIVERED}
    await sink.close()
    assert [message.subject for message in await stored(nats_server)] == [
        "shop.eu-west.x-7.insert",
        "shop.%2A%2E%3E.x-a%20b.insert",
        "shop._.x-_.gap",
    ]
    assert "shop.*.*.insert" in (await _config(nats_server)).subjects


@pytest.mark.parametrize("fast", [False, True])
async def test_a_subject_too_long_for_a_server_is_refused_alone(nats_server: NatsServer, fast: bool) -> None:
    await add_stream(nats_server, allow_batched=fast)
    sink = await _opened(nats_server, subject="shop.{column:region}", columns=("region",))
    sent = events(300)
    for each in sent:
        each.routing = ("r" * 3000,)
    sent[1].routing = ("r" * 5000,)
    outcomes = await sink.deliver(sent)
    assert [place for place, each in enumerate(outcomes) if each.verdict is not Verdict.DELIVERED] == [1]
    assert outcomes[1].verdict is Verdict.REJECTED
    assert "longer than" in outcomes[1].message
    await sink.close()


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"duplicate_window": 30}, "duplicate_window"),
        ({"max_bytes": 10 << 20}, "discard"),
        ({"max_msgs_per_subject": 1}, "discard"),
        ({"storage": StorageType.MEMORY}, "file storage"),
        ({}, "one copy"),
        ({"allow_batched": False}, "allow_batched"),
    ],
)
async def test_doubtful_settings_are_said(nats_server: NatsServer, config: dict[str, object], words: str) -> None:
    await add_stream(nats_server, **{"allow_batched": True, **config})
    sink = await _opened(nats_server)
    notes = list(sink.notes)
    await sink.close()
    assert any(words in note for note in notes)
    assert all("'SHOP'" in note for note in notes)
    # Beside it only what is true of every stream of a lone server.
    assert len(notes) == (1 if not config else 2)


async def test_core_nats_needs_no_stream_and_says_what_it_is(nats_server: NatsServer) -> None:
    sink = await _opened(nats_server, jet_stream=False)
    assert [each.verdict for each in await sink.deliver(events(3))] == [Verdict.DELIVERED] * 3
    assert "at most once" in sink.notes[0]
    await sink.check()
    await sink.close()


async def test_core_nats_says_at_once_that_the_server_is_gone(nats_server: NatsServer) -> None:
    sink = await _opened(nats_server, jet_stream=False)
    nats_server.kill()
    async with running_time() as took:
        outcomes = await sink.deliver(events(3))
    assert took.seconds < 5
    assert {(each.verdict, each.endpoint) for each in outcomes} == {(Verdict.RETRY, True)}
    await sink.close()


async def test_core_nats_keeps_the_order_of_a_call(nats_server: NatsServer) -> None:
    listener = await nats.connect(nats_server.url)
    subscription = await subscribed(listener)
    sink = await _opened(nats_server, jet_stream=False)
    sent = [event(ring_id, key=f"k{ring_id % 3}") for ring_id in range(1, 2001)]
    sent[5] = event(6, key="k0", note="x" * (2 << 20))
    outcomes = await sink.deliver(sent)
    assert outcomes[5].verdict is Verdict.REJECTED
    held = [place for place in range(6, 2000) if sent[place].key == "k0"]
    assert [place for place, each in enumerate(outcomes) if each.verdict is Verdict.RETRY] == held
    await sink.close()
    expected = [each.event_id for place, each in enumerate(sent) if place != 5 and place not in held]
    got = [(await subscription.next_msg(5)).headers["Nats-Msg-Id"] for _ in expected]
    assert got == expected
    await listener.close()


async def test_a_look_asks_once_for_a_stream_that_takes_all(nats_server: NatsServer) -> None:
    """Each watcher looks every other second."""
    await add_stream(nats_server)
    sink, asked = nats_sink(nats_server.url), list[str]()

    async def note(message: Msg) -> None:
        asked.append(message.subject)

    await sink.open()
    async with await nats.connect(nats_server.url) as client:
        await client.subscribe("$JS.API.>", cb=note)
        for _ in range(2):  # the library sends its first PING before the subscription
            await client.flush()
        await sink.check()
        await client.flush()
        assert asked == ["$JS.API.STREAM.NAMES", "$JS.API.STREAM.INFO.SHOP"]
    await sink.close()
