"""The real servers of the suite: Postgres 16 and 18, nats-server, HTTP. Started only when a test asks."""

from __future__ import annotations

import asyncio
import inspect
import os
import secrets
import shutil
import ssl
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import nats
import psycopg
import pytest
from aiohttp import web
from hypothesis import HealthCheck, settings
from nats.js.api import StreamConfig
from psycopg import sql

from tablewatcher.embedded import EmbeddedNats, EmbeddedPostgres, free_port, ports

from .replicas import replicated
from .versions import EVERY, GIVEN, newest_postgres

TESTS = Path(__file__).parent
TIERS = ("unit", "integration", "migration", "controller", "acceptance", "e2e", "benchmarks")

TURN_SECONDS = 1.0

MEMORY = Path("/dev/shm")
ROOM = 4 << 30

POSTGRES_SETTINGS = {
    "fsync": "off",
    "full_page_writes": "off",
    "synchronous_commit": "off",
    "max_prepared_transactions": "0",
    "max_connections": "200",
    "shared_buffers": "32MB",
    # Kept in memory, mostly.
    "max_wal_size": "256MB",
}


# Whichever profile is in force: a machine that stands still makes no example slow. Nothing is measured here.
settings.register_profile("unhurried", settings.default, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")


def pytest_configure(config: pytest.Config) -> None:
    for tier in TIERS:
        config.addinivalue_line("markers", f"{tier}: every test below tests/{tier}")
    # Else one of several could be given the port of a server that another has stopped, or is about to start.
    number, _, count = os.environ.get("TABLEWATCHER_TEST_PORTS", "0/1").partition("/")
    shares = [(int(number), int(count))]
    worker = getattr(config, "workerinput", None)
    if worker is not None:
        shares.append((int(worker["workerid"].removeprefix("gw")), worker["workercount"]))
    for nth, of in shares:
        ports.PORTS = ports.PORTS[nth::of]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if not item.path.is_relative_to(TESTS):
            continue
        folder = item.path.relative_to(TESTS).parts[0]
        if folder in TIERS:
            item.add_marker(folder)


async def poll(condition: Callable[[], Any], seconds: float = 10.0, every: float = 0.02) -> Any:
    """The first true answer of `condition` (plain or async); AssertionError after `seconds`.

    Where a machine stands still, we stand still with what we wait for: a turn counts for TURN_SECONDS at most.
    """
    left = seconds
    while True:
        began = time.monotonic()
        answer = condition()
        if inspect.isawaitable(answer):
            answer = await answer
        if answer:
            return answer
        if left < 0:
            raise AssertionError(f"not so within {seconds:g} s: {inspect.getsource(condition).strip()}")
        await asyncio.sleep(every)
        left -= min(time.monotonic() - began, TURN_SECONDS)


@pytest.fixture(scope="session")
def eventually() -> Callable[..., Awaitable[Any]]:
    """`await eventually(condition, seconds)`: wait for a condition instead of sleeping."""
    return poll


@pytest.fixture(scope="session", name="free_port")
def find_free_port() -> Callable[[], int]:
    """Call it for a port of 127.0.0.1 that nothing listens on."""
    return free_port


@contextmanager
def directory_of_servers(prefix: str) -> Iterator[Path]:
    """A directory for what servers keep: in memory, where there is room, for a disk that others keep busy makes an
    empty database in a second instead of some hundredths.

    Not below tmp_path: as root the server runs as another user, and every pytest session closes the parents
    of tmp_path to others again.
    """
    roomy = MEMORY.is_dir() and os.access(MEMORY, os.W_OK) and shutil.disk_usage(MEMORY).free > ROOM
    directory = Path(tempfile.mkdtemp(prefix=prefix, dir=MEMORY if roomy else None))
    directory.chmod(0o711)
    try:
        yield directory
    finally:
        shutil.rmtree(directory)


@pytest.fixture
def server_directory() -> Iterator[Path]:
    """A directory for servers of one test that it may kill."""
    with directory_of_servers("tablewatcher-test-") as directory:
        yield directory


@pytest.fixture(scope="session")
def session_directory() -> Iterator[Path]:
    with directory_of_servers("tablewatcher-tests-") as directory:
        yield directory


@pytest.fixture(scope="session")
def postgres18(session_directory: Path) -> Iterator[EmbeddedPostgres]:
    with EmbeddedPostgres(session_directory / "postgres18", 18, POSTGRES_SETTINGS) as server:
        yield server


@pytest.fixture(scope="session")
def postgres16(session_directory: Path) -> Iterator[EmbeddedPostgres]:
    with EmbeddedPostgres(session_directory / "postgres16", 16, POSTGRES_SETTINGS) as server:
        yield server


@pytest.fixture(scope="session")
def postgres(session_directory: Path, request: pytest.FixtureRequest) -> Iterator[EmbeddedPostgres]:
    """The newest version, or the given one."""
    if not GIVEN:
        yield cast("EmbeddedPostgres", request.getfixturevalue("postgres18"))
        return
    with newest_postgres(session_directory / "postgres", POSTGRES_SETTINGS) as server:
        yield server


@pytest.fixture(params=EVERY)
def any_postgres(request: pytest.FixtureRequest) -> EmbeddedPostgres:
    """Each version in turn. A module whose every test wants them all overrides `database` with `any_database`."""
    return cast("EmbeddedPostgres", request.getfixturevalue(request.param))


@dataclass(frozen=True, slots=True)
class Database:
    """An empty database of one test; it is dropped afterwards, whoever is still connected."""

    server: EmbeddedPostgres
    name: str

    @property
    def dsn(self) -> str:
        """Of the superuser."""
        return self.server.dsn(self.name)

    def dsn_of(self, user: str, password: str) -> str:
        return self.server.dsn(self.name, user, password)

    async def connect(self) -> psycopg.AsyncConnection[tuple[Any, ...]]:
        """A new connection in autocommit; the test closes it (`async with await database.connect()`)."""
        return await psycopg.AsyncConnection.connect(self.dsn, autocommit=True)

    async def execute(self, statement: str, *parameters: Any) -> list[tuple[Any, ...]]:
        """Run one statement in a connection of its own; its rows, none where it returns none."""
        # Without parameters a `%` stays what it is, and several statements may be given at once.
        async with await self.connect() as connection:
            cursor = await connection.execute(statement.encode(), parameters or None)
            return [] if cursor.description is None else await cursor.fetchall()


def fresh_database(server: EmbeddedPostgres) -> Iterator[Database]:
    name = f"test_{secrets.token_hex(6)}"
    with psycopg.connect(server.dsn(), autocommit=True) as connection:
        # The faster of two ways, for an empty one; before version 15 it was the only one.
        strategy = sql.SQL("STRATEGY file_copy" if server.version >= 15 else "")
        connection.execute(sql.SQL("CREATE DATABASE {} TEMPLATE template0 {}").format(sql.Identifier(name), strategy))
    yield Database(server, name)
    with psycopg.connect(server.dsn(), autocommit=True) as connection:
        connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))


@pytest.fixture
def database(postgres: EmbeddedPostgres) -> Iterator[Database]:
    yield from fresh_database(postgres)


@pytest.fixture
def two_phase(server_directory: Path) -> Iterator[Database]:
    """A database in which transactions can be prepared, on a server of this test."""
    settings = {**POSTGRES_SETTINGS, "max_prepared_transactions": "10"}
    with newest_postgres(server_directory / "two_phase", settings) as server:
        yield Database(server, "postgres")


@pytest.fixture
def primary_and_standby(server_directory: Path) -> Iterator[tuple[EmbeddedPostgres, EmbeddedPostgres]]:
    """Two servers of this test, which may end them."""
    with replicated(server_directory, POSTGRES_SETTINGS) as both:
        yield both


@pytest.fixture
def any_database(any_postgres: EmbeddedPostgres) -> Iterator[Database]:
    yield from fresh_database(any_postgres)


@pytest.fixture(scope="session")
def nats_server(session_directory: Path) -> Iterator[EmbeddedNats]:
    with EmbeddedNats(session_directory / "nats") as server:
        yield server


@dataclass(frozen=True, slots=True)
class StoredMessage:
    """A message as the stream keeps it; `sequence` is the stream's."""

    sequence: int
    subject: str
    headers: dict[str, str]
    data: bytes


@dataclass(frozen=True, slots=True)
class Stream:
    """A stream of one test that covers `<prefix>.>`."""

    name: str
    prefix: str
    url: str

    async def count(self) -> int:
        """Messages the stream holds now."""
        async with await nats.connect(self.url) as client:
            return (await client.jetstream().stream_info(self.name)).state.messages

    async def messages(self, count: int = 0, seconds: float = 30.0) -> list[StoredMessage]:
        """All messages in stream order, once there are at least `count`; AssertionError after `seconds`."""
        found: list[StoredMessage] = []
        async with await nats.connect(self.url) as client:
            jetstream = client.jetstream()

            async def held() -> int:
                return (await jetstream.stream_info(self.name)).state.messages

            deadline = time.monotonic() + seconds
            while (present := await held()) < count:
                assert time.monotonic() < deadline, f"{present} of {count} messages within {seconds:g} s"
                await asyncio.sleep(0.02)
            if not present:
                return found
            reader = await jetstream.pull_subscribe(f"{self.prefix}.>", stream=self.name)
            while len(found) < present:
                for message in await reader.fetch(min(1000, present - len(found)), timeout=10):
                    await message.ack()
                    found.append(
                        StoredMessage(
                            message.metadata.sequence.stream,
                            message.subject,
                            dict(message.headers or {}),
                            message.data,
                        )
                    )
            await reader.unsubscribe()
        return found


@pytest.fixture
async def make_stream(nats_server: EmbeddedNats) -> AsyncIterator[Callable[..., Awaitable[Stream]]]:
    """`await make_stream(**settings)`: a stream of its own name and subjects; settings as in StreamConfig."""
    made: list[str] = []

    async def make(**settings: Any) -> Stream:
        tag = secrets.token_hex(6)
        stream = Stream(f"TEST_{tag}", f"test-{tag}", nats_server.url)
        configuration = StreamConfig(
            **{"name": stream.name, "subjects": [f"{stream.prefix}.>"], "duplicate_window": 120.0, **settings}
        )
        async with await nats.connect(nats_server.url) as client:
            await client.jetstream().add_stream(configuration)
        made.append(stream.name)
        return stream

    yield make
    if not made:
        return
    async with await nats.connect(nats_server.url) as client:
        for name in made:
            await client.jetstream().delete_stream(name)


@pytest.fixture
async def stream(make_stream: Callable[..., Awaitable[Stream]]) -> Stream:
    return await make_stream()


@dataclass(frozen=True, slots=True)
class ReceivedRequest:
    """A request as it arrived; `number` counts from 0, `arrived_at` is time.time()."""

    number: int
    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    arrived_at: float


Answer = int | web.Response
Behaviour = Callable[[ReceivedRequest], Answer | Awaitable[Answer]]


@dataclass(slots=True, eq=False)
class HttpReceiver:
    """A real HTTP server that records what it gets, before it answers.

    `respond` decides the answer: a status or a response, plain or async (to answer late). Header names in
    records are lower case. It may be stopped and started again on the same port. tls: None is plain HTTP.
    """

    port: int = field(default_factory=free_port)
    requests: list[ReceivedRequest] = field(default_factory=list)
    respond: Behaviour = lambda _: 204
    tls: ssl.SSLContext | None = None
    _runner: web.AppRunner | None = None

    @property
    def url(self) -> str:
        origin = f"http://127.0.0.1:{self.port}" if self.tls is None else f"https://localhost:{self.port}"
        return f"{origin}/events"

    @property
    def bodies(self) -> Sequence[bytes]:
        return [request.body for request in self.requests]

    async def start(self) -> None:
        application = web.Application(client_max_size=64 * 1024 * 1024)
        application.router.add_route("*", "/{path:.*}", self._receive)
        self._runner = web.AppRunner(application, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port, ssl_context=self.tls).start()

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def wait_for(self, count: int, seconds: float = 30.0) -> list[ReceivedRequest]:
        """The requests, once there are at least `count`; AssertionError after `seconds`."""
        deadline = time.monotonic() + seconds
        while len(self.requests) < count:
            assert time.monotonic() < deadline, f"{len(self.requests)} of {count} requests in {seconds:g} s"
            await asyncio.sleep(0.01)
        return self.requests

    async def _receive(self, request: web.Request) -> web.Response:
        headers = {name.lower(): text for name, text in request.headers.items()}
        body = await request.read()
        if self._runner is None or request.app is not self._runner.app:
            # Its handshake was under way when we were stopped: asyncio lets it finish, and nobody ends it after that.
            assert request.transport is not None
            request.transport.abort()
            return web.Response(status=503)
        received = ReceivedRequest(len(self.requests), request.method, request.path_qs, headers, body, time.time())
        self.requests.append(received)
        answer = self.respond(received)
        if inspect.isawaitable(answer):
            answer = await answer
        return web.Response(status=answer) if isinstance(answer, int) else answer


@pytest.fixture
async def http_receiver() -> AsyncIterator[HttpReceiver]:
    receiver = HttpReceiver()
    await receiver.start()
    yield receiver
    await receiver.stop()
