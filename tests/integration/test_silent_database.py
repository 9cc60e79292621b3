"""A database that says nothing while its connections stand: whoever asks how a watcher does is told within seconds.

And one process of it, while all others answer: the listener goes on over another connection."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Callable, Iterator

import psycopg
import pytest
from prometheus_client import CollectorRegistry

from tablewatcher.controller.database import WatchedDatabase
from tablewatcher.controller.poll import Polls
from tablewatcher.controller.reconcile import PAUSE_SECONDS
from tablewatcher.controller.secret import SecretReader
from tablewatcher.errors import DatabaseError, Reason
from tablewatcher.listener.observe import Observer
from tablewatcher.listener.relay.sending import LONGEST_WAIT
from tablewatcher.listener.target import Target
from tablewatcher.listener.watch import Watch
from tablewatcher.metrics import Metrics
from tablewatcher.postgres.connection.session import Connection, connect
from tablewatcher.postgres.connection.unanswered import LOOK_SECONDS, Over, Patience, Unanswered
from tablewatcher.postgres.install.apply import apply
from tablewatcher.postgres.ring.cursor_log import LEASE_SECONDS, CursorLog, Lease
from tablewatcher.sinks.address import AddressPolicy
from tablewatcher.spec.model import HttpSink

from ..conftest import Database, HttpReceiver, poll
from .api_server import serving_secrets
from .capturing import names_of, spec_of
from .running import running_time
from .sinks.events import MemorySecrets

# Of what stands still, on a busy machine, beside what is waited for.
_SLACK = 2.0


@contextlib.contextmanager
def frozen(pids: list[int]) -> Iterator[None]:
    """Server processes that do nothing; their connections stay open."""
    try:
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


@contextlib.asynccontextmanager
async def frozen_at_rest(database: Database, pids: list[int]) -> AsyncIterator[None]:
    """Not in the middle of a statement: nobody can tell that from one that takes long."""
    busy = "SELECT count(*) FROM pg_stat_activity WHERE pid = ANY (%s) AND state <> 'idle'"
    while True:
        with frozen(pids):
            if await database.execute(busy, pids) == [(0,)]:
                yield
                return
        await asyncio.sleep(0.02)


async def backends(database: Database, application: str) -> list[int]:
    """Process ids of those that serve `application`."""
    query = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE %s"
    return [pid for (pid,) in await database.execute(query, f"{application}%")]


async def test_a_listener_says_so_and_is_well_again_by_itself(database: Database, http_receiver: HttpReceiver) -> None:
    """It said Forwarding for as long as that lasted: every part of it waited for an answer."""
    await database.execute("CREATE TABLE t (id int PRIMARY KEY)")
    spec, registry = spec_of(sink=HttpSink(http_receiver.url)), CollectorRegistry()
    await apply(database.dsn, spec, names_of(spec))
    target, observer = Target(lambda: database.dsn), Observer(spec, Metrics(registry), "here")
    watch = Watch(spec, names_of(spec), target, MemorySecrets(), observer, addresses=AddressPolicy())
    labels = {"watcher_namespace": "shop", "watcher": "w"}

    async def is_well() -> bool:
        connected = registry.get_sample_value("tablewatcher_listener_connected", labels)
        return (observer.ready, observer.reason, connected) == (True, Reason.FORWARDING, 1)

    async def is_told() -> bool:
        connected = registry.get_sample_value("tablewatcher_listener_connected", labels)
        return (observer.ready, observer.reason, connected) == (False, Reason.DATABASE_UNREACHABLE, 0)

    try:
        await poll(is_well, 40)
        with frozen(await backends(database, "tablewatcher listener")):
            async with running_time() as passed:
                await poll(is_told, 40)
            assert passed.seconds < LEASE_SECONDS + LONGEST_WAIT + _SLACK
        await poll(is_well, 40)
        await database.execute("INSERT INTO t VALUES (1)")
        await http_receiver.wait_for(1)
        (said,) = await database.execute("SELECT reason FROM tablewatcher.progress")
        assert said == ("Forwarding",)
    finally:
        await watch.stop()
        await target.close()


@pytest.mark.parametrize("role", ["reader", "writer", "wakeup"])
async def test_one_process_that_hangs_is_left_alone(database: Database, http_receiver: HttpReceiver, role: str) -> None:
    """For as long as it hung nothing was read, and no other listener took over; or no lease was proved.

    With the one that wakes nothing was read from some seconds on, for half a minute.
    """
    await database.execute("CREATE TABLE t (id int PRIMARY KEY)")
    spec = spec_of(sink=HttpSink(http_receiver.url))
    await apply(database.dsn, spec, names_of(spec))
    target, observer = Target(lambda: database.dsn), Observer(spec, Metrics(CollectorRegistry()), "here")
    watch = Watch(spec, names_of(spec), target, MemorySecrets(), observer, addresses=AddressPolicy())
    try:
        await poll(lambda: observer.ready, 40)
        hanging = await backends(database, f"tablewatcher listener {role}")

        async def is_replaced() -> bool:
            return len(await backends(database, f"tablewatcher listener {role}")) > len(hanging)

        async with frozen_at_rest(database, hanging):
            async with running_time() as passed:
                await poll(is_replaced, 40)
            assert passed.seconds < 4 * LOOK_SECONDS + _SLACK
            await database.execute("INSERT INTO t VALUES (1)")
            await http_receiver.wait_for(1, 40)
            await poll(lambda: observer.ready, 40)
    finally:
        await watch.stop()
        await target.close()


async def test_one_that_stands_by_ends_beside_a_database_that_says_nothing(
    database: Database, http_receiver: HttpReceiver
) -> None:
    """It has no lease to let go of, and waited until its connections were given up, after half a minute."""
    await database.execute("CREATE TABLE t (id int PRIMARY KEY)")
    spec = spec_of(sink=HttpSink(http_receiver.url))
    await apply(database.dsn, spec, names_of(spec))
    target, observer = Target(lambda: database.dsn), Observer(spec, Metrics(CollectorRegistry()), "here")
    async with connection(database) as other:
        active = CursorLog(other, asyncio.Lock(), names_of(spec), holder="there", sink_timeout=300)
        assert isinstance(await active.acquire(lambda _: False), Lease)
        watch = Watch(spec, names_of(spec), target, MemorySecrets(), observer, addresses=AddressPolicy())
        await poll(lambda: observer.ready, 40)
        assert "standing by" in observer.message
        with frozen(await backends(database, "tablewatcher listener")):
            await asyncio.sleep(1.5)  # longer than it sleeps between two looks
            async with running_time() as passed:
                await watch.stop()
                await target.close()
            assert passed.seconds < 20


@contextlib.asynccontextmanager
async def connection(database: Database) -> AsyncIterator[Connection]:
    found = await connect(database.dsn)
    try:
        yield found
    finally:
        await found.close()


async def test_a_statement_that_takes_long_comes_to_its_end(database: Database) -> None:
    """Its process works, or hangs: nobody can tell. Cut off for that, it has twice the time when it is tried again."""
    patience, times = Patience(LOOK_SECONDS / 2), 0
    while True:
        times += 1
        async with connection(database) as asked, connection(database) as other:
            ask = Over(other, asyncio.Lock()).idle
            looks = asyncio.create_task(Unanswered({asked: ask}, patience).watch())
            try:
                await asked.execute(f"SELECT pg_sleep({LOOK_SECONDS * 1.5})")
            except psycopg.OperationalError:
                with pytest.raises(DatabaseError, match="does not answer"):
                    await looks
                continue
            assert not looks.done()
            looks.cancel()
            break
    assert times > 1
    assert patience.seconds == LOOK_SECONDS / 2 * 2 ** (times - 1)


async def test_the_operator_says_so_before_it_looks_itself(database: Database, free_port: Callable[[], int]) -> None:
    """Which takes as long again, or, as here, finds that another connection is answered."""
    await database.execute("CREATE TABLE t (id int PRIMARY KEY)")
    spec, changed, polls = spec_of(), asyncio.Event(), Polls()
    async with serving_secrets({"secret": ({}, {"uri": database.dsn})}, free_port()) as cluster:
        reader = SecretReader(cluster, require_label=False)
        found = WatchedDatabase(reader, polls, names_of(spec), changed.set)
        await found.look(spec)

        async def has_read() -> bool:
            return found.subscription.report is not None

        async def is_well() -> bool:
            with contextlib.suppress(DatabaseError):
                await found.look(spec)
                return True
            return False

        try:
            await poll(has_read, 20)
            changed.clear()
            with frozen(await backends(database, "tablewatcher operator")):
                async with running_time() as passed:
                    await changed.wait()
                    with pytest.raises(DatabaseError, match="does not answer"):
                        await found.look(spec)
                assert passed.seconds + PAUSE_SECONDS * 5 / 4 < 8
                await poll(is_well, 20)
        finally:
            await found.close()
            await polls.close()
