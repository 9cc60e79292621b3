"""A copy of the orders that every event changes exactly once, however often it arrives.

    pip install nats-py
    NATS_URL=nats://127.0.0.1:4222 COPY=orders.sqlite python stream_consumer.py

Delivery is at least once: after a fault events come again. Two things make that harmless:
- the newest `sequence` of each order is kept beside it, and an event that is not above it is left out;
- row and sequence are written in one transaction, and the message is acknowledged after that.
"""

import asyncio
import json
import os
import sqlite3

import nats

TABLES = """
CREATE TABLE IF NOT EXISTS orders (id INTEGER PRIMARY KEY, status TEXT, total TEXT);
CREATE TABLE IF NOT EXISTS newest (key TEXT PRIMARY KEY, sequence TEXT NOT NULL);
"""


def apply(copy: sqlite3.Connection, event: dict) -> str:
    """Brings the copy up to `event`; what became of it."""
    if event["type"] == "io.tablewatcher.gap":
        return "gap: read the whole table again"  # and do it, where a copy must be complete
    key, sequence = event["partitionkey"], event["sequence"]
    with copy:
        known = copy.execute("SELECT sequence FROM newest WHERE key = ?", [key]).fetchone()
        if known and sequence <= known[0]:
            return "repeat"
        after, before = event["data"].get("after"), event["data"].get("before")
        if before:
            copy.execute("DELETE FROM orders WHERE id = ?", [before["id"]])
        if after:
            row = [after["id"], after["status"], str(after["total"])]
            copy.execute("INSERT OR REPLACE INTO orders VALUES (?, ?, ?)", row)
        copy.execute("INSERT OR REPLACE INTO newest VALUES (?, ?)", [key, sequence])
        return event["data"]["action"]


async def main() -> None:
    copy = sqlite3.connect(os.environ["COPY"])
    copy.executescript(TABLES)
    client = await nats.connect(os.environ["NATS_URL"])
    # Durable: started again, it goes on where it was.
    events = await client.jetstream().pull_subscribe("shop.public.orders.>", durable="orders-copy")
    while True:
        try:
            messages = await events.fetch(100, timeout=5)
        except nats.errors.TimeoutError:
            continue
        for message in messages:
            # Numbers as text: JSON has no decimals, a total must not turn into a binary fraction.
            event = json.loads(message.data, parse_float=str)
            print(apply(copy, event), event["subject"], flush=True)
            await message.ack()


if __name__ == "__main__":
    asyncio.run(main())
