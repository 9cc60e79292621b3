"""The health server of a listener, and that of the operator, asked over real connections."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import AsyncIterator

import aiohttp
import pytest
from prometheus_client import CollectorRegistry

from tablewatcher import serving
from tablewatcher.controller.health import health_server
from tablewatcher.embedded import free_port
from tablewatcher.errors import Reason, TableWatcherError
from tablewatcher.event import Event
from tablewatcher.listener.health import HealthServer
from tablewatcher.listener.observe import Observer
from tablewatcher.metrics import Metrics
from tablewatcher.postgres.database import Progress
from tablewatcher.postgres.parked import Held
from tablewatcher.postgres.ring.chunks import IDS_A_ROW
from tablewatcher.postgres.ring.position import Rest
from tablewatcher.postgres.ring.upkeep import Gauge

from ..conftest import poll
from .capturing import spec_of

SPEC = spec_of(name="orders")


@pytest.fixture
def observer() -> Observer:
    return Observer(SPEC, Metrics(CollectorRegistry()), "here")


@pytest.fixture
async def port(observer: Observer) -> AsyncIterator[int]:
    found = free_port()
    registry = CollectorRegistry()
    Metrics(registry)
    server = HealthServer(registry, lambda: [("shop/orders", observer)], tuple)
    server.start("127.0.0.1", found)
    yield found
    await server.stop()


def test_the_first_gap_is_an_increase() -> None:
    """Of a counter that is not there before, the first sample is none: the alert of the operations page kept silent."""
    metrics = Metrics(CollectorRegistry())
    Observer(SPEC, metrics, "here")
    labels = {"watcher_namespace": SPEC.namespace, "watcher": SPEC.name}
    assert metrics.registry.get_sample_value("tablewatcher_gaps_total", labels) == 0


def test_a_listener_that_stands_by_tells_nothing_of_the_ring() -> None:
    """What was known of it would stand still: an age past the bound of an alert, for as long as the process runs."""
    metrics = Metrics(CollectorRegistry())
    observer = Observer(SPEC, metrics, "here")
    labels = {"watcher_namespace": SPEC.namespace, "watcher": SPEC.name}

    def told() -> list[float | None]:
        sizes = ("ring_bytes", "ring_limit_bytes", "ring_rows", "ring_oldest_age_seconds")
        names = (*sizes, "events_parked", "capture_active")
        return [metrics.registry.get_sample_value(f"tablewatcher_{name}", labels) for name in names]

    observer.ring(Gauge(bytes=4096, last_id=64, slot=0, stopped_at=0, gaps=0, skipped=0), None, 0, room=8192, held="")
    observer.parked(Held(), full=False)
    assert told() == [4096, 8192, 0, 0, 0, 1]
    observer.unleased(Reason.DATABASE_UNREACHABLE, "nothing answers")
    assert told() == [4096, 8192, 0, 0, 0, 1], "it is still ours"
    observer.unleased(Reason.RECONCILING, "standing by", ready=True)
    assert told() == [None] * 6


def test_a_sink_that_takes_events_counts_as_connected_with_no_room_for_those_that_it_refuses() -> None:
    """Or an alert says that nobody delivers."""
    metrics = Metrics(CollectorRegistry())
    observer = Observer(SPEC, metrics, "here")
    labels = {"watcher_namespace": SPEC.namespace, "watcher": SPEC.name}

    async def write(_: Progress) -> None:
        """Nobody reads it."""

    observer.leased(1, write)
    observer.forwarding()
    observer.parked(Held(1, 1 << 20), full=True)
    assert (observer.ready, observer.reason) == (False, Reason.EVENTS_PARKED)
    assert metrics.registry.get_sample_value("tablewatcher_listener_connected", labels) == 1


def test_a_backlog_is_old_while_all_that_was_read_is_delivered() -> None:
    """The page after it is still being read. An age that was 0 now and then kept an alert from ever firing."""
    metrics = Metrics(CollectorRegistry())
    observer = Observer(SPEC, metrics, "here")
    labels = {"watcher_namespace": SPEC.namespace, "watcher": SPEC.name}
    event = Event(64, "0" * 32, "i", "1", None, "", time.time() - 400, "", None, b"{}")
    gauge = Gauge(bytes=4096, last_id=6400, slot=0, stopped_at=0, gaps=0, skipped=0)

    def age() -> float | None:
        observer.ring(gauge, None, 64, room=8192, held="")
        return metrics.registry.get_sample_value("tablewatcher_ring_oldest_age_seconds", labels)

    with observer.behind.delivering(lambda: 0):
        observer.read([event], Rest(99, 6400, 1 / IDS_A_ROW))
        assert age() == pytest.approx(400, abs=5)
        observer.read([event], None)
        assert age() == 0


def test_a_listener_that_has_not_connected_yet_is_not_connected() -> None:
    """A database that does not answer may keep it waiting for long: until then there was no series to alert on."""
    metrics = Metrics(CollectorRegistry())
    Observer(SPEC, metrics, "here")
    labels = {"watcher_namespace": SPEC.namespace, "watcher": SPEC.name}
    assert metrics.registry.get_sample_value("tablewatcher_listener_connected", labels) == 0


async def ask(port: int, page: str, method: str = "GET") -> tuple[int, str, str]:
    async with (
        aiohttp.ClientSession() as session,
        session.request(method, f"http://127.0.0.1:{port}{page}") as answer,
    ):
        return answer.status, answer.headers["Content-Type"], await answer.text()


async def test_it_is_well_while_the_process_runs(port: int) -> None:
    assert await ask(port, "/healthz") == (200, "text/plain; charset=utf-8", "ok\n")
    assert (await ask(port, "/healthz", "HEAD"))[0] == 200


async def test_ready_says_which_watcher_is_not_and_why(port: int, observer: Observer) -> None:
    observer.unleased(Reason.DATABASE_UNREACHABLE, "nothing answers")
    status, _, body = await ask(port, "/readyz")
    told = {"ready": False, "reason": "DatabaseUnreachable", "message": "nothing answers"}
    expected = {"ready": False, "watchers": {"shop/orders": told}, "unusableManifests": []}
    assert (status, json.loads(body)) == (503, expected)
    observer.unleased(Reason.RECONCILING, "standing by", ready=True)
    assert (await ask(port, "/readyz"))[0] == 200


async def test_metrics(port: int) -> None:
    status, kind, body = await ask(port, "/metrics")
    assert status == 200
    assert kind.startswith("text/plain; version=")
    assert "tablewatcher_build_info{" in body


async def test_another_page_names_those_that_there_are(port: int) -> None:
    status, _, body = await ask(port, "/")
    assert status == 404
    assert "/readyz" in body


async def test_a_loop_that_hangs_is_not_well(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "_LOOP_SECONDS", 0.2)
    told: list[tuple[int, str, str]] = []
    asking = threading.Thread(target=lambda: told.append(asyncio.run(ask(port, "/healthz"))))
    asking.start()
    asking.join()  # this loop does nothing else meanwhile
    assert told == [(503, "text/plain; charset=utf-8", "the event loop does not answer\n")]


@pytest.fixture
async def operators_port() -> AsyncIterator[int]:
    found = free_port()
    server = health_server(Metrics(CollectorRegistry()).registry)
    server.start("127.0.0.1", found)
    yield found
    await server.stop()


async def test_the_operator_is_well_and_tells_its_metrics(operators_port: int) -> None:
    assert await ask(operators_port, "/healthz") == (200, "text/plain; charset=utf-8", "ok\n")
    status, _, body = await ask(operators_port, "/metrics")
    assert (status, "tablewatcher_build_info{" in body) == (200, True)
    assert await ask(operators_port, "/readyz") == (404, "text/plain; charset=utf-8", "there are /healthz, /metrics\n")


async def test_clients_of_the_operator_that_say_nothing_make_way(operators_port: int) -> None:
    """Each takes a descriptor, of which there are a thousand for databases and the API server, too."""
    connections = [await asyncio.open_connection("127.0.0.1", operators_port) for _ in range(120)]
    assert (await ask(operators_port, "/healthz"))[0] == 200

    def ended() -> int:
        return sum(reader.at_eof() for reader, _ in connections)

    await poll(lambda: ended() >= 120 - 64)
    for _, writer in connections:
        writer.close()


async def test_clients_that_say_nothing_take_little_and_make_way(
    port: int, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    before = threading.active_count()
    connections = [await asyncio.open_connection("127.0.0.1", port) for _ in range(120)]
    assert (await ask(port, "/healthz"))[0] == 200
    await poll(lambda: threading.active_count() < before + 80)
    for _, writer in connections:
        writer.close()
    await poll(lambda: threading.active_count() <= before + 1)
    monkeypatch.setattr(serving._Quiet, "timeout", 0.1)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    assert await reader.read() == b""
    writer.close()
    assert capfd.readouterr().err == ""


async def test_it_stops_at_once_and_its_port_is_free(observer: Observer) -> None:
    """A listener that was told to end waits for it."""
    port, seconds = free_port(), []
    for _ in range(4):
        server = HealthServer(CollectorRegistry(), lambda: [("shop/orders", observer)], tuple)
        server.start("127.0.0.1", port)
        assert (await ask(port, "/healthz"))[0] == 200
        began = time.monotonic()
        await server.stop()
        seconds.append(time.monotonic() - began)
    # A look every half second would take nearly that each time; a machine that stands still does not do so each time.
    assert min(seconds) < 0.25


async def test_it_waits_for_no_name_server(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(socket, "getfqdn", lambda name="": asked.append(name) or name)
    server = HealthServer(CollectorRegistry(), list, tuple)
    server.start("127.0.0.1", free_port())
    await server.stop()
    assert asked == []


async def test_a_port_that_is_taken(port: int) -> None:
    server = HealthServer(CollectorRegistry(), list, tuple)
    with pytest.raises(TableWatcherError, match="choose another with --http-port"):
        server.start("127.0.0.1", port)
