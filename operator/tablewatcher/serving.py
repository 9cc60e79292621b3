"""Pages over HTTP, for probes and for those that scrape metrics.

Answered by threads of the standard library's server: another asyncio server would bring an HTTP client along, which
takes 10 MB in a process that may need none. What they tell is read on the event loop, which the watchers live on: an
answer is also a proof that the loop turns.
"""

from __future__ import annotations

import asyncio
import contextlib
import selectors
import socket
import sys
import threading
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from http import HTTPStatus
from socketserver import TCPServer, ThreadingMixIn
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server
from wsgiref.types import StartResponse, WSGIEnvironment

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

TEXT = "text/plain; charset=utf-8"
# A probe of Kubernetes waits five seconds.
_LOOP_SECONDS = 4.0
_MOST_AT_ONCE = 64

# Status, media type and body.
Answer = tuple[HTTPStatus, str, bytes]
_Request = socket.socket | tuple[bytes, socket.socket]  # as the library has it


def well() -> Answer:
    """Of `/healthz`: the process runs, and its loop turns."""
    return HTTPStatus.OK, TEXT, b"ok\n"


def metrics(registry: CollectorRegistry) -> Answer:
    """Of `/metrics`."""
    return HTTPStatus.OK, CONTENT_TYPE_LATEST, generate_latest(registry)


class PageServer:
    """Serves `pages`, by path; each is called on the event loop that runs now."""

    def __init__(self, pages: Mapping[str, Callable[[], Answer]]) -> None:
        self._pages = pages
        self._server: _Server | None = None
        self._loop = asyncio.get_running_loop()

    def start(self, host: str, port: int) -> None:
        """Listens. Raises OSError where the port is taken, or the host is none of ours."""
        kind = _ServerOfV6 if ":" in host else _Server
        self._server = make_server(host, port, self._answer, server_class=kind, handler_class=_Quiet)
        self._server.start()

    async def stop(self) -> None:
        """Stops listening."""
        if self._server is not None:
            await asyncio.to_thread(self._server.stop)

    def _answer(self, environment: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        page = self._pages.get(environment["PATH_INFO"])
        if page is None:
            status, kind, body = HTTPStatus.NOT_FOUND, TEXT, f"there are {', '.join(self._pages)}\n".encode()
        else:
            status, kind, body = self._on_the_loop(page)
        start(f"{status.value} {status.phrase}", [("Content-Type", kind), ("Content-Length", str(len(body)))])
        return [] if environment["REQUEST_METHOD"] == "HEAD" else [body]

    def _on_the_loop(self, page: Callable[[], Answer]) -> Answer:
        found: Future[Answer] = Future()

        def answer() -> None:
            try:
                found.set_result(page())
            except Exception as error:  # noqa: BLE001 - raised where it is waited for, which answers 500
                found.set_exception(error)

        try:
            self._loop.call_soon_threadsafe(answer)
            return found.result(_LOOP_SECONDS)
        except (TimeoutError, RuntimeError):
            return HTTPStatus.SERVICE_UNAVAILABLE, TEXT, b"the event loop does not answer\n"


class _Server(ThreadingMixIn, WSGIServer):
    """Waits for whoever comes, or for its end. `serve_forever` looks for its end twice a second instead: that is what a
    listener told to stop would wait for."""

    daemon_threads = True
    timeout = 0  # whoever came may have gone again
    request_queue_size = _MOST_AT_ONCE  # those that come together wait for a moment, and not for a second try
    _open: dict[object, None]

    def server_bind(self) -> None:
        """As the library's, which also asks name servers what we are called: the event loop would wait for them."""
        TCPServer.server_bind(self)
        host, self.server_port = self.server_address[:2]
        self.server_name = str(host)
        self.setup_environ()

    def start(self) -> None:
        self._open, self._lock = {}, threading.Lock()
        self._end, self._ended = socket.socketpair()
        self._thread = threading.Thread(target=self._serve, name="health", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Listens no more; answers that are under way are not waited for."""
        self._end.close()
        self._thread.join()
        self._ended.close()
        self.server_close()

    def process_request(self, request: _Request, client_address: object) -> None:
        """In a thread of its own. Whoever has been here longest makes way: each takes a thread and a descriptor."""
        with self._lock:
            self._open[request] = None
            oldest = next(iter(self._open)) if len(self._open) > _MOST_AT_ONCE else None
            # It is going: whoever comes before its thread has ended must choose another.
            self._open.pop(oldest, None)
        if isinstance(oldest, socket.socket):
            with contextlib.suppress(OSError):  # it has gone by itself
                oldest.shutdown(socket.SHUT_RDWR)
        super().process_request(request, client_address)

    def shutdown_request(self, request: _Request) -> None:
        """The end of one, whatever came of it."""
        with self._lock:
            self._open.pop(request, None)
        super().shutdown_request(request)

    def handle_error(self, request: _Request, client_address: object) -> None:
        """No line for a client that said nothing, or went away."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)

    def _serve(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self, selectors.EVENT_READ)
            selector.register(self._ended, selectors.EVENT_READ)
            while not any(key.fileobj is self._ended for key, _ in selector.select()):
                self.handle_request()


class _ServerOfV6(_Server):
    address_family = socket.AF_INET6


class _Quiet(WSGIRequestHandler):
    # A client that sends nothing must not keep its thread for ever.
    timeout = 30

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002 - as the base class has it
        """No line for each probe."""

    def address_string(self) -> str:
        """The address as it is: a look-up of its name would take time that a probe has not got."""
        return str(self.client_address[0])
