"""Leases of idle watchers, proved together: each is its own all the same, whatever becomes of the others."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from tablewatcher.errors import DatabaseError
from tablewatcher.naming import WatcherNames
from tablewatcher.postgres.database import Session, open_session
from tablewatcher.postgres.install.apply import apply, destroy
from tablewatcher.postgres.ring import proofs
from tablewatcher.postgres.ring.cursor_log import CursorLog, Held, Lease
from tablewatcher.postgres.ring.position import Position
from tablewatcher.postgres.ring.proofs import Kept
from tablewatcher.postgres.ring.snapshot import Snapshot
from tablewatcher.spec.model import WatcherSpec

from ..conftest import Database, poll
from ..pgbouncer import PgBouncer
from .capturing import names_of, spec_of

TABLES = ("a", "b", "c")
SECONDS = 0.2


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proofs, "PROOF_SECONDS", SECONDS)


@dataclass
class Leased:
    """A watcher whose lease is ours, for as long as `kept` is open."""

    spec: WatcherSpec
    names: WatcherNames
    log: CursorLog
    lease: Lease
    kept: Kept
    leave: ExitStack

    async def proved(self) -> None:
        """Returns when somebody has proved the lease anew."""
        before = self.kept.at

        async def again() -> bool:
            return self.kept.at > before

        await poll(again)

    async def commit(self, *, release: bool = False) -> bool:
        return await self.log.commit(self.lease.epoch, self.lease.position, release=release)

    async def transactions(self, database: Database) -> set[str]:
        """Ids of those in which the lease was taken or proved, without those of earlier epochs."""
        log = " UNION ALL ".join(f"SELECT xmin, epoch FROM tablewatcher.{name}" for name in self.names.cursors)
        found = await database.execute(f"SELECT xmin::text FROM ({log}) AS l WHERE epoch = {self.lease.epoch}")
        return {str(xid) for (xid,) in found}


@pytest.fixture
def dsn(request: pytest.FixtureRequest, any_database: Database, server_directory: Path) -> Iterator[str]:
    """Direct, but for who asks for a pooler."""
    if not getattr(request, "param", None):
        yield any_database.dsn
        return
    with PgBouncer(server_directory / "pooler", any_database.server, "transaction") as pooler:
        yield pooler.dsn(any_database.name, any_database.server.password)


@pytest.fixture
async def session(dsn: str) -> AsyncIterator[Session]:
    opened = await open_session(dsn)
    yield opened
    await opened.close()


@pytest.fixture
async def leased(any_database: Database, session: Session) -> AsyncIterator[list[Leased]]:
    found = []
    for table in TABLES:
        await any_database.execute(f"CREATE TABLE {table} (id int PRIMARY KEY)")
        spec = spec_of(table, name=table)
        await apply(any_database.dsn, spec, names_of(spec))
        log = log_of(session, names_of(spec))
        lease = await log.acquire(lambda _: False)
        assert isinstance(lease, Lease)
        leave = ExitStack()
        kept = leave.enter_context(session.proofs.kept(log, asyncio.get_running_loop().time()))
        found.append(Leased(spec, names_of(spec), log, lease, kept, leave))
    yield found
    for each in found:
        each.leave.close()


def log_of(session: Session, names: WatcherNames, holder: str = "us") -> CursorLog:
    return CursorLog(session.writer, session.writer_lock, names, holder=holder, sink_timeout=20)


async def all_proved(leased: list[Leased]) -> None:
    await asyncio.gather(*(each.proved() for each in leased))


@pytest.mark.parametrize("dsn", ["", "pooled"], indirect=True)
async def test_all_in_one_transaction(any_database: Database, leased: list[Leased]) -> None:
    before = [await each.transactions(any_database) for each in leased]
    await all_proved(leased)
    new = [await each.transactions(any_database) - then for each, then in zip(leased, before, strict=True)]
    assert set.intersection(*new)


async def test_who_has_proved_its_lease_itself_is_left_out(
    any_database: Database, session: Session, leased: list[Leased]
) -> None:
    async with session.writer_lock:  # no proof is under way
        leased[0].kept.at = float("inf")
    before = await leased[0].transactions(any_database)
    await all_proved(leased[1:])
    assert await leased[0].transactions(any_database) == before


async def test_a_proof_is_one_to_others(session: Session, leased: list[Leased]) -> None:
    """The lease goes on from now, also where the ring has turned; its holder and its cursor stay as they were."""
    moved = Position(Snapshot.parse("5:9:6,7"), Snapshot.parse("9:12:"), 44)
    assert await leased[0].log.commit(leased[0].lease.epoch, moved)
    leased[1].log.slot = 1
    others = [log_of(session, each.names, "other") for each in leased]
    before = [await other.acquire(lambda _: False) for other in others]
    await asyncio.sleep(1)
    await all_proved(leased)
    for each, other, then in zip(leased, others, before, strict=True):
        held = await other.acquire(lambda _: False)
        assert isinstance(then, Held)
        assert isinstance(held, Held)
        assert held.holder == "us"
        assert held.seconds > then.seconds - 0.8
        taken = await other.acquire(lambda _: True)
        assert isinstance(taken, Lease)
        assert taken.position == (moved if each is leased[0] else each.lease.position)


async def test_one_that_was_taken_over_is_told_alone(session: Session, leased: list[Leased]) -> None:
    assert isinstance(await log_of(session, leased[1].names, "other").acquire(lambda _: True), Lease)
    await all_proved([leased[0], leased[2]])
    assert [each.kept.lost for each in leased] == [False, True, False]


async def test_one_that_was_removed_is_the_only_one_that_fails(any_database: Database, leased: list[Leased]) -> None:
    await destroy(any_database.dsn, leased[0].spec, leased[0].names)
    assert await leased[1].commit()
    with pytest.raises(DatabaseError):
        await leased[0].commit()
    leased[0].leave.close()
    await all_proved(leased[1:])


async def turns(leased: list[Leased]) -> None:
    """Of their rings, in turn, each with some proofs."""
    for nth in range(12):
        leased[nth % 3].log.slot = nth // 3 % 3
        for _ in range(3):
            await all_proved(leased)


async def test_what_is_prepared_stays_little(session: Session, leased: list[Leased]) -> None:
    """The text is another one after each turn of a ring, and each takes memory of the server."""
    await turns(leased)
    query = "SELECT statement FROM pg_prepared_statements WHERE statement LIKE 'WITH asked%'"
    async with session.writer_lock:
        found = await (await session.writer.execute(query)).fetchall()
    assert 0 < len(found) <= 2


@pytest.mark.parametrize("dsn", ["pooled"], indirect=True)
async def test_what_others_have_prepared_behind_a_pooler_stays(any_database: Database, leased: list[Leased]) -> None:
    """Its connections to the server are theirs as well."""
    await any_database.execute("ALTER SYSTEM SET log_statement = 'all'")
    try:
        await any_database.execute("SELECT pg_reload_conf()")
        await turns(leased)
        told = any_database.server.log.read_text()
    finally:
        await any_database.execute("ALTER SYSTEM RESET log_statement")
        await any_database.execute("SELECT pg_reload_conf()")
    assert "WITH asked AS" in told
    assert "DEALLOCATE" not in told[told.index("WITH asked AS") :]


async def test_no_proof_follows_a_release(session: Session, leased: list[Leased]) -> None:
    """Of a watcher that is told to end while its proof waits: its successor would wait for the lease to run out."""
    async with session.writer_lock:
        await asyncio.sleep(3 * SECONDS)  # until a proof waits for the connection
        leased[0].leave.close()
    assert await leased[0].commit(release=True)
    await all_proved(leased[1:])
    assert isinstance(await log_of(session, leased[0].names, "next").acquire(lambda _: False), Lease)
    assert isinstance(await log_of(session, leased[1].names, "next").acquire(lambda _: False), Held)


async def test_a_connection_that_breaks_ends_it(any_database: Database, session: Session) -> None:
    await any_database.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()")

    async def over() -> bool:
        return not session.alive

    await poll(over)
