"""A cache of orders that is never stale for long: what changes is dropped, and read again when it is asked for.

    pip install nats-py 'psycopg[binary]'
    NATS_URL=nats://127.0.0.1:4222 DATABASE_URL=postgresql://... python cache_refresh.py

Every copy of this program has its own cache, so each needs every event from now on and none from before: an ordered
consumer, which leaves nothing behind on the server. A repeat drops an entry once more, which does no harm.
"""

import asyncio
import json
import os

import nats
import psycopg
from nats.js.api import ConsumerConfig, DeliverPolicy

cache: dict[str, tuple] = {}


async def order(database: psycopg.AsyncConnection, number: str) -> tuple | None:
    """An order, from the cache if it is there."""
    if number not in cache:
        cursor = await database.execute("SELECT id, status, total FROM orders WHERE id = %s", [number])
        if (row := await cursor.fetchone()) is None:
            return None
        cache[number] = row
    return cache[number]


def forget(event: dict) -> None:
    """Drops what the event says has changed."""
    key = event["data"].get("key")
    if key is None:
        cache.clear()  # the table was truncated, or changes were missed (a gap) and nobody knows which
        return
    for row in event["data"].get("before", key), key:
        cache.pop(str(row["id"]), None)  # the old key too, where the key itself was changed


async def main() -> None:
    client = await nats.connect(os.environ["NATS_URL"])
    database = await psycopg.AsyncConnection.connect(os.environ["DATABASE_URL"], autocommit=True)
    events = await client.jetstream().subscribe(
        "shop.public.orders.>", ordered_consumer=True, config=ConsumerConfig(deliver_policy=DeliverPolicy.NEW)
    )
    print("watching", flush=True)
    async for message in events.messages:
        event = json.loads(message.data)
        forget(event)
        # A web server would ask for an order when somebody looks at it; here that is at once.
        key = event["data"].get("key")
        print(event["type"], await order(database, str(key["id"])) if key else "everything", flush=True)


if __name__ == "__main__":
    asyncio.run(main())
