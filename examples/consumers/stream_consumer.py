"""A copy of the orders that every event changes exactly once, however often it arrives.

    pip install nats-py 'psycopg[binary]'
    NATS_URL=nats://127.0.0.1:4222 DATABASE_URL=postgresql://... COPY=orders.sqlite python stream_consumer.py

Delivery is at least once: after a fault events come again. Three things make that harmless:
- the `id` of each event is kept, and an event whose id is there is left out;
- the newest `sequence` of each order is kept: what was put aside and is sent later overwrites nothing newer;
- id, sequence and row are written in one transaction, and the message is acknowledged after that.

What an event cannot hold is read from the table: an order that is too large, and all of them after a gap.
"""

import asyncio
import json
import os
import sqlite3

import nats
import psycopg

# Ids may be forgotten when the stream has forgotten their events (its max_age).
TABLES = """
CREATE TABLE IF NOT EXISTS orders (id INTEGER PRIMARY KEY, status TEXT, total TEXT);
CREATE TABLE IF NOT EXISTS done (id TEXT PRIMARY KEY);
CREATE TABLE IF NOT EXISTS newest (key TEXT PRIMARY KEY, sequence TEXT NOT NULL);
"""


def read(number: int | None = None) -> list[tuple]:
    """That order, or all, as they are in the table now: events still to come may go back a step, and then forward."""
    with psycopg.connect(os.environ["DATABASE_URL"]) as database:
        if number is None:
            return database.execute("SELECT id, status, total::text FROM orders").fetchall()
        return database.execute("SELECT id, status, total::text FROM orders WHERE id = %s", [number]).fetchall()


def apply(copy: sqlite3.Connection, event: dict) -> str:
    """Brings the copy up to `event`; what became of it."""
    # `*` is no order's: an event about the whole table outdates whatever came before, of every order.
    key = event["partitionkey"] if "key" in event["data"] else "*"
    sequence = event["sequence"]
    with copy:
        if not copy.execute("INSERT OR IGNORE INTO done VALUES (?)", [event["id"]]).rowcount:
            return "repeat"
        (newest,) = copy.execute("SELECT max(sequence) FROM newest WHERE key IN (?, '*')", [key]).fetchone()
        if newest and sequence <= newest:
            return "outdated"
        copy.execute("INSERT OR REPLACE INTO newest VALUES (?, ?)", [key, sequence])
        return change(copy, event["data"])


def change(copy: sqlite3.Connection, data: dict) -> str:
    """Writes what the event says, or what the table says where the event cannot; the action."""
    action, key, rows = data["action"], data.get("key"), []
    if key is None:  # the table was truncated, or changes were missed and nobody knows which
        copy.execute("DELETE FROM orders")
        if action == "gap" or "partition" in data:  # of one partition alone: the others still have theirs
            rows = read()
    else:
        for old in data.get("before", key), key:
            copy.execute("DELETE FROM orders WHERE id = ?", [old["id"]])
        if data.get("truncated") and action != "delete":
            rows = read(key["id"])
        elif after := data.get("after"):
            rows = [(after["id"], after["status"], str(after["total"]))]
    copy.executemany("INSERT OR REPLACE INTO orders VALUES (?, ?, ?)", rows)
    return action


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
