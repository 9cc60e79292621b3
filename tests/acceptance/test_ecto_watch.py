"""What the pages tell somebody who comes from EctoWatch, with the manifest and the statements that stand there."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import nats
import pytest
import yaml
from nats.aio.msg import Msg

from tablewatcher.embedded import EmbeddedNats, free_port

from ..conftest import Database
from .commands import tablewatcher, write
from .programs import PROGRAM, running

ROOT = Path(__file__).parents[2]
SUBSCRIBING = (ROOT / "docs" / "nats.md").read_text().partition("## Subscribing to some of the rows")[2]
PAGE = (ROOT / "docs" / "ecto-watch.md").read_text()
# As the library makes them, of a watcher with an extra column.
ECTO_WATCH = """
CREATE OR REPLACE FUNCTION "public".ew_updated_for_shop_order_func() RETURNS trigger AS $trigger$
  DECLARE payload TEXT; row RECORD;
  BEGIN
    row := COALESCE(NEW, OLD);
    payload := jsonb_build_object('type', 'updated',
      'values', json_build_object('id', row.id, 'customer', row.customer));
    PERFORM pg_notify('ew_updated_for_shop_order', payload);
    RETURN NEW;
  END;
$trigger$ LANGUAGE plpgsql;
CREATE TRIGGER ew_updated_for_shop_order_trigger AFTER UPDATE ON "public"."orders"
  FOR EACH ROW EXECUTE PROCEDURE "public".ew_updated_for_shop_order_func();
"""
Eventually = Callable[..., Awaitable[Any]]


@pytest.fixture
async def orders(database: Database) -> Database:
    await database.execute((ROOT / "examples" / "orders.sql").read_text())
    return database


def told() -> dict[str, str]:
    """The table of the page: what somebody wants to hear of, and the subject."""
    rows = re.findall(r"^\| (.+) \| `(shop[^`]+)` \|$", SUBSCRIBING, re.MULTILINE)
    return {subject: wish for wish, subject in rows}


async def test_subscriptions_to_some_of_the_rows(
    orders: Database, server_directory: Path, tmp_path: Path, eventually: Eventually
) -> None:
    manifest = yaml.safe_load(re.findall(r"```yaml\n(.*?)```", SUBSCRIBING, re.DOTALL)[0])
    heard: dict[str, list[str]] = {subject: [] for subject in told()}

    def listening(subject: str) -> Callable[[Msg], Awaitable[None]]:
        async def take(message: Msg) -> None:
            heard[subject].append(message.subject.removeprefix("shop.orders."))

        return take

    with EmbeddedNats(server_directory / "nats") as server:
        manifest["spec"]["sink"]["nats"]["servers"] = [server.url]
        files = write(tmp_path / "manifests", manifest)
        options = ("-f", files, "--dsn", orders.dsn)
        async with (
            await nats.connect(server.url) as client,
            running(PROGRAM, "run", *options, "--http-port", free_port()),
        ):
            for subject in heard:
                await client.subscribe(subject, cb=listening(subject))
            captured = "SELECT FROM pg_trigger WHERE tgname LIKE '00_tablewatcher%'"
            await eventually(lambda: orders.execute(captured), 40)
            await orders.execute("INSERT INTO orders (customer, total) VALUES ('ada', 1), ('ada bee', 1)")
            await orders.execute("INSERT INTO orders (customer, total) SELECT 'bob', 1 FROM generate_series(3, 7)")
            await orders.execute("UPDATE orders SET customer = 'bob' WHERE id = 1")
            await orders.execute("UPDATE orders SET status = 'paid' WHERE id IN (2, 7)")
            await orders.execute("DELETE FROM orders WHERE id = 7")
            await orders.execute("TRUNCATE orders")
            await orders.execute("ALTER TABLE orders DISABLE TRIGGER USER")
            assert (await tablewatcher("apply", *options)).code == 0
            await eventually(lambda: len(heard["shop.orders.*._._"]) == 2, 40)
    assert heard.pop("shop.orders.*._._") == ["truncate._._", "gap._._"]
    inserts = ["insert.ada.1", "insert.ada%20bee.2", *(f"insert.bob.{nth}" for nth in range(3, 8))]
    updates = ["update.bob.1", "update.ada%20bee.2", "update.bob.7"]
    assert {subject: sorted(found) for subject, found in heard.items()} == {
        "shop.orders.>": sorted([*inserts, *updates, "delete.bob.7", "truncate._._", "gap._._"]),
        "shop.orders.update.>": sorted(updates),
        "shop.orders.*.*.7": ["delete.bob.7", "insert.bob.7", "update.bob.7"],
        "shop.orders.*.ada.*": ["insert.ada.1"],
        "shop.orders.update.ada%20bee.*": ["update.ada%20bee.2"],
    }


async def test_moving_over(orders: Database, tmp_path: Path) -> None:
    """Beside its triggers, and once they are gone."""
    await orders.execute(ECTO_WATCH)
    options = ("-f", ROOT / "examples" / "nats.yaml", "--dsn", orders.dsn)
    assert (await tablewatcher("apply", *options)).code == 0
    ours = "SELECT tgname FROM pg_trigger WHERE tgname LIKE '00_tablewatcher%' ORDER BY 1"
    by_row = await orders.execute(ours)
    (query,) = re.findall(r"```sql\n(.*?)```", PAGE, re.DOTALL)
    for (statements,) in await orders.execute(query):
        await orders.execute(statements)
    left = "SELECT FROM pg_trigger WHERE tgname LIKE 'ew%' UNION ALL SELECT FROM pg_proc WHERE proname LIKE 'ew%'"
    assert await orders.execute(left) == []
    assert await orders.execute(ours) == by_row
    assert (await tablewatcher("apply", *options)).code == 0
    assert len(await orders.execute(ours)) == len(by_row) + 1, "inserts by statement"
