"""Batches against a real endpoint: what a request holds, and what becomes of its events for every answer."""

from __future__ import annotations

import asyncio
import hashlib
import json
from dataclasses import replace

import pytest
from aiohttp import web
from cloudevents.core.bindings import http as cloudevents_http
from standardwebhooks import Webhook

from tablewatcher.event import Event
from tablewatcher.sinks.base import Verdict
from tablewatcher.sinks.http.sink import HttpSink
from tablewatcher.spec.model import Batch

from ..running import running_time
from .conftest import HOOK, SIGNING_SECRET, http_sink
from .events import MemorySecrets, event, events
from .servers import Answer, HttpServer, Received


def _sink(server: HttpServer, max_events: int = 500, max_bytes: int = 1 << 20, **fields: object) -> HttpSink:
    return http_sink(server.url, batch=Batch(max_events, max_bytes, 5), **fields)


def _ids(request: Received) -> list[str]:
    return [each["id"] for each in json.loads(request.body)]


def _refusing(guilty: set[str], status: int = 400) -> Answer:
    async def answer(request: web.Request) -> web.StreamResponse:
        found = {each["id"] for each in json.loads(await request.read())}
        return web.Response(status=204 if found.isdisjoint(guilty) else status)

    return answer


async def test_independent_libraries_read_and_verify_a_batch(http_server: HttpServer) -> None:
    secrets = MemorySecrets({"hook": {"whsec": SIGNING_SECRET}})
    sink = _sink(http_server, secrets=secrets, signing=(HOOK,))
    await sink.open()
    sent = [event(1, key="ä b", note="Grüße"), event(2, op="u"), event(3, op="d")]
    assert [outcome.verdict for outcome in await sink.deliver(sent)] == [Verdict.DELIVERED] * 3
    await sink.close()
    (got,) = http_server.received
    assert got.headers["content-type"] == "application/cloudevents-batch+json"
    assert not [name for name in got.headers if name.startswith("ce-")]
    Webhook(SIGNING_SECRET).verify(got.body, got.headers)
    for one, whole in zip(sent, json.loads(got.body), strict=True):
        message = cloudevents_http.HTTPMessage(
            {"content-type": "application/cloudevents+json"}, json.dumps(whole).encode()
        )
        read = cloudevents_http.from_http_event(message)
        assert (read.get_id(), read.get_type()) == (one.event_id, one.type)
        assert read.get_extension("sequence") == one.sequence
    assert got.body == b"[" + b",".join(one.body for one in sent) + b"]", "the bytes are those of the events"


async def test_the_same_batch_has_the_same_id_and_another_has_another(http_server: HttpServer) -> None:
    sink = _sink(http_server)
    await sink.open()
    for batch in (events(3), events(3), events(2), [replace(each, replay=1) for each in events(3)]):
        await sink.deliver(batch)
    await sink.close()
    first, again, *others = (request.headers["webhook-id"] for request in http_server.received)
    assert first == again
    assert len({first, *others}) == 3
    joined = ",".join(each.event_id for each in events(3))
    assert first == hashlib.sha256(joined.encode()).hexdigest()[:32], "consumers may have written it down"


async def test_one_event_is_a_batch_too(http_server: HttpServer) -> None:
    sink = _sink(http_server)
    await sink.open()
    await sink.deliver(events(1))
    await sink.close()
    (got,) = http_server.received
    assert got.headers["content-type"] == "application/cloudevents-batch+json"
    assert len(_ids(got)) == 1


async def test_the_bounds_hold_and_a_longer_event_goes_by_itself(http_server: HttpServer) -> None:
    sink = _sink(http_server, max_events=10, max_bytes=4096)
    assert sink.limits.max_batch == 10
    assert (sink.limits.ordered, sink.limits.linger) == (True, 0.005)
    await sink.open()
    sent = [*events(25), event(26, note="x" * 5000), *events(3, first=27)]
    assert {outcome.verdict for outcome in await sink.deliver(sent)} == {Verdict.DELIVERED}
    await sink.close()
    assert [each for request in http_server.received for each in _ids(request)] == [each.event_id for each in sent]
    for request in http_server.received:
        assert len(_ids(request)) <= 10
        assert len(request.body) <= 4096 or len(_ids(request)) == 1


@pytest.mark.parametrize("size", [0, 1, 50, 1000])
async def test_a_call_that_is_full_is_one_request(http_server: HttpServer, size: int) -> None:
    sink = _sink(http_server, max_events=10_000, max_bytes=262_144)
    await sink.open()
    sent, left = [], sink.limits.max_bytes or 0
    while left >= 0:  # as the relay counts
        sent.append(event(len(sent), note="x" * size))
        left -= len(sent[-1].body)
    assert {outcome.verdict for outcome in await sink.deliver(sent[:-1])} == {Verdict.DELIVERED}
    await sink.close()
    (got,) = http_server.received
    assert 250_000 < len(got.body) <= 262_144


@pytest.mark.parametrize("status", [400, 413, 415, 422])
async def test_only_the_guilty_event_is_refused(http_server: HttpServer, status: int) -> None:
    sent = events(100)
    guilty = {sent[3].event_id, sent[70].event_id}
    http_server.answer = _refusing(guilty, status)
    sink = _sink(http_server)
    await sink.open()
    outcomes = await sink.deliver(sent)
    await sink.close()
    assert [place for place, outcome in enumerate(outcomes) if outcome.verdict is Verdict.REJECTED] == [3, 70]
    assert {outcome.verdict for outcome in outcomes} == {Verdict.REJECTED, Verdict.DELIVERED}
    accepted = [each for request in http_server.received if guilty.isdisjoint(_ids(request)) for each in _ids(request)]
    assert accepted == [each.event_id for each in sent if each.event_id not in guilty]


def _taking(most: int) -> Answer:
    async def answer(request: web.Request) -> web.StreamResponse:
        return web.Response(status=204 if len(await request.read()) <= most else 413)

    return answer


def _call(sink: HttpSink, left: list[Event]) -> list[Event]:
    """The first of `left`, as many as the relay gives to one call."""
    taken: list[Event] = []
    room = sink.limits.max_bytes or 0
    for one in left[: sink.limits.max_batch]:
        room -= len(one.body)
        if taken and room < 0:
            break
        taken.append(one)
    return taken


async def test_bodies_that_are_too_long_are_sent_once(http_server: HttpServer) -> None:
    """As with nginx before the endpoint, whose client_max_body_size is below maxBytes."""
    most = 60_000
    http_server.answer = _taking(most)
    sink = _sink(http_server, max_events=500, max_bytes=262_144)
    await sink.open()
    sent, left = events(5000), events(5000)
    while left:
        call = _call(sink, left)
        assert {outcome.verdict for outcome in await sink.deliver(call)} == {Verdict.DELIVERED}
        left = left[len(call) :]
    await sink.close()
    lengths = [len(request.body) for request in http_server.received]
    too_long = [length for length in lengths if length > most]
    assert 1 <= len(too_long) <= 3
    assert lengths[: len(too_long)] == too_long
    accepted = [each for request in http_server.received[len(too_long) :] for each in _ids(request)]
    assert accepted == [one.event_id for one in sent]


async def test_an_event_that_is_too_long_is_refused_alone(http_server: HttpServer) -> None:
    http_server.answer = _taking(20_000)
    sink = _sink(http_server, max_events=500, max_bytes=262_144)
    await sink.open()
    outcomes = await sink.deliver([*events(40), event(41, note="x" * 30_000), *events(40, first=42)])
    await sink.close()
    assert [place for place, outcome in enumerate(outcomes) if outcome.verdict is Verdict.REJECTED] == [40]
    assert [outcome.verdict for outcome in outcomes].count(Verdict.DELIVERED) == 80


async def test_nothing_overtakes_a_refused_event_of_its_row(http_server: HttpServer) -> None:
    sent = [event(n, key="hot" if n % 2 else None) for n in range(1, 21)]
    guilty = sent[4].event_id
    http_server.answer = _refusing({guilty})
    sink = _sink(http_server)
    await sink.open()
    outcomes = await sink.deliver(sent)
    await sink.close()
    by_row: dict[str, list[Verdict]] = {}
    for one, outcome in zip(sent, outcomes, strict=True):
        assert not outcome.endpoint
        by_row.setdefault(one.key, []).append(outcome.verdict)
    hot = by_row.pop("hot")
    assert hot == [Verdict.DELIVERED] * 2 + [Verdict.REJECTED] + [Verdict.RETRY] * 7
    assert list(by_row.values()) == [[Verdict.DELIVERED]] * 10
    accepted = [each for request in http_server.received if guilty not in _ids(request) for each in _ids(request)]
    assert not {one.event_id for one in sent[6::2]} & set(accepted)


async def _answered(http_server: HttpServer, sent: list[Event], answers: list[int]) -> list[tuple[Verdict, bool]]:
    async def answer(_: web.Request) -> web.StreamResponse:
        return web.Response(status=answers.pop(0), headers={"Retry-After": "7"})

    http_server.answer = answer
    sink = _sink(http_server)
    await sink.open()
    outcomes = await sink.deliver(sent)
    await sink.close()
    assert {outcome.retry_after for outcome in outcomes if outcome.endpoint} <= {7.0}
    return [(outcome.verdict, outcome.endpoint) for outcome in outcomes]


async def test_a_fault_of_the_endpoint_is_all_of_the_batch_again(http_server: HttpServer) -> None:
    assert await _answered(http_server, events(8), [503]) == [(Verdict.RETRY, True)] * 8
    assert await _answered(http_server, events(8), [429]) == [(Verdict.RETRY, True)] * 8
    half = [(Verdict.DELIVERED, False)] * 4 + [(Verdict.RETRY, True)] * 4
    assert await _answered(http_server, events(8), [400, 200, 503]) == half


async def test_a_slow_endpoint_that_refuses_is_looked_through_over_several_calls(http_server: HttpServer) -> None:
    async def slowly(request: web.Request) -> web.StreamResponse:
        found = [each["id"] for each in json.loads(await request.read())]
        await asyncio.sleep(0.6)
        return web.Response(status=400 if sent[5].event_id in found else 204)

    sent, http_server.answer = events(8), slowly
    sink = _sink(http_server, seconds=1)
    await sink.open()
    left, refused = list(sent), []
    # A call whose answer is late because the machine stood still is the endpoint's fault, and the search begins anew.
    async with asyncio.timeout(90):
        while left:
            async with running_time() as took:
                outcomes = await sink.deliver(left)
            assert took.seconds < sink.timeout + 0.5
            refused += [one for one, outcome in zip(left, outcomes, strict=True) if outcome.verdict is Verdict.REJECTED]
            left = [one for one, outcome in zip(left, outcomes, strict=True) if outcome.verdict is Verdict.RETRY]
    await sink.close()
    assert refused == [sent[5]]
