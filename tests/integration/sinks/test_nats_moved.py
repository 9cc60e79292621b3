"""Subjects that move from one stream to another under traffic, and answers that are no acknowledgement."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import nats
import pytest
from nats.aio.msg import Msg
from nats.js import JetStreamContext
from nats.js.api import StreamConfig

from tablewatcher.errors import Reason, SinkError
from tablewatcher.sinks.base import Verdict
from tablewatcher.sinks.nats import sink as sink_module

from .conftest import add_stream, nats_sink, subscribed
from .events import events
from .servers import NatsServer, until
from .traffic import CALL, traffic


async def _ids(jetstream: JetStreamContext, stream: str) -> list[str]:
    count = (await jetstream.stream_info(stream)).state.messages
    subscription = await jetstream.subscribe(">", stream=stream, ordered_consumer=True)
    try:
        return [(await subscription.next_msg(5)).headers["Nats-Msg-Id"] for _ in range(count)]
    finally:
        await subscription.unsubscribe()


@pytest.mark.parametrize("fast", [False, True])
async def test_what_is_told_as_delivered_is_in_one_of_the_streams(nats_server: NatsServer, fast: bool) -> None:
    """The subjects go from SHOP to NEXT, with a while between in which no stream has them."""
    await add_stream(nats_server, allow_batched=fast)
    sink = nats_sink(nats_server.url)
    await sink.open()
    client = await nats.connect(nats_server.url)
    jetstream = client.jetstream(timeout=10)
    async with traffic(sink, looks=True) as sent:
        await until(lambda: len(sent.told) > 3 * CALL, 30)
        await jetstream.update_stream(StreamConfig(name="SHOP", subjects=["old.>"], allow_batched=fast))
        await until(lambda: Reason.NO_STREAM_FOR_SUBJECT in sent.reasons, 30)
        told = len(sent.told)
        await add_stream(nats_server, name="NEXT", allow_batched=fast)
        await until(lambda: len(sent.told) > told + 3 * CALL, 30)
    await sink.close()
    before, after = await _ids(jetstream, "SHOP"), await _ids(jetstream, "NEXT")
    await client.close()
    assert before
    assert after
    assert sent.missing(sent.told) == sent.missing({*before, *after}) == []
    assert sent.is_in_order([*before, *after])


@pytest.mark.parametrize("fast", [False, True])
async def test_a_stream_under_another_name_takes_all_that_follows(nats_server: NatsServer, fast: bool) -> None:
    """What the old one had is gone with it; what is told as delivered afterwards is in the new one."""
    await add_stream(nats_server, allow_batched=fast)
    sink = nats_sink(nats_server.url)
    await sink.open()
    assert {each.verdict for each in await sink.deliver(events(300))} == {Verdict.DELIVERED}
    client = await nats.connect(nats_server.url)
    await client.jetstream().delete_stream("SHOP")
    await add_stream(nats_server, name="NEXT", allow_batched=fast)
    sent = events(300, first=301)
    tries = 0
    while {each.verdict for each in await sink.deliver(sent)} != {Verdict.DELIVERED}:
        tries += 1
        assert tries < 3, "the next look did not find the stream"
        await sink.check()
    assert sorted(await _ids(client.jetstream(), "NEXT")) == sorted(each.event_id for each in sent)
    await client.close()
    await sink.close()


@pytest.mark.parametrize("fast", [False, True])
async def test_a_stream_that_the_manifest_names_is_waited_for(nats_server: NatsServer, fast: bool) -> None:
    await add_stream(nats_server, allow_batched=fast)
    sink = nats_sink(nats_server.url, stream="SHOP")
    await sink.open()
    client = await nats.connect(nats_server.url)
    jetstream = client.jetstream()
    await jetstream.update_stream(StreamConfig(name="SHOP", subjects=["old.>"], allow_batched=fast))
    await add_stream(nats_server, name="NEXT", allow_batched=fast)
    for _ in range(2):
        outcomes = await sink.deliver(events(300))
        assert {(each.verdict, each.reason) for each in outcomes} == {(Verdict.RETRY, Reason.NO_STREAM_FOR_SUBJECT)}
        with pytest.raises(SinkError) as caught:
            await sink.check()
        assert caught.value.reason is Reason.NO_STREAM_FOR_SUBJECT
    assert await _ids(jetstream, "NEXT") == []
    await jetstream.delete_stream("NEXT")
    await jetstream.update_stream(StreamConfig(name="SHOP", subjects=["shop.>"], allow_batched=fast))
    assert {each.verdict for each in await sink.deliver(events(300))} == {Verdict.DELIVERED}
    assert len(await _ids(jetstream, "SHOP")) == 300
    await client.close()
    await sink.close()


def _replying(answer: bytes) -> Callable[[Msg], Awaitable[None]]:
    async def reply(message: Msg) -> None:
        await message.respond(answer)

    return reply


@pytest.mark.parametrize("fast", [False, True])
@pytest.mark.parametrize(
    "answer", [b"", b'{"response":{},"isDisposed":true}', b'{"error":"no"}', b'{"error":{"code":400}}']
)
async def test_a_service_that_replies_before_the_stream_does_is_not_believed(
    nats_server: NatsServer, answer: bytes, fast: bool
) -> None:
    """As those do that reply to whatever they get: a stream that writes to its disk first is slower."""
    nats_server.kill()
    nats_server.configure("", "sync_interval: always")
    nats_server.start()
    await add_stream(nats_server, allow_batched=fast)
    client = await nats.connect(nats_server.url)
    await subscribed(client, _replying(answer))
    sink = nats_sink(nats_server.url)
    await sink.open()
    for first, count in ((1, 300), (301, 300), (601, 1), (602, 3)):
        outcomes = await sink.deliver(events(count, first=first))
        assert {each.verdict for each in outcomes} == {Verdict.DELIVERED}
    await client.close()
    await sink.close()


@pytest.mark.parametrize("fast", [False, True])
@pytest.mark.parametrize("answer", [b"", b"+OK", b"{}", b"[]", b'{"stream":"","seq":1}', b'{"stream":1,"seq":1}'])
async def test_somebody_who_answers_in_place_of_a_stream_delivers_nothing(
    nats_server: NatsServer, monkeypatch: pytest.MonkeyPatch, answer: bytes, fast: bool
) -> None:
    monkeypatch.setattr(sink_module, "DEADLINE_SECONDS", 1.0)
    await add_stream(nats_server, allow_batched=fast)
    sink = nats_sink(nats_server.url)
    await sink.open()
    client = await nats.connect(nats_server.url)
    await client.jetstream().delete_stream("SHOP")
    await subscribed(client, _replying(answer))
    outcomes = await sink.deliver(events(300))
    assert {(each.verdict, each.endpoint) for each in outcomes} == {(Verdict.RETRY, True)}
    assert all("who is no stream" in each.message for each in outcomes)
    await client.close()
    await sink.close()
