"""How fast the HTTP sink delivers, by itself: single events, and batches.

The receiver is a process of its own that does as little as HTTP allows, so that it is not what is measured. A rate
depends on who else is on the machine: `anchor` is measured beside every round and is the same requests over bare
sockets, written and read without looking at them. `..._of_core` is the rate by the processor time of this process
alone, which hardly depends on others.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import uvloop

from tablewatcher.event import Event
from tablewatcher.sinks.address import AddressPolicy
from tablewatcher.sinks.base import Outcome, Sink, Verdict
from tablewatcher.sinks.kinds import make_sink
from tablewatcher.spec import model

SECRETS = {"hook": {"whsec": "whsec_c2lnbmluZyBrZXkgb2YgYSBiZW5jaG1hcms="}}
NOTE = "a note of some forty characters, more"


class Keys:
    """The signing key of the benchmark."""

    def read(self, name: str) -> dict[str, str]:
        return SECRETS[name]

    def config_map(self, name: str) -> dict[str, str]:
        return SECRETS[name]


@contextmanager
def receiver() -> Iterator[int]:
    """The port of a receiver in a process of its own."""
    command = [sys.executable, str(Path(__file__).with_name("receiver.py"))]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield int(process.stdout.readline())
    finally:
        process.terminate()
        process.communicate()


def some_events(count: int, first: int = 1) -> list[Event]:
    """Events of `count` rows, about 500 bytes each."""
    return [_event(ring_id) for ring_id in range(first, first + count)]


def _event(ring_id: int) -> Event:
    event_id = hashlib.sha256(str(ring_id).encode()).hexdigest()[:32]
    sequence, now = f"000001-{ring_id:020d}", "2026-11-23T10:00:00.123456Z"
    after = {"id": ring_id, "status": "new", "total": 9.5, "note": NOTE}
    source = {"database": "shop", "schema": "public", "table": "orders", "txId": ring_id}
    content = {"action": "insert", "key": {"id": ring_id}, "after": after, "source": source}
    whole = {
        "specversion": "1.0",
        "id": event_id,
        "source": "/namespaces/bench/tablewatchers/bench",
        "type": "io.tablewatcher.row.inserted",
        "subject": f"public.orders/{ring_id}",
        "time": now,
        "datacontenttype": "application/json",
        "sequence": sequence,
        "partitionkey": str(ring_id),
        "data": content,
    }
    body = json.dumps(whole).encode()
    return Event(ring_id, event_id, "i", str(ring_id), None, now, 1_795_000_000.0, sequence, None, body)


def sink(port: int, batch: int, concurrency: int) -> Sink:
    """The sink as a manifest would have it, signed."""
    spec = model.WatcherSpec(
        "bench",
        "bench",
        model.Database("bench"),
        model.Table("public", "orders"),
        frozenset(model.Action),
        model.HttpSink(
            f"http://127.0.0.1:{port}/hook",
            signing=(model.SecretKey("hook", "whsec"),),
            batch=model.Batch(max_events=batch, max_bytes=1 << 20),
            concurrency=concurrency,
        ),
    )
    return make_sink(spec, Keys(), addresses=AddressPolicy())


async def deliver(made: Sink, calls: Sequence[Sequence[Event]]) -> tuple[float, float]:
    """Events a second by the clock, and by our processor time: as many calls at once as the sink takes."""
    waiting = iter(calls)
    await made.open()

    async def lane() -> None:
        for call in waiting:
            # A task a call, as the relay has it.
            outcomes = await asyncio.create_task(_one(made, call))
            assert all(outcome.verdict is Verdict.DELIVERED for outcome in outcomes), outcomes[0]

    async def _one(made: Sink, call: Sequence[Event]) -> Sequence[Outcome]:
        return await made.deliver(call)

    begin, spent = time.perf_counter(), time.process_time()
    await asyncio.gather(*(lane() for _ in range(made.limits.concurrency)))
    taken, spent = time.perf_counter() - begin, time.process_time() - spent
    await made.close()
    count = sum(map(len, calls))
    return count / taken, count / spent


class _Bare(asyncio.Protocol):
    """Writes the same request again whenever an answer has come."""

    def __init__(self, request: bytes, left: list[int], done: asyncio.Future[None]) -> None:
        self._request, self._left, self._done = request, left, done
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by class
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self._left[0] -= 1
        assert self._transport is not None
        if self._left[0] > 0:
            self._transport.write(self._request)
        elif not self._done.done():
            self._done.set_result(None)


async def anchor(port: int, requests: int, connections: int) -> float:
    """Requests a second over bare sockets: what receiver and machine allow."""
    body = some_events(1)[0].body
    request = b"POST /hook HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    loop = asyncio.get_running_loop()
    left, done = [requests], loop.create_future()
    begin = time.perf_counter()
    made = [
        await loop.create_connection(lambda: _Bare(request, left, done), "127.0.0.1", port) for _ in range(connections)
    ]
    await done
    taken = time.perf_counter() - begin
    for transport, _ in made:
        transport.close()
    return requests / taken


def measure(requests: int = 10_000, rounds: int = 3, concurrency: int = 16) -> dict[str, float]:
    """Medians over `rounds`: events a second of single requests and of batches of 500, and requests of the anchor."""
    found: dict[str, list[float]] = {}
    singles = [[event] for event in some_events(requests)]
    batches = [some_events(500, first=500 * nth) for nth in range(max(requests // 50, 20))]
    with receiver() as port:
        for _ in range(rounds):
            found.setdefault("anchor", []).append(uvloop.run(anchor(port, requests, concurrency)))
            for name, size, calls in (("single", 1, singles), ("batched", 500, batches)):
                rate, of_core = uvloop.run(deliver(sink(port, size, concurrency), calls))
                found.setdefault(name, []).append(rate)
                found.setdefault(f"{name}_of_core", []).append(of_core)
    return {name: statistics.median(values) for name, values in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--concurrency", type=int, default=16)
    options = parser.parse_args()
    for name, value in measure(options.requests, options.rounds, options.concurrency).items():
        print(f"{name:16} {value:>12,.0f}/s")


if __name__ == "__main__":
    main()
