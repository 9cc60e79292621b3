"""The HTTP sink against a real endpoint: what it sends, and what it makes of every answer."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from dataclasses import replace
from email.utils import formatdate
from typing import Any

import pytest
from aiohttp import web
from cloudevents.core.bindings import http as cloudevents_http
from standardwebhooks import Webhook, WebhookVerificationError

from tablewatcher.embedded import free_port
from tablewatcher.errors import Reason, SinkError
from tablewatcher.sinks.base import Verdict
from tablewatcher.spec.model import Format, SecretKey

from ..running import running_time
from .conftest import HOOK, SIGNING_SECRET, http_sink
from .events import SOURCE, MemorySecrets, event
from .servers import Answer, HttpServer


def _answering(status: int, **headers: str) -> Answer:
    async def answer(_: web.Request) -> web.StreamResponse:
        return web.Response(status=status, headers={k.replace("_", "-"): v for k, v in headers.items()})

    return answer


@pytest.mark.parametrize("form", list(Format))
async def test_independent_libraries_read_and_verify_the_request(http_server: HttpServer, form: Format) -> None:
    secrets = MemorySecrets({"hook": {"whsec": SIGNING_SECRET}})
    sink = http_sink(http_server.url, secrets=secrets, form=form, signing=(HOOK,))
    await sink.open()
    sent = event(7, key="ä b", form=form, note="Grüße")
    assert (await sink.deliver([sent]))[0].verdict is Verdict.DELIVERED
    await sink.close()
    (got,) = http_server.received
    Webhook(SIGNING_SECRET).verify(got.body, got.headers)
    read = cloudevents_http.from_http_event(cloudevents_http.HTTPMessage(got.headers, got.body))
    assert read.get_id() == got.headers["webhook-id"] == sent.event_id
    assert (read.get_source(), read.get_type()) == (SOURCE, "io.tablewatcher.row.inserted")
    assert read.get_subject() == f"public.orders/{sent.key}"
    assert read.get_extension("partitionkey") == sent.key
    assert read.get_extension("sequence") == sent.sequence
    data: Any = read.get_data()
    assert data["after"]["note"] == "Grüße"
    assert got.headers["traceparent"] == sent.traceparent
    assert got.headers["user-agent"].startswith("tablewatcher/")
    assert "ce-datacontenttype" not in got.headers
    assert "accept-encoding" not in got.headers
    assert "cookie" not in got.headers


async def test_several_secrets_sign_and_a_rotated_one_is_read_after_a_refusal(
    http_server: HttpServer,
) -> None:
    old, new = b"a key without whsec_", b"the next key"
    secrets = MemorySecrets({"hook": {"whsec": SIGNING_SECRET, "old": base64.b64encode(old).decode()}})
    sink = http_sink(http_server.url, secrets=secrets, signing=(HOOK, SecretKey("hook", "old")))
    await sink.open()

    async def verify(request: web.Request) -> web.StreamResponse:
        try:
            Webhook(new).verify(await request.read(), dict(request.headers))
        except WebhookVerificationError:
            return web.Response(status=401)
        return web.Response(status=200)

    await sink.deliver([event(1)])
    body, headers = http_server.received[0].body, http_server.received[0].headers
    Webhook(SIGNING_SECRET).verify(body, headers)
    Webhook(old).verify(body, headers)

    http_server.answer = verify
    secrets.values["hook"]["old"] = base64.b64encode(new).decode()
    (refused,) = await sink.deliver([event(2)])
    assert (refused.verdict, refused.reason, refused.endpoint) == (
        Verdict.RETRY,
        Reason.SINK_AUTH_FAILED,
        True,
    )
    assert (await sink.deliver([event(2)]))[0].verdict is Verdict.DELIVERED
    http_server.answer = _answering(403)
    del secrets.values["hook"]
    await sink.deliver([event(3)])
    http_server.answer = verify
    assert (await sink.deliver([event(3)]))[0].verdict is Verdict.DELIVERED
    await sink.close()


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({}, Reason.SECRET_NOT_FOUND),
        ({"hook": {"other": "x"}}, Reason.SECRET_KEY_MISSING),
        ({"hook": {"whsec": "whsec_not-base64-at-all!"}}, Reason.SECRET_KEY_MISSING),
        ({"hook": {"whsec": "not-base64-at-all!"}}, Reason.SECRET_KEY_MISSING),
    ],
)
async def test_a_signing_secret_that_is_not_there_is_said_at_open(
    http_server: HttpServer, values: dict[str, dict[str, str]], reason: Reason
) -> None:
    sink = http_sink(http_server.url, secrets=MemorySecrets(values), signing=(HOOK,))
    with pytest.raises(SinkError) as caught:
        await sink.open()
    assert caught.value.reason is reason
    assert "not-base64" not in caught.value.message
    assert "'hook'" in caught.value.message
    assert http_server.received == []


@pytest.mark.parametrize("status", [400, 401])
@pytest.mark.parametrize("signed", [True, False])
async def test_a_refusal_of_what_is_signed_tells_of_clocks_that_are_far_apart(
    http_server: HttpServer, status: int, signed: bool
) -> None:
    """A receiver refuses a signature of another time, and cannot be asked why."""
    http_server.answer = _answering(status, Date=formatdate(time.time() + 1000, usegmt=True))
    secrets = MemorySecrets({"hook": {"whsec": SIGNING_SECRET}})
    sink = http_sink(http_server.url, secrets=secrets, signing=(HOOK,) if signed else ())
    await sink.open()
    (found,) = await sink.deliver([event(1)])
    await sink.close()
    assert ("ahead of ours" in found.message) == signed


async def test_open_sends_no_request(http_server: HttpServer) -> None:
    sink = http_sink(http_server.url)
    await sink.open()
    await sink.close()
    assert http_server.received == []


@pytest.mark.parametrize(
    ("status", "verdict", "reason"),
    [
        (200, Verdict.DELIVERED, Reason.ACKNOWLEDGED),
        (302, Verdict.RETRY, Reason.SINK_UNREACHABLE),
        (400, Verdict.REJECTED, Reason.SINK_UNREACHABLE),
        (403, Verdict.RETRY, Reason.SINK_AUTH_FAILED),
        (410, Verdict.RETRY, Reason.ENDPOINT_GONE),
        (429, Verdict.RETRY, Reason.SINK_UNREACHABLE),
        (503, Verdict.RETRY, Reason.SINK_UNREACHABLE),
    ],
)
async def test_answers(http_server: HttpServer, status: int, verdict: Verdict, reason: Reason) -> None:
    http_server.answer = _answering(status, Retry_After="120")
    sink = http_sink(http_server.url)
    await sink.open()
    (found,) = await sink.deliver([event(1)])
    await sink.close()
    assert (found.verdict, found.reason) == (verdict, reason)
    assert found.endpoint is (verdict is Verdict.RETRY)
    assert found.retry_after == (120.0 if verdict is Verdict.RETRY else None)


async def test_a_date_to_come_back_at_is_understood(http_server: HttpServer) -> None:
    begin = time.time()
    http_server.answer = _answering(503, Retry_After=formatdate(begin + 90, usegmt=True))
    sink = http_sink(http_server.url)
    await sink.open()
    (found,) = await sink.deliver([event(1)])
    await sink.close()
    assert found.endpoint
    assert found.retry_after is not None
    # A date of HTTP has no fractions.
    assert 89 - (time.time() - begin) <= found.retry_after <= 90


async def test_a_redirect_is_not_followed(http_server: HttpServer) -> None:
    for target in ("http://169.254.169.254/latest/meta-data", http_server.url + "/elsewhere"):
        http_server.answer = _answering(307, Location=target)
        sink = http_sink(http_server.url)
        await sink.open()
        (found,) = await sink.deliver([event(1)])
        await sink.close()
        assert (found.verdict, found.endpoint) == (Verdict.RETRY, True)
        assert "redirect" in found.message
    assert [request.path for request in http_server.received] == ["/hook", "/hook"]


@pytest.mark.parametrize("size", [10, 60_000, 200_000_000])
async def test_the_answers_body_is_bounded(http_server: HttpServer, size: int) -> None:
    written = 0

    async def long(request: web.Request) -> web.StreamResponse:
        nonlocal written
        response = web.StreamResponse()
        await response.prepare(request)
        while written < size:
            chunk = b"x" * min(10_000, size - written)
            await response.write(chunk)
            written += len(chunk)
        return response

    http_server.answer = long
    sink = http_sink(http_server.url)
    await sink.open()
    async with running_time() as took:
        assert (await sink.deliver([event(1)]))[0].verdict is Verdict.DELIVERED
    assert took.seconds < 4
    await sink.close()
    assert written < 50_000_000


async def test_a_slow_body_does_not_hold_the_lane(http_server: HttpServer) -> None:
    ended = asyncio.Event()

    async def slow(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"x")
        await ended.wait()
        return response

    http_server.answer = slow
    sink = http_sink(http_server.url, seconds=60)
    await sink.open()
    async with running_time() as took:
        assert (await sink.deliver([event(1)]))[0].verdict is Verdict.DELIVERED
    assert took.seconds < 8
    ended.set()
    await sink.close()


async def test_no_answer_is_a_retry_after_the_time_out(http_server: HttpServer) -> None:
    ended = asyncio.Event()

    async def never(_: web.Request) -> web.StreamResponse:
        await ended.wait()
        return web.Response()

    http_server.answer = never
    sink = http_sink(http_server.url, seconds=1)
    await sink.open()
    begin = time.monotonic()
    async with running_time() as took:
        (found,) = await sink.deliver([event(1)])
    assert time.monotonic() - begin > 0.9
    assert took.seconds < 4
    assert (found.verdict, found.reason, found.endpoint) == (Verdict.RETRY, Reason.SINK_UNREACHABLE, True)
    ended.set()
    await sink.close()


@pytest.mark.parametrize("answer", [b"", b"not http at all\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Le"])
async def test_an_endpoint_that_talks_nonsense_is_a_retry(answer: bytes) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(answer)
        writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    sink = http_sink(f"http://127.0.0.1:{port}/", seconds=2)
    await sink.open()
    (found,) = await sink.deliver([event(1)])
    assert (found.verdict, found.endpoint) == (Verdict.RETRY, True)
    assert f"127.0.0.1:{port} gives no answer" in found.message, "it was reached"
    assert "Error" not in found.message
    await sink.close()
    server.close()
    await server.wait_closed()


async def test_a_proxy_of_the_environment_is_not_used(http_server: HttpServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{free_port()}")
    sink = http_sink(http_server.url)
    await sink.open()
    assert (await sink.deliver([event(1)]))[0].verdict is Verdict.DELIVERED
    await sink.close()


async def test_a_name_that_does_not_resolve_is_unreachable_and_shows_no_secret() -> None:
    sink = http_sink("http://user:s3cret@no-such-host.invalid/s3cret?token=s3cret")
    with pytest.raises(SinkError) as caught:
        await sink.open()
    assert caught.value.reason is Reason.SINK_UNREACHABLE
    assert "s3cret" not in caught.value.message


async def test_the_id_has_no_dot_which_would_blur_what_is_signed(http_server: HttpServer) -> None:
    sink = http_sink(http_server.url)
    await sink.open()
    await sink.deliver([event(1)])
    await sink.close()
    assert "." not in http_server.received[0].headers["webhook-id"]
    assert json.loads(http_server.received[0].body)["id"] == http_server.received[0].headers["webhook-id"]


async def test_a_replay_is_no_repeat_for_a_receiver_that_drops_repeats(http_server: HttpServer) -> None:
    secrets = MemorySecrets({"hook": {"whsec": SIGNING_SECRET}})
    sink = http_sink(http_server.url, secrets=secrets, signing=(HOOK,))
    await sink.open()
    await sink.deliver([event(1)])
    for number in (1, 1, 2):
        await sink.deliver([replace(event(1), replay=number)])
    await sink.close()
    for request in http_server.received:
        Webhook(SIGNING_SECRET).verify(request.body, request.headers)
    once = event(1).event_id
    sent = [request.headers["webhook-id"] for request in http_server.received]
    assert sent == [once, f"{once}/r1", f"{once}/r1", f"{once}/r2"]
