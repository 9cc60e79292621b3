"""One watcher in a listener of this process: what it keeps in the database, reads ahead, and asks when idle."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from tablewatcher.listener import watch
from tablewatcher.listener.decide import turning
from tablewatcher.listener.decide.pace import LARGEST_PAGE
from tablewatcher.listener.observe import Observer
from tablewatcher.listener.relay import flow, keeping
from tablewatcher.listener.target import Target
from tablewatcher.listener.watch import Watch
from tablewatcher.metrics import Metrics
from tablewatcher.postgres.install.apply import apply
from tablewatcher.postgres.parked import Held, Parked, Row
from tablewatcher.postgres.ring.lineage import Lineage
from tablewatcher.postgres.ring.upkeep import Gauge, Ring
from tablewatcher.sinks.address import AddressPolicy
from tablewatcher.spec.model import Backoff, Batch, DeliveryPolicy, HttpSink

from ..conftest import Database, HttpReceiver, ReceivedRequest, poll
from .capturing import names_of, spec_of
from .sinks.events import MemorySecrets


@dataclass(frozen=True, slots=True)
class Running:
    """A watcher of table `t` that runs, and its metrics."""

    database: Database
    rings: tuple[str, ...]
    registry: CollectorRegistry

    def sample(self, name: str, **labels: str) -> float:
        """A metric of the watcher, 0 where nothing was counted yet."""
        known = {"watcher_namespace": "shop", "watcher": "w", **labels}
        return self.registry.get_sample_value(f"tablewatcher_{name}", known) or 0.0

    async def slot(self) -> int:
        """The one that is written."""
        turned = self.rings[0].replace("ring_", "slot_")[:-2]
        return int((await self.database.execute(f"SELECT last_value FROM {turned}"))[0][0])

    async def held(self) -> int:
        """Rows in the first slot."""
        return int((await self.database.execute(f"SELECT count(*) FROM {self.rings[0]}"))[0][0])


Run = Callable[..., Awaitable[Running]]


@pytest.fixture
async def run(database: Database, http_receiver: HttpReceiver) -> AsyncIterator[Run]:
    """`await run(**fields of the spec)`: forwards the inserts into `t`, up to a hundred a request."""
    await database.execute("CREATE TABLE t (id int PRIMARY KEY, v text)")
    async with AsyncExitStack() as stack:

        async def start(before: str = "", **fields: Any) -> Running:
            sink = HttpSink(http_receiver.url, batch=Batch(max_events=100), concurrency=4)
            spec = spec_of(columns=("v",), sink=sink, **fields)
            names, registry = names_of(spec), CollectorRegistry()
            await apply(database.dsn, spec, names)
            if before:
                await database.execute(before)
            target = Target(lambda: database.dsn)
            stack.push_async_callback(target.close)
            observer = Observer(spec, Metrics(registry), "here")
            watch = Watch(spec, names, target, MemorySecrets(), observer, addresses=AddressPolicy())
            stack.push_async_callback(watch.stop)
            return Running(database, tuple(f"tablewatcher.{ring}" for ring in names.rings), registry)

        yield start


async def test_delivered_rows_stay_as_long_as_they_are_wanted(
    database: Database, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever turns the ring but its bound; then they go."""
    monkeypatch.setattr(turning, "MOST_TURN_SECONDS", 0.0)
    monkeypatch.setattr(keeping, "UPKEEP_SECONDS", 0.01)
    running = await run()
    await database.execute("INSERT INTO t VALUES (1, 'kept')")
    await poll(lambda: running.sample("events_delivered_total", action="insert", sink="http") == 1, 40)
    await poll(lambda: at_last(running.slot, 2), 40)
    # The next turn would be into the slot that the row is in.
    refused = database.server.log.read_text().count("TW001")
    for _ in range(50):
        assert (await running.slot(), await running.held()) == (2, 1)
        await asyncio.sleep(0.02)
    # It is tried every five seconds, for a year where they are wanted for so long: no errors in somebody's log.
    assert database.server.log.read_text().count("TW001") == refused
    await database.execute(f"UPDATE {running.rings[0]} SET at = at - interval '11 minutes'")
    await poll(lambda: is_empty(running.held), 40)


async def test_what_was_rolled_back_is_not_told_as_waiting(
    database: Database, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its ids are drawn and come to nothing. A listener that is woken by who commits does not look for that."""
    monkeypatch.setattr(keeping, "UPKEEP_SECONDS", 0.01)
    running = await run()
    for number in (1, 2):
        await database.execute(f"INSERT INTO t VALUES ({number}, 'kept')")
        await poll(
            lambda number=number: running.sample("events_delivered_total", action="insert", sink="http") == number, 40
        )
        await asyncio.sleep(0.5)  # by now who commits is asked to wake it
    await database.execute("BEGIN; INSERT INTO t SELECT g, 'gone' FROM generate_series(3, 40) AS g; ROLLBACK")
    await asyncio.sleep(0.5)
    assert running.sample("ring_rows") == 0


async def test_a_long_log_of_cursors_takes_no_delivered_rows_away(
    database: Database, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten changes a second fill one within half an hour. What it is turned for are not the rows beside it."""
    monkeypatch.setattr(turning, "MOST_TURN_SECONDS", 1e9)
    monkeypatch.setattr(keeping, "UPKEEP_SECONDS", 0.01)
    running = await run()
    await database.execute("INSERT INTO t VALUES (1, 'kept')")
    await poll(lambda: running.sample("events_delivered_total", action="insert", sink="http") == 1, 40)
    for written, ring in enumerate(running.rings):
        await poll(lambda written=written: at_last(running.slot, written), 40)
        # Of an epoch before all: nobody reads them.
        await database.execute(
            f"INSERT INTO {ring.replace('ring_', 'cursor_')} (epoch, n, holder, expires_at, prev, after_id)"
            " SELECT 1, n, repeat('x', 50), '-infinity', '1:1:', 0 FROM generate_series(1, 30000) AS n"
        )
    for _ in range(50):
        assert (await running.slot(), await running.held()) == (2, 1)
        await asyncio.sleep(0.02)
    await database.execute(f"UPDATE {running.rings[0]} SET at = at - interval '11 minutes'")
    await poll(lambda: at_last(running.slot, 0), 40)
    assert not await running.held()


async def test_a_ring_that_somebody_else_has_turned_goes_on_turning(
    database: Database, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A listener that is stopped in the midst of turning it does the rest when it goes on, long after its lease has
    ended. Its successor held the slot before that for the one that is written, and the ring was never emptied again."""
    monkeypatch.setattr(turning, "MOST_TURN_SECONDS", 0.0)
    monkeypatch.setattr(keeping, "UPKEEP_SECONDS", 0.01)
    running = await run()
    await database.execute("INSERT INTO t VALUES (1, 'kept')")
    await poll(lambda: running.sample("events_delivered_total", action="insert", sink="http") == 1, 40)
    await poll(lambda: at_last(running.slot, 2), 40)
    await database.execute(f"SELECT setval('{running.rings[0].replace('ring_', 'slot_')[:-2]}', 0)")
    await database.execute("INSERT INTO t VALUES (2, 'newer')")
    await poll(lambda: running.sample("events_delivered_total", action="insert", sink="http") == 2, 40)
    for ring in running.rings:
        await database.execute(f"UPDATE {ring} SET at = at - interval '11 minutes'")
    await poll(lambda: is_empty(running.held), 40)


async def at_last(slot: Callable[[], Awaitable[int]], wanted: int) -> bool:
    return await slot() == wanted


async def is_empty(held: Callable[[], Awaitable[int]]) -> bool:
    return not await held()


async def test_what_is_read_while_the_ring_is_looked_at(
    database: Database, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is newer than the look, which is no sign that the database was set back."""
    monkeypatch.setattr(keeping, "UPKEEP_SECONDS", 0.01)
    look, ids = Ring.gauge, iter(range(3))

    async def late(ring: Ring) -> Gauge:
        found = await look(ring)
        for each in ids:
            await database.execute(f"INSERT INTO t VALUES ({each}, 'meanwhile')")
            await poll(lambda each=each: running.sample("events_captured_total", action="insert") > each, 40)
        return found

    monkeypatch.setattr(Ring, "gauge", late)
    running = await run()
    await poll(lambda: running.sample("events_delivered_total", action="insert", sink="http") == 3, 40)
    cursors = running.rings[0].replace("ring_", "cursor_")
    await asyncio.sleep(0.5)  # to begin anew takes less
    # Of the ring, as it was made, and of one lease.
    assert await database.execute(f"SELECT max(epoch) - min(epoch) FROM {cursors}") == [(1,)]


async def test_no_more_is_read_than_can_be_sent_soon(run: Run, http_receiver: HttpReceiver) -> None:
    """Of a big backlog before an endpoint that takes nothing for now."""
    rows, open_now = 12_000, asyncio.Event()

    async def slow(_: object) -> int:
        await open_now.wait()
        return 204

    http_receiver.respond = slow
    running = await run(f"INSERT INTO t SELECT g, repeat('x', 200) FROM generate_series(1, {rows}) AS g")
    await http_receiver.wait_for(4, 40)
    read = []
    while len(read) < 20 or read[-1] != read[-20]:
        read.append(running.sample("events_captured_total", action="insert"))
        await asyncio.sleep(0.05)
    # Two pages are held; with the third it was seen that there is room for no more.
    assert 0 < read[-1] <= 3 * LARGEST_PAGE
    open_now.set()
    await poll(lambda: running.sample("events_delivered_total", action="insert", sink="http") == rows, 60)


async def test_nothing_is_sent_once_the_lease_is_not_proved(
    database: Database, run: Run, http_receiver: HttpReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By then another listener may have it. What is under way ends; what waits behind it is sent after the next proof.

    Somebody locks the tables that the proofs are written to, as a failing disk or network would.
    """
    seconds, answering = 1.0, asyncio.Event()
    monkeypatch.setattr(flow, "LEASE_SECONDS", seconds)

    async def first_is_slow(request: ReceivedRequest) -> int:
        if request.number == 0:
            await answering.wait()
        return 204

    http_receiver.respond = first_is_slow
    running = await run()
    await database.execute("INSERT INTO t VALUES (1, 'first')")
    await http_receiver.wait_for(1, 40)
    await database.execute("UPDATE t SET v = 'second'")
    await poll(lambda: running.sample("events_captured_total", action="update") == 1, 40)
    cursors = ", ".join(ring.replace("ring_", "cursor_") for ring in running.rings)
    async with await database.connect() as hindering, hindering.transaction():
        await hindering.execute(f"LOCK TABLE {cursors} IN ACCESS EXCLUSIVE MODE".encode())
        await asyncio.sleep(seconds + 0.5)
        answering.set()
        await poll(lambda: running.sample("events_delivered_total", action="insert", sink="http") == 1, 40)
        await asyncio.sleep(1)
        assert len(http_receiver.requests) == 1
    await http_receiver.wait_for(2, 40)


async def test_who_may_not_send_does_not_look_for_what_to_send(
    run: Run, database: Database, http_receiver: HttpReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever is due for another attempt while the lease is not proved."""
    monkeypatch.setattr(flow, "LEASE_SECONDS", 0.5)
    look, looks = Observer.database, 0

    def counted(observer: Observer, *, answers: bool) -> None:
        nonlocal looks
        looks += 1
        look(observer, answers=answers)

    monkeypatch.setattr(Observer, "database", counted)
    http_receiver.respond = lambda _: 500
    running = await run(
        "INSERT INTO t VALUES (1, 'refused')", delivery=DeliveryPolicy(backoff=Backoff(initial_milliseconds=1))
    )
    await http_receiver.wait_for(2, 40)
    cursors = ", ".join(ring.replace("ring_", "cursor_") for ring in running.rings)
    async with await database.connect() as hindering, hindering.transaction():
        await hindering.execute(f"LOCK TABLE {cursors} IN ACCESS EXCLUSIVE MODE".encode())
        await asyncio.sleep(1.0)
        before = looks
        await asyncio.sleep(0.5)
        assert looks - before < 50


async def test_what_is_put_aside_without_end_keeps_no_lease_from_being_proved(
    database: Database, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a row that changes much, more comes while some of it is written down."""
    monkeypatch.setattr(flow, "LEASE_SECONDS", 2.0)
    write, changes, connected = Parked.write, iter(range(15)), list[float]()

    async def meanwhile(parked: Parked, epoch: int, rows: Sequence[Row]) -> Held | None:
        found = await write(parked, epoch, rows)
        if (change := next(changes, None)) is not None:
            await database.execute(f"UPDATE t SET v = '{change}'")
            await poll(lambda: running.sample("events_captured_total", action="update") > change, 40)
            await asyncio.sleep(0.2)
            connected.append(running.sample("listener_connected"))
        return found

    monkeypatch.setattr(Parked, "write", meanwhile)
    running = await run(
        "INSERT INTO tablewatcher.parked"
        " (hash, ring_id, event_id, op, key, time, captured_at, sequence, data, attempts, reason, message)"
        " SELECT hash, 0, '', 'u', '1', '', 0, '', '{}', 1, '', '' FROM tablewatcher.watcher"
    )
    await database.execute("INSERT INTO t VALUES (1, '')")
    await poll(lambda: len(connected) == 15, 40)
    assert connected == [1] * 15


async def test_a_connection_that_has_broken_often_is_made_again_at_once(
    database: Database, run: Run, http_receiver: HttpReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where all was well in between. A listener runs for months."""
    monkeypatch.setattr(watch, "_RECONNECT", Backoff(initial_milliseconds=100, max_seconds=60))
    monkeypatch.setattr(watch, "_LONG_SECONDS", 0.0)
    await run()
    for number in range(9):
        await database.execute(f"INSERT INTO t VALUES ({number}, 'x')")
        text = f'"after":{{"id":{number},'.encode()
        await poll(lambda text=text: any(text in request.body for request in http_receiver.requests), 6)
        await database.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database()"
            " AND application_name LIKE 'tablewatcher listener%'"
        )


async def test_a_lease_counts_from_when_it_was_asked_for(
    database: Database, run: Run, http_receiver: HttpReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What comes between that and the first send may take long, where the network stands still, say."""
    seconds, is_over = 1.0, asyncio.Event()
    monkeypatch.setattr(flow, "LEASE_SECONDS", seconds)
    tell = Lineage.generation
    async with await database.connect() as hindering, hindering.transaction():

        async def late(lineage: Lineage, *about: Any) -> int:
            found = await tell(lineage, *about)
            ((cursors,),) = await database.execute(
                "SELECT string_agg('tablewatcher.' || relname, ', ') FROM pg_class WHERE relname ~ '^cursor_.*_[012]$'"
                " AND relkind = 'r'"
            )
            await hindering.execute(f"LOCK TABLE {cursors} IN ACCESS EXCLUSIVE MODE".encode())
            await asyncio.sleep(seconds + 0.5)
            is_over.set()
            return found

        monkeypatch.setattr(Lineage, "generation", late)
        running = await run("INSERT INTO t VALUES (1, 'waits')")
        await asyncio.wait_for(is_over.wait(), 40)
        await poll(lambda: running.sample("events_captured_total", action="insert") == 1, 40)
        await asyncio.sleep(0.5)
        assert http_receiver.requests == []
    await http_receiver.wait_for(1, 40)


async def test_a_watcher_without_changes_asks_seldom(database: Database, run: Run) -> None:
    """Some five times a second, all that it does counted, where there may be hundreds of watchers."""
    running = await run()
    await database.execute("INSERT INTO t VALUES (1, 'last')")
    await poll(lambda: running.sample("events_delivered_total", action="insert", sink="http") == 1, 40)
    await asyncio.sleep(1.5)

    async def transactions() -> int:
        found = await database.execute(
            "SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = current_database()"
        )
        return int(found[0][0])

    before, seconds = await transactions(), 5
    await asyncio.sleep(seconds)
    asked = await transactions() - before
    assert seconds / 2 < asked < 12 * seconds
