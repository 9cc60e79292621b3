"""The consumers of examples/, run as they are against what the manifests of examples/ send."""

from __future__ import annotations

import base64
import contextlib
import json
import secrets
import signal
import sqlite3
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import nats
import pytest
import yaml
from nats.js.api import StreamConfig

from tablewatcher.embedded import EmbeddedNats

from ..conftest import Database
from .commands import write, write_secret
from .programs import PROGRAM, running

ROOT = Path(__file__).parents[2]
CONSUMERS = ROOT / "examples" / "consumers"
Eventually = Callable[..., Awaitable[Any]]


@asynccontextmanager
async def consuming(name: str, **environment: str) -> AsyncIterator[Callable[[], list[str]]]:
    """A consumer that runs; gives the whole lines it has printed so far."""
    async with running(sys.executable, CONSUMERS / name, ended_by=signal.SIGKILL, **environment) as program:
        yield lambda: program.out.rpartition("\n")[0].splitlines()


@dataclass(frozen=True, slots=True)
class Shop:
    """The database of the examples, and the stream that nats.yaml names."""

    database: Database
    nats_url: str
    directory: Path

    @asynccontextmanager
    async def forwarding(self, example: str, port: int, **sink: Any) -> AsyncIterator[None]:
        """`tablewatcher run` of an example, with our servers in place of those it names."""
        manifest = yaml.safe_load((ROOT / "examples" / example).read_text())
        (kind,) = manifest["spec"]["sink"]
        manifest["spec"]["sink"][kind] |= sink
        files = write(self.directory / "manifests", manifest)
        options = ("-f", files, "--dsn", self.database.dsn, "--secrets-dir", self.directory / "secrets")
        async with running(PROGRAM, "run", *options, "--http-port", port):
            yield

    async def write(self, statement: str) -> None:
        await self.database.execute(statement)

    async def captured(self) -> bool:
        query = "SELECT count(*) FROM pg_trigger WHERE tgname LIKE '%tablewatcher%'"
        return (await self.database.execute(query))[0][0] > 0

    async def acknowledged(self) -> bool:
        """Whether the copy has told NATS that it has all: else some comes again when it is started again."""
        async with await nats.connect(self.nats_url) as client:
            found = await client.jetstream().consumer_info("SHOP", "orders-copy")
        return found.num_pending == found.num_ack_pending == 0


@pytest.fixture
async def shop(database: Database, server_directory: Path, tmp_path: Path) -> AsyncIterator[Shop]:
    await database.execute((ROOT / "examples" / "orders.sql").read_text())
    # A server of our own: the examples name their stream and subjects.
    with EmbeddedNats(server_directory / "nats") as server:
        async with await nats.connect(server.url) as client:
            await client.jetstream().add_stream(StreamConfig(name="SHOP", subjects=["shop.>"]))
        yield Shop(database, server.url, tmp_path)


async def test_the_stream_consumer_changes_its_copy_once_for_each_event(
    shop: Shop, free_port: Callable[[], int], eventually: Eventually
) -> None:
    copy = shop.directory / "orders.sqlite"

    def rows() -> list[tuple[Any, ...]]:
        with contextlib.closing(sqlite3.connect(copy)) as connection:
            return connection.execute("SELECT id, status, total FROM orders ORDER BY id").fetchall()

    async with AsyncExitStack() as stack:
        await stack.enter_async_context(shop.forwarding("nats.yaml", free_port(), servers=[shop.nats_url]))
        await eventually(shop.captured, 40)
        environment = {"NATS_URL": shop.nats_url, "COPY": str(copy)}
        lines = await stack.enter_async_context(consuming("stream_consumer.py", **environment))
        await shop.write("INSERT INTO orders (customer, total) VALUES ('ada', 9.50), ('bob', 0.10)")
        await shop.write("UPDATE orders SET status = 'paid' WHERE id = 1")
        await shop.write("DELETE FROM orders WHERE id = 2")
        await eventually(lambda: len(lines()) == 4, 40)
        assert rows() == [(1, "paid", "9.50")]
        async with await nats.connect(shop.nats_url) as client:
            jetstream = client.jetstream()
            first = await jetstream.get_msg("SHOP", 1)
            assert first.data is not None
            await jetstream.publish("shop.public.orders.insert", first.data)
        await eventually(lambda: len(lines()) == 5, 40)
        assert lines()[-1] == "repeat public.orders/1"
        assert rows() == [(1, "paid", "9.50")]
        await eventually(shop.acknowledged, 40)
    async with consuming("stream_consumer.py", **environment) as again:
        await eventually(lambda: rows() == [(1, "paid", "9.50")], 40)
        async with await nats.connect(shop.nats_url) as client:
            gap = {"type": "io.tablewatcher.gap", "subject": "public.orders"}
            await client.jetstream().publish("shop.public.orders.gap", json.dumps(gap).encode())
        await eventually(again, 40)
        assert again() == ["gap: read the whole table again public.orders"], "it went on where it was"


async def test_the_cache_drops_what_changes(shop: Shop, free_port: Callable[[], int], eventually: Eventually) -> None:
    environment = {"NATS_URL": shop.nats_url, "DATABASE_URL": shop.database.dsn}
    async with (
        shop.forwarding("nats.yaml", free_port(), servers=[shop.nats_url]),
        consuming("cache_refresh.py", **environment) as lines,
    ):
        await eventually(shop.captured, 40)
        await eventually(lambda: lines() == ["watching"], 40)
        for statement, said in (
            ("INSERT INTO orders (customer, total) VALUES ('ada', 9.50)", "inserted (1, 'new', Decimal('9.50'))"),
            ("UPDATE orders SET status = 'paid' WHERE id = 1", "updated (1, 'paid', Decimal('9.50'))"),
            ("DELETE FROM orders", "deleted None"),
        ):
            seen = len(lines())
            await shop.write(statement)
            await eventually(lambda seen=seen: len(lines()) > seen, 40)
            assert lines()[-1] == f"io.tablewatcher.row.{said}"


async def test_the_webhook_receiver_takes_what_is_signed_and_nothing_else(
    shop: Shop, free_port: Callable[[], int], eventually: Eventually
) -> None:
    secret, port = "whsec_" + base64.b64encode(secrets.token_bytes(24)).decode(), free_port()
    write_secret(shop.directory / "secrets", "hook", whsec=secret)
    async with (
        consuming("webhook_receiver.py", WEBHOOK_SECRET=secret, PORT=str(port)) as lines,
        shop.forwarding("http.yaml", free_port(), url=f"http://127.0.0.1:{port}/orders"),
    ):
        await eventually(shop.captured, 40)
        await shop.write("INSERT INTO orders (customer, total) VALUES ('ada', 9.50)")
        await eventually(lines, 40)
        assert lines()[0].startswith("io.tablewatcher.row.inserted public.orders/1 {'id': 1, 'customer': 'ada'")
        async with aiohttp.ClientSession() as session:
            headers = {"webhook-id": "x", "webhook-timestamp": "1", "webhook-signature": "v1,AAAA"}
            async with session.post(f"http://127.0.0.1:{port}/", data=b"{}", headers=headers) as answer:
                assert answer.status == 401
        assert set(lines()) == {lines()[0]}, "only what is signed, however often it came"
