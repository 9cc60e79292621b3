"""Three nats-servers that make one JetStream cluster, each of which may be killed and started again."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import nats
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error
from nats.js.api import StreamConfig

from tablewatcher.embedded import free_port

from .servers import NatsServer

SIZE = 3
# For an answer: where nobody leads, nobody answers, and to ask again is how to see that somebody does.
PATIENCE = 0.5


class NatsCluster:
    """`servers` by name. Streams are made with a copy on each."""

    def __init__(self, store: Path) -> None:
        ports = [free_port() for _ in range(SIZE)]
        routes = ", ".join(f'"nats://127.0.0.1:{port}"' for port in ports)
        self.servers: dict[str, NatsServer] = {}
        for number, port in enumerate(ports):
            name = f"n{number}"
            (store / name).mkdir()
            config = f"cluster {{name: shop, listen: 127.0.0.1:{port}, routes: [{routes}]}}"
            # Ten seconds unless told otherwise.
            config += "\nlame_duck_grace_period: 1s"
            self.servers[name] = NatsServer(store / name, f"server_name: {name}\n{config}")

    @property
    def urls(self) -> tuple[str, ...]:
        return tuple(server.url for server in self.servers.values())

    @asynccontextmanager
    async def client(self) -> AsyncIterator[Client]:
        async def ignore(_: Exception) -> None:
            """Servers go away on purpose."""

        made = await nats.connect(list(self.urls), error_cb=ignore, max_reconnect_attempts=-1, reconnect_time_wait=0.05)
        try:
            yield made
        finally:
            await made.close()

    async def start(self, stream: StreamConfig) -> None:
        """Start all, and make `stream` once there is a leader to make it."""
        for server in self.servers.values():
            server.start()
        async with self.client() as client:
            await _until_done(lambda: client.jetstream(timeout=PATIENCE).add_stream(stream))

    async def leader(self, stream: str) -> str:
        """The name of the server that leads `stream`."""
        async with self.client() as client:

            async def ask() -> str:
                leads = (await client.jetstream(timeout=PATIENCE).stream_info(stream)).cluster.leader
                if not leads:
                    raise Error("no leader")
                return leads

            return await _until_done(ask)

    async def stored(self, stream: str) -> list[Msg]:
        """Every message of `stream` in its order, once all copies are level. Read from the beginning after a fault."""
        async with self.client() as client:
            jetstream = client.jetstream(timeout=2 * PATIENCE)

            async def level() -> int:
                found = await jetstream.stream_info(stream)
                copies = found.cluster.replicas or []
                if not found.cluster.leader or len(copies) != SIZE - 1 or not all(copy.current for copy in copies):
                    raise Error("the copies are not level")
                return found.state.messages

            async def read() -> list[Msg]:
                count = await level()
                # Needs the leader of the whole cluster as well, which may still be missing, and then nobody answers.
                subscription = await jetstream.subscribe(">", stream=stream, ordered_consumer=True)
                try:
                    return [await subscription.next_msg(10) for _ in range(count)]
                finally:
                    await subscription.unsubscribe()

            return await _until_done(read)

    async def step_down(self, stream: str) -> None:
        """Have the leader of `stream` hand over."""
        async with self.client() as client:
            await _until_done(lambda: client.request(f"$JS.API.STREAM.LEADER.STEPDOWN.{stream}", b"", timeout=PATIENCE))

    def kill(self) -> None:
        for server in self.servers.values():
            server.kill()


async def _until_done(step: Callable[[], Awaitable[Any]], seconds: float = 90) -> Any:
    """The result of `step`, tried again while the cluster has no leader."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return await step()
        except Error:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.2)
