"""The NATS sink against a real nats-server: what JetStream stores, refuses and loses."""

from __future__ import annotations

import asyncio
import datetime
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import nats
import pytest
from cloudevents.core.bindings import http as cloudevents_http
from nats.js.api import DiscardPolicy

from tablewatcher.embedded import free_port
from tablewatcher.errors import Reason, SinkError
from tablewatcher.sinks.base import Sink, Verdict
from tablewatcher.spec.model import Action, CreateStream, Format

from ..running import running_time
from .conftest import add_stream, nats_sink, stored
from .events import SOURCE, event, events
from .servers import UNTRUSTED, NatsServer

MAX_PAYLOAD = 1 << 20


async def _reason_of_open(sink: Sink) -> SinkError:
    with pytest.raises(SinkError) as caught:
        await sink.open()
    await sink.close()
    return caught.value


@pytest.mark.parametrize("form", list(Format))
async def test_an_independent_library_reads_the_message(nats_server: NatsServer, form: Format) -> None:
    """CloudEvents' rules for headers are the same for NATS as for HTTP, whose reader the library has."""
    await add_stream(nats_server)
    sink = nats_sink(nats_server.url, stream="SHOP", form=form)
    await sink.open()
    sent = event(7, key="ä b.c*>", form=form, note="Grüße")
    assert [each.verdict for each in await sink.deliver([sent])] == [Verdict.DELIVERED]
    await sink.close()
    (message,) = await stored(nats_server)
    assert message.subject == "shop.public.orders.insert"
    assert message.headers["Nats-Msg-Id"] == sent.event_id
    assert message.headers["Nats-Expected-Stream"] == "SHOP"
    read = cloudevents_http.from_http_event(cloudevents_http.HTTPMessage(message.headers, message.data))
    assert (read.get_id(), read.get_source(), read.get_specversion()) == (sent.event_id, SOURCE, "1.0")
    assert read.get_type() == "io.tablewatcher.row.inserted"
    assert read.get_subject() == f"public.orders/{sent.key}"
    assert read.get_datacontenttype() == "application/json"
    assert read.get_time() == datetime.datetime.fromisoformat(sent.time)
    assert (read.get_extension("partitionkey"), read.get_extension("sequence")) == (sent.key, sent.sequence)
    data: Any = read.get_data()
    assert data["after"]["note"] == "Grüße"
    if form is Format.STRUCTURED:
        assert message.headers["Content-Type"] == "application/cloudevents+json"
    else:
        assert read.get_extension("traceparent") == sent.traceparent


async def test_binary_events_carry_their_attributes_in_headers(nats_server: NatsServer) -> None:
    await add_stream(nats_server)
    sink = nats_sink(nats_server.url, form=Format.BINARY)
    await sink.open()
    assert (await sink.deliver([event(7, key="ä b", form=Format.BINARY, op="u")]))[0].verdict is Verdict.DELIVERED
    await sink.close()
    (message,) = await stored(nats_server)
    assert message.subject == "shop.public.orders.update"
    assert message.headers["Content-Type"] == "application/json"
    assert message.headers["ce-datacontenttype"] == "application/json"
    # The key's token is `%C3%A4%20b`, whose own percent signs are encoded for the header.
    assert message.headers["ce-partitionkey"] == "%25C3%25A4%2520b"
    assert json.loads(message.data)["action"] == "insert"


async def test_the_key_is_one_token_of_the_subject(nats_server: NatsServer) -> None:
    await add_stream(nats_server)
    sink = nats_sink(nats_server.url, subject="shop.{table}.{key}.x-{key}")
    await sink.open()
    keys = ["1", "a b", "*", ">", "a.b", "", "\r\nPUB x 0", "ü,1"]
    outcomes = await sink.deliver([event(place, key=key) for place, key in enumerate(keys)])
    assert {each.verdict for each in outcomes} == {Verdict.DELIVERED}
    await sink.close()
    subjects = [message.subject for message in await stored(nats_server)]
    assert len(subjects) == len(keys)
    assert all(len(subject.split(".")) == 4 for subject in subjects)
    assert subjects[1] == "shop.orders.a%20b.x-a%20b"


async def test_a_key_that_is_no_token_cannot_break_the_protocol(nats_server: NatsServer) -> None:
    await add_stream(nats_server)
    sink = nats_sink(nats_server.url, subject="shop.{key}")
    await sink.open()
    odd = event(1)
    odd.key = "x 0\r\nPUB shop.evil 0\r\n"
    assert (await sink.deliver([odd]))[0].verdict is Verdict.DELIVERED
    await sink.close()
    (message,) = await stored(nats_server)
    assert message.subject.startswith("shop.x%20")


async def test_what_is_sent_again_is_stored_once(nats_server: NatsServer) -> None:
    await add_stream(nats_server)
    sink = nats_sink(nats_server.url)
    await sink.open()
    for batch in (events(50), events(60)):
        assert {each.verdict for each in await sink.deliver(batch)} == {Verdict.DELIVERED}
    await sink.close()
    assert len(await stored(nats_server)) == 60


@pytest.mark.parametrize(
    ("config", "stream", "advice"),
    [
        (None, None, "create a stream"),
        (None, "SHOP", "does not exist"),
        ({"subjects": ["other.>"]}, None, "create a stream"),
        ({"subjects": ["other.>"]}, "SHOP", "add it to the stream's subjects"),
        ({"name": "SHOPS"}, "SHOP", "does not exist"),
        ({"subjects": ["shop.public.orders.insert"]}, None, "create a stream"),
        ({"no_ack": True}, None, "no_ack"),
    ],
)
async def test_no_stream_is_said_before_the_first_event(
    nats_server: NatsServer, config: dict[str, object] | None, stream: str | None, advice: str
) -> None:
    if config is not None:
        await add_stream(nats_server, **config)
    error = await _reason_of_open(nats_sink(nats_server.url, stream=stream))
    assert error.reason is Reason.NO_STREAM_FOR_SUBJECT
    assert "shop.public.orders" in error.message
    assert advice in error.message


async def test_a_stream_of_some_keys_is_not_enough(nats_server: NatsServer) -> None:
    await add_stream(nats_server, subjects=["shop.1", "shop.2"])
    error = await _reason_of_open(nats_sink(nats_server.url, subject="shop.{key}"))
    assert error.reason is Reason.NO_STREAM_FOR_SUBJECT
    assert "only some" in error.message


async def test_without_jetstream_there_is_no_stream(tmp_path: Path) -> None:
    config = "accounts { A: { users: [{user: a, password: a}] } }\nno_auth_user: a"
    server = NatsServer(tmp_path, config)
    server.start()
    try:
        error = await _reason_of_open(nats_sink(server.url))
    finally:
        server.kill()
    assert error.reason is Reason.NO_STREAM_FOR_SUBJECT
    assert "not enabled" in error.message
    assert "nats-server --jetstream" in error.message
    assert "None" not in error.message


async def test_a_stream_deleted_meanwhile_is_a_retry_that_says_so(nats_server: NatsServer) -> None:
    await add_stream(nats_server)
    sink = nats_sink(nats_server.url)
    await sink.open()
    client = await nats.connect(nats_server.url)
    await client.jetstream().delete_stream("SHOP")
    async with running_time() as took:
        outcomes = await sink.deliver(events(3))
    assert took.seconds < 5
    assert {(o.verdict, o.reason, o.endpoint) for o in outcomes} == {
        (Verdict.RETRY, Reason.NO_STREAM_FOR_SUBJECT, True)
    }
    await add_stream(nats_server)
    assert {each.verdict for each in await sink.deliver(events(3))} == {Verdict.DELIVERED}
    await client.close()
    await sink.close()


async def test_another_stream_than_the_manifest_names_is_refused(nats_server: NatsServer) -> None:
    await add_stream(nats_server)
    sink = nats_sink(nats_server.url, stream="SHOP")
    await sink.open()
    client = await nats.connect(nats_server.url)
    await client.jetstream().delete_stream("SHOP")
    await add_stream(nats_server, name="OTHER")
    outcomes = await sink.deliver(events(3))
    assert {(o.verdict, o.reason) for o in outcomes} == {(Verdict.RETRY, Reason.NO_STREAM_FOR_SUBJECT)}
    assert await stored(nats_server, "OTHER") == []
    await client.close()
    await sink.close()


async def test_a_full_stream_is_a_retry_and_heals(nats_server: NatsServer) -> None:
    await add_stream(nats_server, max_msgs=5, discard=DiscardPolicy.NEW)
    sink = nats_sink(nats_server.url)
    await sink.open()
    outcomes = await sink.deliver(events(8))
    assert [each.verdict for each in outcomes] == [Verdict.DELIVERED] * 5 + [Verdict.RETRY] * 3
    assert all(each.endpoint and "maximum messages" in each.message for each in outcomes[5:])
    client = await nats.connect(nats_server.url)
    await client.jetstream().purge_stream("SHOP")
    assert {each.verdict for each in await sink.deliver(events(3, first=6))} == {Verdict.DELIVERED}
    await client.close()
    await sink.close()


async def test_an_event_over_the_streams_bound_is_rejected_alone(nats_server: NatsServer) -> None:
    await add_stream(nats_server, max_msg_size=2000)
    sink = nats_sink(nats_server.url)
    await sink.open()
    outcomes = await sink.deliver([event(1), event(2, note="x" * 3000), event(3)])
    assert [each.verdict for each in outcomes] == [Verdict.DELIVERED, Verdict.REJECTED, Verdict.DELIVERED]
    assert not outcomes[1].endpoint
    await sink.close()


@pytest.mark.parametrize("note", [MAX_PAYLOAD - len(event(2).body), MAX_PAYLOAD, 2 * MAX_PAYLOAD])
async def test_an_event_over_the_servers_bound_does_not_cost_the_connection(nats_server: NatsServer, note: int) -> None:
    await add_stream(nats_server)
    sink = nats_sink(nats_server.url)
    await sink.open()
    outcomes = await sink.deliver([event(1), event(2, note="x" * note), event(3)])
    assert [each.verdict for each in outcomes] == [Verdict.DELIVERED, Verdict.REJECTED, Verdict.DELIVERED]
    assert "max_payload" in outcomes[1].message
    await sink.close()


async def test_large_events_pass(nats_server: NatsServer) -> None:
    await add_stream(nats_server)
    sink = nats_sink(nats_server.url)
    await sink.open()
    outcomes = await sink.deliver([event(n, note="x" * 500_000) for n in range(60)])
    assert {each.verdict for each in outcomes} == {Verdict.DELIVERED}
    await sink.close()


async def test_kill_in_mid_window_leaves_nothing_hanging_and_nothing_lost(nats_server: NatsServer) -> None:
    await add_stream(nats_server)
    sink = nats_sink(nats_server.url)
    await sink.open()
    batches = [events(1000, first=1 + 1000 * n) for n in range(12)]
    waiting = list(batches)
    first_done = asyncio.Event()
    open_again = []

    async def work() -> None:
        while waiting:
            batch = waiting.pop(0)
            async with running_time() as took:
                outcomes = await sink.deliver(batch)
            assert took.seconds < sink.timeout + 3
            first_done.set()
            open_again.extend(each for each, o in zip(batch, outcomes, strict=True) if o.verdict is Verdict.RETRY)
            assert {o.verdict for o in outcomes} <= {Verdict.RETRY, Verdict.DELIVERED}
            assert all(o.endpoint for o in outcomes if o.verdict is Verdict.RETRY)

    workers = [asyncio.ensure_future(work()) for _ in range(sink.limits.concurrency)]
    await first_done.wait()
    nats_server.kill()
    await asyncio.wait_for(asyncio.gather(*workers), 3 * sink.timeout)
    assert open_again, "the server died too late for this test to mean anything"
    nats_server.start()
    deadline = time.monotonic() + 30
    while open_again:
        assert time.monotonic() < deadline
        batch = open_again[:1000]
        outcomes = await sink.deliver(batch)
        if outcomes[0].verdict is Verdict.DELIVERED:
            assert {each.verdict for each in outcomes} == {Verdict.DELIVERED}
            del open_again[:1000]
        else:
            await asyncio.sleep(0.05)
    await sink.close()
    client = await nats.connect(nats_server.url)
    subscription = await client.jetstream().subscribe("shop.>", ordered_consumer=True)
    state = (await client.jetstream().stream_info("SHOP")).state
    ids = {(await subscription.next_msg(5)).headers["Nats-Msg-Id"] for _ in range(state.messages)}
    await client.close()
    assert ids == {each.event_id for batch in batches for each in batch}
    assert state.messages == len(ids), "an event was stored twice"


async def test_a_server_that_stands_still_is_given_up_and_found_again(nats_server: NatsServer) -> None:
    await add_stream(nats_server)
    sink = nats_sink(nats_server.url)
    await sink.open()
    nats_server.pause()
    try:
        async with running_time() as took:
            outcomes = await sink.deliver(events(100))
        assert took.seconds < sink.timeout + 3
        assert {(o.verdict, o.endpoint) for o in outcomes} == {(Verdict.RETRY, True)}
    finally:
        nats_server.resume()
    deadline = time.monotonic() + 30
    while (await sink.deliver(events(100)))[0].verdict is not Verdict.DELIVERED:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)
    await sink.close()


def test_no_lost_connection_leaves_anything_behind(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "sinks.leftovers", str(tmp_path)]
    # A group of its own: if it hangs, its server must go with it.
    with subprocess.Popen(
        command, cwd=Path(__file__).parents[1], stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as program:
        try:
            _, said = program.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            program.send_signal(signal.SIGABRT)  # has it say where it stands
            _, said = program.communicate(timeout=20)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(program.pid, signal.SIGKILL)
    assert program.returncode == 0, said


AUTH = """
accounts {
  SHOP: {
    jetstream: enabled
    users: [
      {user: all, password: "s3cret"}
      {user: least, password: "s3cret", permissions: {
        publish: ["shop.>", "$JS.API.STREAM.NAMES", "$JS.API.STREAM.INFO.*", "$JS.API.STREAM.CREATE.*"]
        subscribe: ["_INBOX.>"]
      }}
      {user: few, password: "s3cret", permissions: {publish: ["$JS.API.>"]}}
      {user: deaf, password: "s3cret", permissions: {subscribe: ["other.>"]}}
    ]
  }
}
"""

ALL = "all:s3cret@"


@pytest.fixture
def auth_server(tmp_path: Path) -> Iterator[NatsServer]:
    server = NatsServer(tmp_path, AUTH)
    server.start()
    yield server
    server.kill()


@pytest.mark.parametrize("login", ["", "all:wrong-s3cret@", "nobody:s3cret@"])
async def test_a_refused_login_is_said_at_once_and_shows_no_password(auth_server: NatsServer, login: str) -> None:
    async with running_time() as took:
        error = await _reason_of_open(nats_sink(f"nats://{login}127.0.0.1:{auth_server.port}"))
    assert took.seconds < 5
    assert error.reason is Reason.SINK_AUTH_FAILED
    assert "s3cret" not in error.message


async def test_a_certificate_nobody_vouches_for_is_refused(tmp_path: Path) -> None:
    pem = json.dumps(str(UNTRUSTED))
    server = NatsServer(tmp_path, f"tls {{cert_file: {pem}, key_file: {pem}}}")
    server.start()
    try:
        error = await _reason_of_open(nats_sink(server.url.replace("127.0.0.1", "localhost")))
    finally:
        server.kill()
    assert error.reason is Reason.TLS_FAILED


async def test_the_rights_of_the_documentation_are_enough(auth_server: NatsServer) -> None:
    url = f"nats://least:s3cret@127.0.0.1:{auth_server.port}"
    for named in ({"stream": "SHOP", "create": CreateStream()}, {}):
        sink = nats_sink(url, **named)
        await sink.open()
        assert {each.verdict for each in await sink.deliver(events(300))} == {Verdict.DELIVERED}
        await sink.check()
        await sink.close()


@pytest.mark.parametrize("way", ["plain", "fast", "core"])
async def test_a_login_that_may_not_publish_is_a_retry_that_says_so(auth_server: NatsServer, way: str) -> None:
    await add_stream(auth_server, ALL, allow_batched=way == "fast")
    sink = nats_sink(f"nats://few:s3cret@127.0.0.1:{auth_server.port}", jet_stream=way != "core")
    await sink.open()
    async with running_time() as took:
        outcomes = await sink.deliver(events(300))
    assert took.seconds < 5
    assert {(o.verdict, o.reason, o.endpoint) for o in outcomes} == {(Verdict.RETRY, Reason.SINK_AUTH_FAILED, True)}
    await sink.close()


async def test_a_login_that_may_not_read_its_answers_is_said_at_open(auth_server: NatsServer) -> None:
    await add_stream(auth_server, ALL)
    error = await _reason_of_open(nats_sink(f"nats://deaf:s3cret@127.0.0.1:{auth_server.port}"))
    assert error.reason is Reason.SINK_AUTH_FAILED
    assert "subscription" in error.message
    assert "$JS.API.STREAM.INFO.*" in error.message, "as one writes it into the user's permissions"


async def test_one_dead_server_of_two_is_no_fault(nats_server: NatsServer) -> None:
    await add_stream(nats_server)
    sink = nats_sink(nats_server.url)
    sink._login.servers = (f"nats://127.0.0.1:{free_port()}", nats_server.url)
    await sink.open()
    assert {each.verdict for each in await sink.deliver(events(3))} == {Verdict.DELIVERED}
    await sink.close()


@pytest.mark.parametrize("subject", ["shop. {table}", "shop..{key}", "shop.>", "shop.{colour}", "a\r\nb", ""])
def test_a_subject_nobody_can_publish_to_is_refused(subject: str) -> None:
    with pytest.raises(SinkError) as caught:
        nats_sink("nats://127.0.0.1:4222", subject=subject)
    assert caught.value.reason is Reason.SPEC_INVALID


async def test_a_gap_arrives_where_no_stream_takes_its_own_subject(nats_server: NatsServer) -> None:
    await add_stream(nats_server, subjects=[f"shop.public.orders.{action}" for action in Action])
    sink = nats_sink(nats_server.url, stream="SHOP")
    await sink.open()
    assert [each.verdict for each in await sink.deliver([event(1, op="g")])] == [Verdict.DELIVERED]
    await sink.close()
    (message,) = await stored(nats_server)
    assert message.subject == "shop.public.orders.insert"
    assert json.loads(message.data)["type"] == "io.tablewatcher.gap"


async def test_a_gap_has_a_subject_of_its_own(nats_server: NatsServer) -> None:
    await add_stream(nats_server)
    sink = nats_sink(nats_server.url)
    await sink.open()
    assert [each.verdict for each in await sink.deliver([event(1, op="g")])] == [Verdict.DELIVERED]
    await sink.close()
    (message,) = await stored(nats_server)
    assert message.subject == "shop.public.orders.gap"
