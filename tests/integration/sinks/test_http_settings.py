"""What a manifest and its Secrets may say of requests: URL, headers, how many at a time."""

from __future__ import annotations

import asyncio

import pytest
from aiohttp import web

from tablewatcher.embedded import free_port
from tablewatcher.errors import Reason, SinkError
from tablewatcher.sinks.base import Verdict
from tablewatcher.spec.model import CaRef, Header, SecretKey, Tls

from .conftest import http_sink
from .events import MemorySecrets, event, events
from .servers import HttpServer, until

TOKEN = SecretKey("hook", "token")
URL = SecretKey("hook", "url")


async def _unauthorized(_: web.Request) -> web.StreamResponse:
    return web.Response(status=401)


async def test_headers_are_sent_and_read_anew_after_a_refusal(http_server: HttpServer) -> None:
    secrets = MemorySecrets({"hook": {"token": "Bearer one\n"}})
    headers = (Header("Authorization", secret=TOKEN), Header("X-Team", "shop"), Header("user-agent", "ours/1"))
    sink = http_sink(http_server.url, secrets=secrets, headers=headers)
    await sink.open()
    await sink.deliver([event(1)])
    http_server.answer = _unauthorized
    del secrets.values["hook"]["token"]
    for words in ("spec.sink.http.headers", "has no key 'token'"):
        (refused,) = await sink.deliver([event(2)])
        assert (refused.reason, words in refused.message) == (Reason.SINK_AUTH_FAILED, True), refused.message
    secrets.values["hook"]["token"] = "Bearer two"
    (refused,) = await sink.deliver([event(2)])
    assert "has no key" not in refused.message
    await sink.close()
    sent = [request.headers for request in http_server.received]
    assert [each["authorization"] for each in sent] == ["Bearer one", "Bearer one", "Bearer one", "Bearer two"]
    assert {(each["x-team"], each["user-agent"]) for each in sent} == {("shop", "ours/1")}


async def test_a_missing_key_is_told_with_those_that_are_there(http_server: HttpServer) -> None:
    secrets = MemorySecrets({"hook": {"tokem": "hunter2", "whsec": "hunter2"}})
    with pytest.raises(SinkError) as refused:
        await http_sink(http_server.url, secrets=secrets, headers=(Header("X-Token", secret=TOKEN),)).open()
    assert refused.value.reason is Reason.SECRET_KEY_MISSING
    assert refused.value.message.endswith("has no key 'token': add it, or name another; it has the keys: tokem, whsec")


async def test_what_a_secret_holds_is_read_again_after_a_while(
    http_server: HttpServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tablewatcher.sinks.http.endpoint._FRESH_SECONDS", 0.0)
    secrets = MemorySecrets({"hook": {"token": "one"}})
    sink = http_sink(http_server.url, secrets=secrets, headers=(Header("X-Token", secret=TOKEN),))
    await sink.open()
    for value in ({"token": "two"}, {}, {"token": "three\r\nx: y"}, {"token": "four"}):
        secrets.values["hook"] = value
        assert (await sink.deliver([event(1)]))[0].verdict is Verdict.DELIVERED
    await sink.close()
    # What is gone or unfit meanwhile does not stop what works.
    assert [request.headers["x-token"] for request in http_server.received] == ["two", "two", "two", "four"]


async def test_a_header_value_that_would_start_another_header_is_refused_and_not_shown(http_server: HttpServer) -> None:
    secrets = MemorySecrets({"hook": {"token": "s3cret\r\nwebhook-id: forged"}})
    with pytest.raises(SinkError) as caught:
        await http_sink(http_server.url, secrets=secrets, headers=(Header("X-Token", secret=TOKEN),)).open()
    assert caught.value.reason is Reason.SPEC_INVALID
    assert "X-Token" in caught.value.message
    assert "s3cret" not in caught.value.message
    assert http_server.received == []


async def test_the_url_of_a_secret_is_used_and_followed_when_it_changes(http_server: HttpServer) -> None:
    elsewhere = HttpServer()
    await elsewhere.start()
    secrets = MemorySecrets({"hook": {"url": f"{http_server.url}/a?token=s3cret\n"}})
    sink = http_sink("", secrets=secrets, url_secret=URL)
    await sink.open()
    await sink.deliver([event(1)])
    secrets.values["hook"]["url"] = f"{elsewhere.url}/b"
    assert (await sink.deliver([event(2)]))[0].verdict is Verdict.DELIVERED, "a Secret is not read for every request"
    http_server.answer = _unauthorized
    await sink.deliver([event(3)])
    assert (await sink.deliver([event(3)]))[0].verdict is Verdict.DELIVERED
    await sink.check()
    await sink.close()
    await elsewhere.stop()
    assert [request.path for request in http_server.received] == ["/hook/a"] * 3
    assert [request.path for request in elsewhere.received] == ["/hook/b"]


@pytest.mark.parametrize(
    ("written", "sent"),
    [
        ("/a%2Fb%7ec?sp=%2Ftriggers%2frun&sig=a%2Bb%3D&c=d+e%20f", ""),
        ("//a/../b;c=d/%2e%2e/", ""),
        ("?x=a'b(c)!*$,;:@/?", "/?x=a'b(c)!*$,;:@/?"),
        ("/\u00fc?\u00e4={x}", "/%C3%BC?%C3%A4=%7Bx%7D"),
        ("/100%?[x]", "/100%25?%5Bx%5D"),
    ],
)
@pytest.mark.parametrize("secret", [False, True])
async def test_path_and_query_are_sent_as_they_are_written(
    http_server: HttpServer, written: str, sent: str, secret: bool
) -> None:
    """A receiver may sign them, or compare them with its own; only what cannot be sent so is encoded."""
    seen: list[str] = []

    async def note(request: web.Request) -> web.StreamResponse:
        seen.append(request.raw_path)
        return web.Response(status=204)

    http_server.answer = note
    url = f"http://127.0.0.1:{http_server.port}{written}"
    secrets = MemorySecrets({"hook": {"url": url}})
    sink = http_sink("" if secret else url, secrets=secrets, url_secret=URL if secret else None)
    await sink.open()
    await sink.deliver([event(1)])
    await sink.close()
    assert seen == [sent or written]


async def test_requests_under_way_end_well_when_the_url_changes(http_server: HttpServer) -> None:
    elsewhere, go_on = HttpServer(), asyncio.Event()
    await elsewhere.start()
    secrets = MemorySecrets({"hook": {"url": http_server.url}})
    sink = http_sink("", secrets=secrets, url_secret=URL)
    await sink.open()

    async def held(_: web.Request) -> web.StreamResponse:
        await go_on.wait()
        return web.Response(status=204)

    http_server.answer = held
    under_way = asyncio.create_task(sink.deliver([event(1)]))
    await until(lambda: bool(http_server.received))
    http_server.answer = _unauthorized
    await sink.deliver([event(2)])
    secrets.values["hook"]["url"] = elsewhere.url
    assert (await sink.deliver([event(2)]))[0].verdict is Verdict.DELIVERED
    go_on.set()
    assert (await under_way)[0].verdict is Verdict.DELIVERED
    assert len(elsewhere.received) == 1
    await sink.close()
    await elsewhere.stop()


@pytest.mark.parametrize(
    "url",
    [
        "ftp://s3cret.example.com/",
        "https://user:s3cret@example.com/",
        "s3cret",
        "http:///s3cret",
        "https://example.com/#s3cret",
        "https://example.com:99999/s3cret",
        "",
    ],
)
async def test_a_secret_without_a_fit_url_is_said_and_not_shown(url: str) -> None:
    with pytest.raises(SinkError) as caught:
        await http_sink("", secrets=MemorySecrets({"hook": {"url": url}}), url_secret=URL).open()
    assert caught.value.reason is Reason.SPEC_INVALID
    assert "urlSecretRef" in caught.value.message
    assert "s3cret" not in caught.value.message


async def test_faults_of_a_secret_url_show_host_and_port_only() -> None:
    port = free_port()
    secrets = MemorySecrets({"hook": {"url": f"http://127.0.0.1:{port}/s3cret?token=s3cret"}})
    sink = http_sink("", secrets=secrets, url_secret=URL)
    with pytest.raises(SinkError) as caught:
        await sink.open()
    assert f"127.0.0.1:{port}" in caught.value.message
    assert "s3cret" not in caught.value.message


@pytest.mark.parametrize("values", [{}, {"hook": {"token": "x"}}])
async def test_what_is_missing_is_named(http_server: HttpServer, values: dict[str, dict[str, str]]) -> None:
    for fields in ({"url_secret": URL}, {"headers": (Header("X-Url", secret=URL),)}):
        with pytest.raises(SinkError) as caught:
            await http_sink(http_server.url, secrets=MemorySecrets(values), **fields).open()
        assert caught.value.reason in (Reason.SECRET_NOT_FOUND, Reason.SECRET_KEY_MISSING)
        assert "hook" in caught.value.message


async def test_tls_for_a_url_without_it_is_refused(http_server: HttpServer) -> None:
    secrets = MemorySecrets({"hook": {"url": http_server.url}})
    tls = Tls(CaRef("Secret", "ca", "ca.crt"))
    with pytest.raises(SinkError) as caught:
        await http_sink("", secrets=secrets, url_secret=URL, tls=tls).open()
    assert caught.value.reason is Reason.SPEC_INVALID


async def test_no_more_requests_and_connections_than_the_manifest_says(http_server: HttpServer) -> None:
    at_once, most, peers, full = 0, 0, set(), asyncio.Event()

    async def count(request: web.Request) -> web.StreamResponse:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        assert request.transport is not None
        peers.add(request.transport.get_extra_info("peername"))
        if at_once == 3:
            full.set()
        await full.wait()
        await asyncio.sleep(0.01)  # for one too many
        at_once -= 1
        return web.Response(status=204)

    http_server.answer = count
    sink = http_sink(http_server.url, concurrency=3)
    assert sink.limits.concurrency == 3
    await sink.open()
    # Twice as many calls as it has asked for.
    outcomes = await asyncio.gather(*(sink.deliver(events(5, first=10 * call)) for call in range(6)))
    await sink.close()
    assert {outcome.verdict for each in outcomes for outcome in each} == {Verdict.DELIVERED}
    assert most == 3
    assert len(peers) == 3


async def test_an_address_of_ipv6_is_told_from_its_port() -> None:
    sink = http_sink(f"http://[::1]:{free_port()}/hook")
    with pytest.raises(SinkError, match=r"^\[::1\]:\d+ cannot be reached"):
        await sink.open()
