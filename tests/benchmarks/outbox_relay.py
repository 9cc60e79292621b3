"""What stands beside the listener: a relay of a log table as most are written, in a process of its own.

    outbox_relay.py DSN nats://HOST:PORT
    outbox_relay.py DSN http://HOST:PORT/ EVENTS_A_REQUEST

It takes a page of rows away with DELETE ... RETURNING, sends them, and commits when all are acknowledged. On plain
asyncio, with nats-py's own `publish_async`; over HTTP with sixteen requests at once.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable

import aiohttp
import nats
import psycopg

PAGE = 1000
HTTP_PAGE = 16 * 500
REQUESTS = 16
POLL_SECONDS = 0.01
_TAKE = """
DELETE FROM bench_log WHERE id IN (
  SELECT id FROM bench_log WHERE NOT delivered ORDER BY at LIMIT %s FOR UPDATE SKIP LOCKED)
RETURNING id::text, payload::text
"""

Send = Callable[[list[bytes]], Awaitable[object]]


def body(event_id: str, payload: str) -> bytes:
    """An event by hand, with what the receiver of the benchmark counts."""
    return f'{{"specversion":"1.0","id":"{event_id}","data":{payload}}}'.encode()


async def relay(dsn: str, page: int, send: Send) -> None:
    async with await psycopg.AsyncConnection.connect(dsn) as connection:
        while True:
            async with connection.transaction():
                rows = await (await connection.execute(_TAKE, [page])).fetchall()
                await send([body(*row) for row in rows])
            if not rows:
                await asyncio.sleep(POLL_SECONDS)


async def to_nats(dsn: str, url: str) -> None:
    async with await nats.connect(url) as client:
        jetstream = client.jetstream()

        async def send(bodies: list[bytes]) -> None:
            await asyncio.gather(*[await jetstream.publish_async("bench.log", each) for each in bodies])

        await relay(dsn, PAGE, send)


async def to_http(dsn: str, url: str, size: int) -> None:
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=REQUESTS)) as session:

        async def post(part: list[bytes]) -> None:
            data = part[0] if size == 1 else b"[" + b",".join(part) + b"]"
            async with session.post(url, data=data) as answer:
                answer.raise_for_status()

        async def send(bodies: list[bytes]) -> None:
            await asyncio.gather(*(post(bodies[first : first + size]) for first in range(0, len(bodies), size)))

        await relay(dsn, PAGE if size == 1 else HTTP_PAGE, send)


def main(dsn: str, url: str, size: str = "1") -> None:
    asyncio.run(to_nats(dsn, url) if url.startswith("nats:") else to_http(dsn, url, int(size)))


if __name__ == "__main__":
    main(*sys.argv[1:])
