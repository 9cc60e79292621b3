"""One role installs, another delivers; or a DBA installs, and nobody else runs DDL."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from tablewatcher.embedded.postgres import OWNER
from tablewatcher.errors import DatabaseError, Reason
from tablewatcher.event import Event
from tablewatcher.postgres.asking import ask, followed, listed
from tablewatcher.postgres.connection.session import connect
from tablewatcher.postgres.database import Progress, Session, open_session
from tablewatcher.postgres.drift import Drift
from tablewatcher.postgres.install.apply import StepsMissing, apply, destroy, neutralise
from tablewatcher.postgres.install.grants import Grantee, missing, needed
from tablewatcher.postgres.install.script import Section, script
from tablewatcher.postgres.install.survey import survey
from tablewatcher.postgres.parked import Parked, Row
from tablewatcher.postgres.progress import ProgressReader, drained
from tablewatcher.postgres.requests import Dropped, Kind, Requests, State
from tablewatcher.postgres.ring.cursor_log import CursorLog, Lease
from tablewatcher.postgres.ring.gaps import Gaps
from tablewatcher.postgres.ring.history import History
from tablewatcher.postgres.ring.lineage import Lineage
from tablewatcher.postgres.ring.outbox import Outbox
from tablewatcher.postgres.ring.upkeep import Ring
from tablewatcher.spec.model import Action, Management, WatcherSpec
from tablewatcher.spec.model import Database as DatabaseSpec

from ..conftest import Database
from ..conftest import any_postgres as postgres  # noqa: F401 - both versions
from .capturing import names_of, spec_of

ACTIONS = frozenset({Action.INSERT, Action.UPDATE, Action.DELETE})


@dataclass(frozen=True, slots=True)
class Clerk:
    """A role that may log in and no more, in a database with table `t`."""

    role: str
    dsn: str
    database: Database

    @property
    def spec(self) -> WatcherSpec:
        return spec_of(actions=ACTIONS, columns=("*",))

    @property
    def observed(self) -> WatcherSpec:
        return replace(self.spec, management=Management.OBSERVE)


@pytest.fixture
async def clerk(database: Database) -> AsyncIterator[Clerk]:
    role = f"clerk_{secrets.token_hex(4)}"
    await database.execute(
        f"CREATE TABLE t (id text PRIMARY KEY, v int); CREATE ROLE \"{role}\" LOGIN PASSWORD 'p';"
        # What a careful owner does.
        f" REVOKE ALL ON SCHEMA public FROM PUBLIC; REVOKE ALL ON DATABASE {database.name} FROM PUBLIC;"
        f' GRANT CONNECT ON DATABASE {database.name} TO "{role}"'
    )
    yield Clerk(role, database.dsn_of(role, "p"), database)
    await database.execute(f'DROP OWNED BY "{role}"; DROP ROLE "{role}"')


async def deliver(clerk: Clerk) -> list[str]:
    """All that a listener does in the database, as that role: the keys of what it read."""
    names, spec = names_of(clerk.spec), clerk.spec
    session = await open_session(clerk.dsn)
    try:
        assert await session.installed(names)
        lineage = Lineage(session.writer, session.writer_lock, names)
        await lineage.refuse_copy()
        cursor = CursorLog(session.writer, session.writer_lock, names, holder="h", sink_timeout=1)
        lease = await cursor.acquire(lambda _: True)
        assert isinstance(lease, Lease)
        assert await lineage.generation(cursor.slot) == 1
        await session.report(names, Progress(lease.epoch, "h", 1, True, "Forwarding", ""))
        await session.report(names, Progress(lease.epoch, "h", 2, True, "Forwarding", ""))
        outbox = Outbox(session.reader, session.reader_lock, spec, names, database="d")
        keys, position = [], lease.position
        while (page := await outbox.next_page(position, 2)) is not None:
            keys += [event.key for event in page.events]
            position = page.position(None)
        assert await cursor.commit(lease.epoch, position, durable=True)
        ring = Ring(session.writer, session.writer_lock, names)
        await ring.arm()
        await session.wakeup.subscribe(names.channel)
        assert position.cur is None
        for slot in range(3):
            assert await ring.turn(slot, position.prev, keep_seconds=0) == (slot + 1) % 3
        gaps = Gaps(session.writer, session.writer_lock, names)
        await gaps.resume_capture(1)
        await gaps.announce(0)
        assert await Drift(session.writer, session.writer_lock, names, spec).look() == ""
        await put_aside_and_bring_back(session, clerk, lease)
        await ring.disarm()
        assert (await ring.gauge()).last_id > 0
        assert await cursor.commit(lease.epoch, position, release=True)
        return keys
    finally:
        await session.close()


async def put_aside_and_bring_back(session: Session, clerk: Clerk, lease: Lease) -> None:
    """All that is done with parked events and requests, by the listener and by the commands."""
    names, shared = names_of(clerk.spec), (session.writer, session.writer_lock)
    parked, requests = Parked(*shared, clerk.spec, names), Requests(*shared, names, epoch=lease.epoch)
    body = b'{"time":"t","sequence":"s","data":{}}'
    event = Event(1, "e" * 32, "u", "a", "b", "", 0.0, "", None, body)
    for _ in range(2):
        assert await parked.write(lease.epoch, [Row(event, 1, "SinkUnreachable", "400")])
    assert set(await parked.keys()) == {"a", "b"} == set(await parked.lanes_of(["a"]))
    assert (await parked.held()).events == 1 == len(await parked.event_ids())
    back, _ = await parked.first(["a"], 1)
    await parked.delete(back)
    assert await listed(clerk.dsn, names, 5) == ([], 0)
    assert await parked.write(lease.epoch, [Row(event), Row(replace(event, ring_id=2, event_id="f" * 32))])
    await ask(clerk.dsn, names, Kind.SKIP, event_id=event.event_id)
    assert await session.requests.has(names)
    (asked,) = await requests.open()
    assert set(await requests.selected(asked)) == {"a", "b"}
    assert await requests.drop(asked) == Dropped(1, ["a", "b"], [])
    (follow,) = await requests.open()
    await requests.update(replace(follow, state=State.DONE))
    assert not (await followed(clerk.dsn, names, asked, lambda *_: True)).is_open
    history = History(session.reader, session.reader_lock, names)
    assert await history.since(None, "a", lease.position) == (0, 0)
    assert (await history.extent()).repaired is None


async def test_a_role_with_our_grants_and_no_others_delivers(clerk: Clerk) -> None:
    names = names_of(clerk.spec)
    applied = await apply(clerk.database.dsn, clerk.spec, names, listener_role=clerk.role)
    assert "let the listener's role read and deliver" in [step.what for step in applied.plan.steps]
    await clerk.database.execute("INSERT INTO t VALUES ('a', 1), ('b c', 2), ('d', 3); UPDATE t SET v = 9")
    assert await deliver(clerk) == ["a", "b%20c", "d"] * 2
    assert not await drained(clerk.dsn, names, seconds=0)  # the gap event
    reader = ProgressReader(clerk.dsn)
    assert (await reader.read([names]))[names.hash].reason == "Forwarding"
    await reader.close()
    again = await apply(clerk.database.dsn, clerk.spec, names, listener_role=clerk.role)
    assert not again.plan


FORBIDDEN = [
    "SELECT * FROM public.t",
    "INSERT INTO public.t VALUES ('z', 1)",
    "UPDATE tablewatcher.{ring} SET data = ''",
    "DELETE FROM tablewatcher.{ring}",
    "DROP TABLE tablewatcher.{ring}",
    "CREATE TABLE tablewatcher.mine ()",
    "DELETE FROM tablewatcher.migration",
    "ALTER TABLE public.t DISABLE TRIGGER ALL",
]


async def test_it_may_do_nothing_else(clerk: Clerk) -> None:
    names = names_of(clerk.spec)
    await apply(clerk.database.dsn, clerk.spec, names, listener_role=clerk.role)
    async with await psycopg.AsyncConnection.connect(clerk.dsn, autocommit=True) as connection:
        for statement in FORBIDDEN:
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                await connection.execute(statement.format(ring=names.rings[0]).encode())


async def test_every_grant_is_put_back(clerk: Clerk) -> None:
    names = names_of(clerk.spec)
    await apply(clerk.database.dsn, clerk.spec, names, listener_role=clerk.role)
    for right in needed(names):
        qualified = right.name if right.kind == "SCHEMA" else f"tablewatcher.{right.name}"
        await clerk.database.execute(f'REVOKE {right.privilege} ON {right.kind} {qualified} FROM "{clerk.role}"')
        found = (await apply(clerk.database.dsn, clerk.spec, names, listener_role=clerk.role)).plan
        assert [step.sql for step in found.steps] == [
            f"GRANT {right.privilege} ON {right.kind} {qualified} TO " + f'"{clerk.role}"'
        ]


def test_a_role_that_has_all_gets_nothing() -> None:
    names = names_of(spec_of())
    assert missing(needed(names), Grantee("r", frozenset(needed(names)))) == ""
    assert missing(needed(names), Grantee('r"', frozenset())).endswith(' TO "r"""')


async def test_without_another_role_nothing_is_granted(clerk: Clerk) -> None:
    applied = await apply(clerk.database.dsn, clerk.spec, names_of(clerk.spec))
    assert not [step for step in applied.plan.steps if step.sql.startswith("GRANT") and clerk.role in step.sql]


async def test_a_role_that_does_not_exist(clerk: Clerk) -> None:
    with pytest.raises(DatabaseError) as refused:
        await apply(clerk.database.dsn, clerk.spec, names_of(clerk.spec), listener_role="nobody_there")
    assert refused.value.reason is Reason.AUTHENTICATION_FAILED
    assert "secretRef" in refused.value.message


async def test_what_another_role_has_made_is_said_with_the_remedy(clerk: Clerk) -> None:
    """As when a watcher gets an admin's Secret after it was applied without one."""
    names, changed = names_of(clerk.spec), replace(clerk.spec, include_before=True)
    await apply(clerk.database.dsn, clerk.spec, names)
    await clerk.database.execute(
        f"GRANT USAGE, CREATE ON SCHEMA tablewatcher TO {clerk.role}; GRANT USAGE ON SCHEMA public TO {clerk.role};"
        f" GRANT TRIGGER ON t TO {clerk.role}; GRANT ALL ON ALL TABLES IN SCHEMA tablewatcher TO {clerk.role};"
        f" GRANT EXECUTE ON FUNCTION tablewatcher.token(text[]), tablewatcher.utf8(text) TO {clerk.role}"
    )
    assert not (await apply(clerk.dsn, clerk.spec, names)).plan
    with pytest.raises(DatabaseError) as refused:
        await apply(clerk.dsn, changed, names)
    (said,) = (await survey(clerk.dsn, changed, names)).faults
    assert said.message == refused.value.message
    assert refused.value.reason is Reason.PERMISSION_DENIED
    remedy = refused.value.message.partition("run: ")[2]
    assert remedy == f'GRANT "{OWNER}" TO "{clerk.role}";'
    await clerk.database.execute(remedy)
    assert (await apply(clerk.dsn, changed, names)).plan


async def run_script(clerk: Clerk, *specs: WatcherSpec) -> str:
    """What `sql` prints, run by the owner."""
    sections = []
    for spec in specs:
        found = await survey(clerk.dsn, spec, names_of(spec))
        assert found.plan is not None, found.faults
        sections.append(Section(spec.qualified_name, found.observed.server.database, found.plan))
    text = script(sections)
    await clerk.database.execute(text)
    return text


async def test_observe_runs_nothing_and_says_what_a_dba_must_run(clerk: Clerk) -> None:
    names = names_of(clerk.observed)
    for _ in range(2):
        with pytest.raises(StepsMissing) as refused:
            await apply(clerk.dsn, clerk.observed, names)
        assert refused.value.reason is Reason.MANUAL_ACTION_REQUIRED
        assert "install trigger" in refused.value.message
        assert await clerk.database.execute("SELECT count(*) FROM pg_namespace WHERE nspname = 'tablewatcher'") == [
            (0,)
        ]
    text = await run_script(clerk, clerk.observed)
    assert text.count("BEGIN;") == text.count("COMMIT;") == 1
    assert not (await apply(clerk.dsn, clerk.observed, names)).plan
    await clerk.database.execute("INSERT INTO t VALUES ('a', 1)")
    assert await deliver(clerk) == ["a"]


async def test_a_script_for_several_watchers_makes_what_they_share_once(clerk: Clerk) -> None:
    await clerk.database.execute("CREATE TABLE u (id int PRIMARY KEY)")
    other = replace(spec_of("u", name="x", actions=ACTIONS), management=Management.OBSERVE)
    text = await run_script(clerk, clerk.observed, other)
    assert text.count("CREATE SCHEMA") == 1
    for spec in (clerk.observed, other):
        assert not (await apply(clerk.dsn, spec, names_of(spec))).plan
    assert script([]) == ""


async def test_drift_under_observe_is_said_and_not_repaired(clerk: Clerk) -> None:
    names = names_of(clerk.observed)
    await run_script(clerk, clerk.observed)
    await clerk.database.execute(f'ALTER TABLE t DISABLE TRIGGER "{names.trigger}"')
    async with await connect(clerk.database.dsn) as listeners:
        said = await Drift(listeners, asyncio.Lock(), names, clerk.observed).look()
    assert said.endswith("; have a DBA run what `tablewatcher sql` prints, which puts it right and sends a gap event")
    with pytest.raises(StepsMissing) as refused:
        await apply(clerk.dsn, clerk.observed, names)
    steps = [step.what.split()[0] for step in refused.value.plan.steps]
    # Version 13 cannot replace a trigger: there the function is dropped with it, and both are made anew.
    assert steps == ["install", "announce"] if clerk.database.server.version >= 14 else steps[0] == "drop"
    await run_script(clerk, clerk.observed)
    assert not (await apply(clerk.dsn, clerk.observed, names)).plan


async def test_observe_removes_nothing_and_says_what_a_dba_must_run(clerk: Clerk) -> None:
    names = names_of(clerk.observed)
    await neutralise(clerk.dsn, clerk.observed, names)
    assert not await destroy(clerk.dsn, clerk.observed, names)
    await run_script(clerk, clerk.observed)
    for remove in (neutralise, destroy):
        with pytest.raises(DatabaseError) as refused:
            await remove(clerk.dsn, clerk.observed, names)
        assert refused.value.reason is Reason.MANUAL_ACTION_REQUIRED
    await clerk.database.execute(refused.value.message.partition("to remove it: ")[2])
    assert not await destroy(clerk.dsn, clerk.observed, names)
    assert await clerk.database.execute("SELECT count(*) FROM pg_namespace WHERE nspname = 'tablewatcher'") == [(0,)]


async def test_what_a_dba_must_run_leaves_what_other_watchers_share(clerk: Clerk) -> None:
    await clerk.database.execute("CREATE TABLE u (id int PRIMARY KEY)")
    other = replace(spec_of("u", name="x", actions=ACTIONS), management=Management.OBSERVE)
    await run_script(clerk, clerk.observed, other)
    with pytest.raises(DatabaseError) as refused:
        await destroy(clerk.dsn, clerk.observed, names_of(clerk.observed))
    await clerk.database.execute(refused.value.message.partition("to remove it: ")[2])
    assert not (await apply(clerk.dsn, other, names_of(other))).plan


async def test_a_second_role_that_sees_nothing_is_told_which_grants_it_lacks(clerk: Clerk) -> None:
    await apply(clerk.database.dsn, replace(clerk.spec, name="first"), names_of(replace(clerk.spec, name="first")))
    found = await survey(clerk.dsn, clerk.observed, names_of(clerk.observed))
    assert [fault.reason for fault in found.faults] == [Reason.PERMISSION_DENIED]
    await clerk.database.execute(found.faults[0].message.partition("must run: ")[2])
    await run_script(clerk, clerk.observed)
    assert not (await apply(clerk.dsn, clerk.observed, names_of(clerk.observed))).plan


KEPT_OUT = {
    "no CONNECT": ("REVOKE CONNECT ON DATABASE {database} FROM {role}", Reason.PERMISSION_DENIED, "GRANT CONNECT"),
    "role full": ("ALTER ROLE {role} CONNECTION LIMIT 0", Reason.DATABASE_UNREACHABLE, "CONNECTION LIMIT"),
    "database full": ("ALTER DATABASE {database} CONNECTION LIMIT 0", Reason.DATABASE_UNREACHABLE, "CONNECTION LIMIT"),
}


@pytest.mark.parametrize("name", KEPT_OUT)
async def test_a_role_that_is_kept_out_is_told_why(name: str, clerk: Clerk) -> None:
    statement, reason, words = KEPT_OUT[name]
    await clerk.database.execute(statement.format(database=clerk.database.name, role=clerk.role))
    with pytest.raises(DatabaseError) as refused:
        await survey(clerk.dsn, clerk.spec, names_of(clerk.spec))
    assert refused.value.reason is reason
    assert words in refused.value.message


async def test_all_that_is_wrong_is_told_together(clerk: Clerk) -> None:
    await clerk.database.execute("CREATE PUBLICATION everything FOR ALL TABLES")
    spec = replace(clerk.spec, columns=("nothing",))
    found = await survey(clerk.dsn, spec, names_of(spec))
    assert [fault.reason for fault in found.faults] == [
        Reason.PERMISSION_DENIED,
        Reason.COLUMN_NOT_FOUND,
        Reason.PUBLICATION_CONFLICT,
    ]
    assert found.plan is None


async def test_a_publication_of_all_tables_may_be_allowed(clerk: Clerk) -> None:
    await clerk.database.execute("CREATE PUBLICATION everything FOR ALL TABLES")
    names = names_of(clerk.spec)
    with pytest.raises(DatabaseError) as refused:
        await apply(clerk.database.dsn, clerk.spec, names)
    assert refused.value.reason is Reason.PUBLICATION_CONFLICT
    assert "allowAllTablesPublication" in refused.value.message
    allowed = replace(clerk.spec, database=DatabaseSpec("secret", allow_all_tables_publication=True))
    assert (await apply(clerk.database.dsn, allowed, names)).plan


async def test_a_role_beside_another_is_told_all_that_delivery_needs(clerk: Clerk) -> None:
    """Both install and deliver; what all watchers share was made by the first."""
    await clerk.database.execute("CREATE TABLE other (id int PRIMARY KEY)")
    first = spec_of("other", name="first", actions=ACTIONS)
    await apply(clerk.database.dsn, first, names_of(first))
    names = names_of(clerk.spec)
    with pytest.raises(DatabaseError) as refused:
        await apply(clerk.dsn, clerk.spec, names)
    assert refused.value.reason is Reason.PERMISSION_DENIED
    await clerk.database.execute(refused.value.message.partition("must run: ")[2])
    await apply(clerk.dsn, clerk.spec, names)
    await clerk.database.execute("INSERT INTO t VALUES ('a', 1)")
    assert await deliver(clerk) == ["a"]
    await destroy(clerk.dsn, clerk.spec, names)
    assert not (await apply(clerk.database.dsn, first, names_of(first))).plan


async def test_a_role_that_cannot_log_in_captures(clerk: Clerk) -> None:
    """Made beforehand and put on in the connection itself: all objects are its own, whoever logs in."""
    role, names = f"capture_{secrets.token_hex(4)}", names_of(clerk.spec)
    await clerk.database.execute(
        f"CREATE ROLE {role} NOLOGIN; GRANT {role} TO {clerk.role}; GRANT CREATE ON DATABASE {clerk.database.name} TO"
        f" {role}; GRANT USAGE ON SCHEMA public TO {role}; GRANT TRIGGER ON t TO {role}"
    )
    dressed = make_conninfo(clerk.dsn, options=f"-c role={role}")
    try:
        assert (await apply(dressed, clerk.spec, names, listener_role=clerk.role)).plan
        assert not (await apply(dressed, clerk.spec, names, listener_role=clerk.role)).plan
        owners = await clerk.database.execute(
            "SELECT DISTINCT relowner::regrole::text FROM pg_class WHERE relnamespace = 'tablewatcher'::regnamespace"
            " UNION SELECT proowner::regrole::text FROM pg_proc WHERE pronamespace = 'tablewatcher'::regnamespace"
        )
        assert owners == [(role,)]
        await clerk.database.execute("INSERT INTO t VALUES ('a', 1)")
        assert await deliver(clerk) == ["a"]
        await destroy(dressed, clerk.spec, names)
    finally:
        await clerk.database.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")
