"""The consumers of examples/, run as they are against what the manifests of examples/ send."""

from __future__ import annotations

import base64
import contextlib
import json
import secrets
import signal
import sqlite3
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
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
    async def forwarding(
        self, example: str, port: int, *, more: Sequence[str] = (), **sink: Any
    ) -> AsyncIterator[None]:
        """`tablewatcher run` of an example, with our servers in place of those it names, and `more` actions."""
        manifest = yaml.safe_load((ROOT / "examples" / example).read_text())
        (kind,) = manifest["spec"]["sink"]
        manifest["spec"]["sink"][kind] |= sink
        manifest["spec"]["actions"] += more
        files = write(self.directory / "manifests", manifest)
        options = ("-f", files, "--dsn", self.database.dsn, "--secrets-dir", self.directory / "secrets")
        async with running(PROGRAM, "run", *options, "--http-port", port):
            yield

    async def write(self, statement: str) -> None:
        await self.database.execute(statement)

    async def send(self, event: dict[str, Any], **changed: str) -> None:
        """Puts an event into the stream by hand, with no id by which NATS would drop a repeat."""
        async with await nats.connect(self.nats_url) as client:
            body = json.dumps(event | changed).encode()
            await client.jetstream().publish("shop.public.orders.again", body)

    async def sent(self, number: int) -> dict[str, Any]:
        """The event in the stream with that number, from 1."""
        async with await nats.connect(self.nats_url) as client:
            found = await client.jetstream().get_msg("SHOP", number)
        assert found.data is not None
        return dict(json.loads(found.data))

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


def copied(copy: Path) -> list[tuple[Any, ...]]:
    with contextlib.closing(sqlite3.connect(copy)) as connection:
        return connection.execute("SELECT id, status, total FROM orders ORDER BY id").fetchall()


async def test_the_stream_consumer_changes_its_copy_once_for_each_event(
    shop: Shop, free_port: Callable[[], int], eventually: Eventually
) -> None:
    copy = shop.directory / "orders.sqlite"
    environment = {"NATS_URL": shop.nats_url, "DATABASE_URL": shop.database.dsn, "COPY": str(copy)}
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(shop.forwarding("nats.yaml", free_port(), servers=[shop.nats_url]))
        await eventually(shop.captured, 40)
        lines = await stack.enter_async_context(consuming("stream_consumer.py", **environment))
        await shop.write("INSERT INTO orders (customer, total) VALUES ('ada', 9.50), ('bob', 0.10)")
        await shop.write("UPDATE orders SET status = 'paid' WHERE id = 1")
        await shop.write("DELETE FROM orders WHERE id = 2")
        await eventually(lambda: len(lines()) == 4, 40)
        assert copied(copy) == [(1, "paid", "9.50")]
        first = await shop.sent(1)
        await shop.send(first)
        # As if it had been put aside, and sent when the endpoint was mended: not seen before, and older than what is.
        await shop.send(first, id="put aside")
        await eventually(lambda: len(lines()) == 6, 40)
        assert lines()[-2:] == ["repeat public.orders/1", "outdated public.orders/1"]
        assert copied(copy) == [(1, "paid", "9.50")]
        await eventually(shop.acknowledged, 40)
    async with consuming("stream_consumer.py", **environment) as again:
        await eventually(lambda: copied(copy) == [(1, "paid", "9.50")], 40)
        # The program is another one, and the copy knows it.
        await shop.send(first)
        await eventually(again, 40)
        assert again() == ["repeat public.orders/1"], "it went on where it was"


async def test_the_stream_consumer_reads_what_an_event_cannot_hold(
    shop: Shop, free_port: Callable[[], int], eventually: Eventually
) -> None:
    copy = shop.directory / "orders.sqlite"
    environment = {"NATS_URL": shop.nats_url, "DATABASE_URL": shop.database.dsn, "COPY": str(copy)}
    async with (
        shop.forwarding("nats.yaml", free_port(), more=["truncate"], servers=[shop.nats_url]),
        consuming("stream_consumer.py", **environment) as lines,
    ):
        await eventually(shop.captured, 40)
        await shop.write("INSERT INTO orders (customer, total) VALUES ('ada', 9.50), ('bob', 0.10)")
        await shop.write("UPDATE orders SET status = repeat('x', 300000) WHERE id = 1")
        await eventually(lambda: len(lines()) == 3, 40)
        assert (await shop.sent(3))["data"]["truncated"] is True
        assert copied(copy) == [(1, "x" * 300000, "9.50"), (2, "new", "0.10")]
        await shop.write("DELETE FROM orders WHERE id = 1")
        await eventually(lambda: len(lines()) == 4, 40)
        assert copied(copy) == [(2, "new", "0.10")]
        # Nobody sees what a session like this one writes.
        await shop.write("SET session_replication_role = replica; UPDATE orders SET status = 'missed'")
        gap = {"type": "io.tablewatcher.gap", "data": {"action": "gap"}, "id": "gap", "partitionkey": "_"}
        await shop.send(gap, subject="public.orders/_", sequence=(await shop.sent(4))["sequence"] + "1")
        await eventually(lambda: len(lines()) == 5, 40)
        assert copied(copy) == [(2, "missed", "0.10")]
        await shop.write("TRUNCATE orders")
        await eventually(lambda: len(lines()) == 6, 40)
        assert copied(copy) == []
        assert lines()[-2:] == ["gap public.orders/_", "truncate public.orders/_"]
        await shop.send(await shop.sent(2), id="put aside")
        await eventually(lambda: len(lines()) == 7, 40)
        assert (lines()[-1], copied(copy)) == ("outdated public.orders/2", [])


async def test_the_cache_drops_what_changes(shop: Shop, free_port: Callable[[], int], eventually: Eventually) -> None:
    environment = {"NATS_URL": shop.nats_url, "DATABASE_URL": shop.database.dsn}
    async with (
        shop.forwarding("nats.yaml", free_port(), more=["truncate"], servers=[shop.nats_url]),
        consuming("cache_refresh.py", **environment) as lines,
    ):
        await eventually(shop.captured, 40)
        await eventually(lambda: lines() == ["watching"], 40)
        for statement, said in (
            ("INSERT INTO orders (customer, total) VALUES ('ada', 9.50)", "inserted (1, 'new', Decimal('9.50'))"),
            ("UPDATE orders SET status = 'paid' WHERE id = 1", "updated (1, 'paid', Decimal('9.50'))"),
            ("UPDATE orders SET status = repeat('x', 300000)", f"updated (1, '{'x' * 300000}', Decimal('9.50'))"),
            ("DELETE FROM orders", "deleted None"),
            ("INSERT INTO orders (customer, total) VALUES ('bob', 0.10)", "inserted (2, 'new', Decimal('0.10'))"),
            ("TRUNCATE orders RESTART IDENTITY", "truncated everything"),
            ("INSERT INTO orders (customer, total) VALUES ('eve', 1)", "inserted (1, 'new', Decimal('1.00'))"),
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
