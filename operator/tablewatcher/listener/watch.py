"""One watcher's life in the listener: connect, take the lease, relay; and again after every fault."""

from __future__ import annotations

import asyncio
import contextlib
import random

import structlog

from ..errors import DatabaseError, Reason, TableWatcherError
from ..naming import WatcherNames
from ..postgres.connection.pooling import Pooling
from ..postgres.database import Session
from ..postgres.drift import Drift, remedy
from ..postgres.parked import Parked
from ..postgres.requests import Requests
from ..postgres.ring.cursor_log import CursorLog, Held, Lease, LeaseLost
from ..postgres.ring.gaps import Gaps
from ..postgres.ring.history import History
from ..postgres.ring.lineage import Lineage, Read
from ..postgres.ring.outbox import Outbox
from ..postgres.ring.upkeep import Ring
from ..sinks.address import AddressPolicy
from ..sinks.base import Sink
from ..sinks.kinds import make_sink
from ..sinks.shared_look import SharedLooks
from ..spec.model import Backoff, WatcherSpec
from ..spec.secrets import Secrets
from .decide.retry import delay
from .holder import is_dead, this_process
from .observe import Observer
from .relay.flow import Channels, Flow
from .relay.relay import Relay
from .target import Target

log = structlog.get_logger("tablewatcher.listener")

# For connecting again, to the database or to a sink that cannot even be made; deliveries have the watcher's own.
_RECONNECT = Backoff(initial_milliseconds=250, max_seconds=5)
# What ends after so long had gone well: the wait begins anew, however often that has been so before.
_LONG_SECONDS = 30.0
_WAIT_SECONDS = 1.0
# For one more attempt to release the lease, where the database was lost and we are told to end.
_FAREWELL_SECONDS = 5.0


class Watch:
    """Runs one watcher until it is stopped."""

    def __init__(
        self,
        spec: WatcherSpec,
        names: WatcherNames,
        target: Target,
        secrets: Secrets,
        observer: Observer,
        *,
        addresses: AddressPolicy,
        looks: SharedLooks | None = None,
    ) -> None:
        self.spec = spec
        self.observer = observer
        self._names = names
        self._target = target
        self._secrets = secrets
        self._addresses = addresses
        self._looks = looks
        self._stop = asyncio.Event()
        self._told = float("inf")
        # Whether the lease may be ours, and whether nothing has begun but the way to it.
        self._owns = self._begins = False
        self._read = Read()
        self._task = asyncio.create_task(self._run(), name=spec.qualified_name)

    async def stop(self) -> None:
        """Drains, commits, releases the lease."""
        self._told = asyncio.get_running_loop().time()
        self._stop.set()
        await asyncio.wait([self._task], timeout=_FAREWELL_SECONDS)
        if self._begins and not self._owns:
            # It waits for a database that says nothing, and has nothing to drain and no lease to let go of. Nobody
            # waits for the end of what is cancelled, which may take long: it comes when the connection is closed.
            self._task.cancel()
        else:
            await self._task

    async def _run(self) -> None:
        failures, clock = 0, asyncio.get_running_loop().time
        while not self._stop.is_set():
            began = clock()
            try:
                await self._serve()
                failures = 0
                continue
            except LeaseLost:
                self._owns = False
                self.observer.unleased(Reason.RECONCILING, "another listener has taken over")
                continue
            except TableWatcherError as error:
                reason, message = error.reason, error.message
            except Exception as error:
                log.exception("unexpected fault; trying again", watcher=self.spec.qualified_name)
                reason, message = Reason.RECONCILING, f"unexpected fault: {type(error).__name__}"
            failures = 1 if clock() - began > _LONG_SECONDS else failures + 1
            self.observer.unleased(reason, message)
            await self._pause(delay(_RECONNECT, failures, random.uniform(0.5, 1.0)))  # noqa: S311
        if self._owns:
            await self._let_go()

    async def _let_go(self) -> None:
        """Releases a lease that is still ours, if the database is back: else a successor waits until it runs out.

        Calls to the sink have been cut off with the connection. What of them arrives late are repeats: the successor
        sends the same events, since the cursor stays where it is.
        """
        with contextlib.suppress(TableWatcherError, TimeoutError):
            async with asyncio.timeout(_FAREWELL_SECONDS):
                # It may have come back since an attempt that failed just before we were told to end.
                session = await self._target.session(since=self._told)
                cursor = CursorLog(
                    session.writer, session.writer_lock, self._names, holder=this_process(), sink_timeout=0
                )
                await Lineage(session.writer, session.writer_lock, self._names).refuse_copy()
                found = await cursor.acquire(is_dead)
                if isinstance(found, Lease):
                    await cursor.commit(found.epoch, found.position, release=True)

    async def _serve(self) -> None:
        self._begins = True
        session = await self._target.session()
        if not await session.installed(self._names):
            self.observer.unleased(
                Reason.RECONCILING,
                f"nothing is applied for {self._names.identity} in the database yet; waiting: {remedy(self.spec)}",
            )
            await self._pause(_WAIT_SECONDS)
            return
        sink = make_sink(self.spec, self._secrets, addresses=self._addresses, looks=self._looks)
        try:
            await self._serve_with(session, sink)
        finally:
            self._begins = False
            await sink.close()

    async def _serve_with(self, session: Session, sink: Sink) -> None:
        cursor = CursorLog(
            session.writer, session.writer_lock, self._names, holder=this_process(), sink_timeout=sink.timeout
        )
        lineage = Lineage(session.writer, session.writer_lock, self._names)
        await lineage.refuse_copy()
        lease = await self._lease(session, cursor)
        if lease is None:
            return
        self._begins = False
        generation = await lineage.generation(cursor.slot, self._read)
        if generation > self._read.generation:
            self._read = Read(generation)
        polls = session.pooling is Pooling.TRANSACTION
        self.observer.leased(lease.epoch, lambda progress: session.report(self._names, progress), polls=polls)
        flow = Flow(self.spec, lease, self._channels(session, cursor, sink, lease, generation), self.observer)
        try:
            with session.idle.member(self._names), self.observer.behind.delivering(lambda: flow.delivery.waiting):
                await self.observer.begins_again()
                await Relay(flow).run(self._stop)
        except DatabaseError as error:
            with contextlib.suppress(TableWatcherError, TimeoutError):
                async with asyncio.timeout(_FAREWELL_SECONDS):
                    await self.observer.ended(error)
            raise
        finally:
            self._read = Read(generation, max(self._read.ring_id, flow.newest_id), lineage.made)
        self._owns = False

    def _channels(self, session: Session, cursor: CursorLog, sink: Sink, lease: Lease, generation: int) -> Channels:
        outbox = Outbox(
            session.reader,
            session.reader_lock,
            self.spec,
            self._names,
            database=session.database,
            generation=generation,
        )
        shared = (session.writer, session.writer_lock, self._names)
        return Channels(
            outbox,
            cursor,
            session.proofs,
            Ring(*shared, bound=self.spec.delivery.overflow_bytes),
            Gaps(*shared),
            Drift(*shared, self.spec),
            sink,
            session.wakeup,
            session.idle,
            session.arming,
            self._names,
            Parked(session.writer, session.writer_lock, self.spec, self._names),
            History(session.reader, session.reader_lock, self._names),
            Requests(*shared, epoch=lease.epoch),
            session.requests,
        )

    async def _lease(self, session: Session, cursor: CursorLog) -> Lease | None:
        while not self._stop.is_set():
            found = await cursor.acquire(is_dead)
            if isinstance(found, Lease):
                self._owns = True
                return found
            self._stand_by(found)
            await self._pause(min(found.seconds, _WAIT_SECONDS))
        return None

    def _stand_by(self, held: Held) -> None:
        host = held.holder.partition("/")[0]
        self.observer.unleased(Reason.RECONCILING, f"standing by: the listener on {host} has the lease", ready=True)

    async def _pause(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stop.wait()
