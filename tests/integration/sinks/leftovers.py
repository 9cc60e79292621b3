"""A program: a sink that is busy while its server dies again and again, and what is left when all has ended.

It runs as a process of its own, since what is left may keep the event loop from ever closing.
"""

from __future__ import annotations

import asyncio
import faulthandler
import os
import socket
import sys
from pathlib import Path

import uvloop

from tablewatcher.sinks.base import Verdict
from tablewatcher.sinks.nats import NatsSink

from .conftest import add_stream, nats_sink
from .events import event, events
from .servers import NatsServer

DEATHS = 9
CALLERS = 4


async def _busy(sink: NatsSink, first: int, stop: asyncio.Event) -> None:
    batch = events(200, first=first)
    while not stop.is_set():
        await sink.deliver(batch)


async def _delivered(sink: NatsSink, ring_id: int) -> None:
    probe = [event(ring_id)]
    while (await sink.deliver(probe))[0].verdict is not Verdict.DELIVERED:
        pass


async def _lose_connections(server: NatsServer) -> None:
    await add_stream(server)
    # Beside it one that takes connections and says nothing: each new connection may begin there.
    silent = socket.create_server(("127.0.0.1", 0))
    sink = nats_sink(server.url)
    sink._login.servers = (server.url, f"nats://127.0.0.1:{silent.getsockname()[1]}")
    await sink.open()
    stop = asyncio.Event()
    callers = [asyncio.ensure_future(_busy(sink, 1 + 200 * caller, stop)) for caller in range(CALLERS)]
    for death in range(DEATHS):
        server.kill()
        server.start()
        await _delivered(sink, 10_000 + death)
    stop.set()
    await asyncio.gather(*callers)
    await sink.close()
    silent.close()


def _sockets() -> set[str]:
    links = (os.path.join("/proc/self/fd", number) for number in os.listdir("/proc/self/fd"))
    return {os.readlink(link) for link in links if os.path.islink(link) and "socket:" in os.readlink(link)}


async def _left(server: NatsServer) -> list[object]:
    """The tasks and sockets that were not there before."""
    before = _sockets()
    await _lose_connections(server)
    for _ in range(20):  # a transport that was cut lets go of its socket in the next turns of the event loop
        await asyncio.sleep(0)
    return [*(asyncio.all_tasks() - {asyncio.current_task()}), *(_sockets() - before)]


def main(store: str) -> None:
    server = NatsServer(Path(store))
    server.start()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        left = runner.run(_left(server))
        server.kill()
    sys.exit(f"left: {left}" if left else 0)


if __name__ == "__main__":
    faulthandler.enable()
    main(sys.argv[1])
