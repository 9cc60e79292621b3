"""Making it so: observe, plan, execute. The command line and the operator call the same functions."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import psycopg

from ...errors import DatabaseError, Reason
from ...naming import SCHEMA, WatcherNames
from ...spec.model import DeletionPolicy, Management, WatcherSpec
from ..capture.granularity import notes
from ..connection.session import Connection, connected, encrypted
from ..quoting import identifier, ours
from ..ring.holders import Contested
from ..standing import Undelivered, undelivered
from . import plan as plans
from .as_made import blaming, refuse_changed
from .catalog import Observed
from .lock_tries import LONGEST_STATEMENT_MS, LockTries
from .plan import Plan, Step
from .preflight import refuse_foreign
from .removal_sql import removal_sql
from .survey import observe

# For what no writer waits behind: other applies, the ring of a watcher that is removed. LockTries has those for tables.
LOCK_TIMEOUT_MS = 500
LOCK_PATIENCE = 20.0
_NAMED = 5
_NOTHING = "nothing was changed"
# If we freeze with locks in hand, the server ends the transaction: writers must not wait for us to come back.
_FROZEN_MS = 2_000
# One key for everything that changes schema `tablewatcher`: two applies at once take turns.
_ADVISORY_KEY = 0x7461626C65776174


@dataclass(frozen=True, slots=True)
class Applied:
    """What an apply found and did. The connection was `encrypted`, and went through a pooler where it was `pooled`.

    notes: what the watcher does not see. namesakes: instances, but ours, that have a watcher of this name.
    """

    plan: Plan
    database: str
    system_identifier: str
    primary_key: tuple[str, ...]
    encrypted: bool
    pooled: bool
    notes: tuple[str, ...] = ()
    namesakes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Removed(Plan):
    """The steps of a removal, and what had not been delivered when capture had stopped; None: not counted."""

    left: Undelivered | None = None

    @property
    def notes(self) -> tuple[str, ...]:
        """What is left to others, and how that goes."""
        if not self.left_to:
            return ()
        roles = " and ".join(map(identifier, self.left_to))
        left = f"what all watchers share is left in schema {SCHEMA}, for it belongs to role {roles}"
        return (f"{left}: run `tablewatcher destroy` with the same manifest as that role",)


class StepsMissing(DatabaseError):
    """A watcher that is managed by somebody else is not as it should be; `plan` is what they must run."""

    def __init__(self, plan: Plan) -> None:
        what = ", ".join(step.what for step in plan.steps)
        super().__init__(
            Reason.MANUAL_ACTION_REQUIRED,
            f"management is Observe, and a DBA must do this: {what}; `tablewatcher sql` prints it as a script",
        )
        self.plan = plan


class _AppliedAnew(Exception):
    """Capture is on again in the midst of a removal."""


class TableLocked(DatabaseError):
    """Table `where` stayed locked by `who`, as Holder says it. left: what was changed before."""

    def __init__(self, where: str, who: tuple[str, ...], left: str) -> None:
        told = "; ".join(who) or "gone by now, or another apply or destroy"
        super().__init__(
            Reason.TABLE_LOCKED,
            f"{where} stayed locked by other transactions ({told});"
            f" end them or try again: {left}, and no writer was held up for longer than half a second",
        )
        self.where = where
        self.who = who


async def apply(
    conninfo: str,
    spec: WatcherSpec,
    names: WatcherNames,
    *,
    patience: float = LOCK_PATIENCE,
    adopt: str | None = None,
    listener_role: str | None = None,
) -> Applied:
    """Installs or repairs one watcher. Does nothing where the catalog matches. Raises DatabaseError.

    With `management: Observe` nothing is ever run: StepsMissing says what is not as it should be.

    adopt: the word of the home that a watcher made elsewhere may move to; what it has not delivered is kept.
    patience: seconds to go on trying for a lock on the table, a tenth to half a second a try, so that writers never
    queue behind us for longer than that. listener_role: the role that delivers, where it is not that of `conninfo`.
    """
    async with connected(conninfo) as connection, blaming(connection):
        observed = await observe(connection, spec, names, listener_role)

        def decide(seen: Observed) -> Plan:
            return plans.plan(spec, seen, names, adopt=adopt)

        if (found := decide(observed)) and spec.management is Management.OBSERVE:
            raise StepsMissing(found)
        if found:
            found = await _execute(connection, spec, names, decide, patience=patience, listener_role=listener_role)
        assert observed.table is not None  # noqa: S101 - plan() has refused it otherwise
        server, shape = observed.server, observed.table.shape
        return Applied(
            found,
            server.database,
            server.system_identifier,
            shape.primary_key,
            encrypted(connection),
            connection.pooled,
            tuple(notes(shape)),
            observed.namesakes,
        )


async def neutralise(conninfo: str, spec: WatcherSpec, names: WatcherNames) -> None:
    """Stops capture at once, without a lock on the table; what is in the ring stays. Raises DatabaseError."""
    async with connected(conninfo) as connection, blaming(connection):
        if spec.management is Management.OBSERVE:
            await _refuse_removal(connection, spec, names)
            return
        await _execute(connection, spec, names, lambda seen: plans.neutralise(seen, names), patience=LOCK_PATIENCE)


async def destroy(conninfo: str, spec: WatcherSpec, names: WatcherNames, *, patience: float = LOCK_PATIENCE) -> Removed:
    """Removes one watcher: trigger and function always, the ring unless the policy is Retain. Raises DatabaseError."""
    policy = spec.deletion_policy
    async with connected(conninfo) as connection, blaming(connection):
        if spec.management is Management.OBSERVE:
            await _refuse_removal(connection, spec, names)
            return Removed(())

        def remove(seen: Observed) -> Plan:
            if plans.captures_again(seen):
                # What writers use cannot go: they and we would wait for one another.
                raise _AppliedAnew
            return plans.removal(seen, names, policy)

        while True:
            await _execute(connection, spec, names, lambda seen: plans.neutralise(seen, names), patience=patience)
            left = await undelivered(connection, names)
            try:
                done = await _execute(connection, spec, names, remove, patience=patience)
            except _AppliedAnew:
                continue
            except TableLocked as error:
                raise TableLocked(error.where, error.who, "capture has stopped, and nothing else was changed") from None
            await _drop_empty_schema(connection)
            return Removed(done.steps, done.keeps_ring, done.left_to, left)


async def _refuse_removal(connection: Connection, spec: WatcherSpec, names: WatcherNames) -> None:
    """Raises DatabaseError where something of the watcher is there that a DBA has to remove."""
    seen, policy = await observe(connection, spec, names), spec.deletion_policy
    refuse_foreign(seen, names)
    if seen.function is not None or (seen.objects and policy is DeletionPolicy.DELETE):
        sql = removal_sql(names, policy, is_last=bool(seen.migrations) and not seen.others)
        raise DatabaseError(
            Reason.MANUAL_ACTION_REQUIRED, f"management is Observe, and a DBA must run this to remove it: {sql}"
        )


async def _execute(
    connection: Connection,
    spec: WatcherSpec,
    names: WatcherNames,
    decide: Callable[[Observed], Plan],
    *,
    patience: float,
    listener_role: str | None = None,
) -> Plan:
    tries, ahead = LockTries(connection, patience), Plan(())
    while True:
        try:
            async with connection.transaction():
                # A role may have another default: what is observed must be from after the lock.
                await connection.execute("SET TRANSACTION ISOLATION LEVEL READ COMMITTED")
                await connection.execute(f"SET LOCAL lock_timeout = {LOCK_TIMEOUT_MS}")
                await connection.execute(f"SET LOCAL idle_in_transaction_session_timeout = {_FROZEN_MS}")
                # A commit that waits for a standby keeps its locks meanwhile. The next write that is waited for waits
                # for this one too.
                await connection.execute("SET LOCAL synchronous_commit = local")
                await connection.execute("SELECT pg_catalog.pg_advisory_xact_lock(%s)", [_ADVISORY_KEY])
                seen = await observe(connection, spec, names, listener_role)
                found = decide(seen)
                tries.expect(_contested(found, seen, names))
                steps = tuple(step for step in found.steps if step.goes_ahead) or found.steps
                await _run(connection, steps, tries, partial(refuse_changed, connection, names, seen))
            ahead = replace(found, steps=(*ahead.steps, *steps))
            if steps == found.steps:
                return ahead
        except (
            psycopg.errors.LockNotAvailable,
            psycopg.errors.DeadlockDetected,
            psycopg.errors.QueryCanceled,
        ) as error:
            if await tries.again(error):
                continue
            who = tuple(str(holder) for holder in (await tries.obstacles())[:_NAMED])
            left = f"schema {SCHEMA} was brought up, and nothing else was changed" if ahead else _NOTHING
            raise TableLocked(f"{spec.table.schema}.{spec.table.name}", who, left) from None


async def _run(
    connection: Connection, steps: Sequence[Step], tries: LockTries, hold: Callable[[], Awaitable[None]]
) -> None:
    """Runs the steps, and `hold` before the first that locks a table: from that one on, the writers behind us wait for
    nothing but the server."""
    first = next((nth for nth, step in enumerate(steps) if step.locks_table), len(steps))
    for step in steps[:first]:
        await connection.execute(step.sql.encode())
    await hold()
    if locking := [step.sql for step in steps[first:]]:
        # As one message, whatever the network and our own turn on the processor take.
        message = [tries.bounds(), *locking, f"SET LOCAL statement_timeout = {LONGEST_STATEMENT_MS}"]
        await connection.execute(";\n".join(message).encode())


def _contested(found: Plan, seen: Observed, names: WatcherNames) -> Contested:
    exclusive = any(step.excludes_readers for step in found.steps)
    tables = {trigger.table_oid for trigger in seen.triggers}
    if seen.table is not None:
        tables |= {seen.table.shape.oid, *(oid for oid, _ in seen.table.shape.partitions)}
    rings = tuple(ours(name) for name in names.rings) if exclusive else ()
    return Contested(tuple(tables), rings, exclusive=exclusive)


async def _drop_empty_schema(connection: Connection) -> None:
    """Takes the schema away after the last watcher, where it is ours and holds nothing else."""
    try:
        async with connection.transaction():
            await connection.execute(f"SET LOCAL lock_timeout = {LOCK_TIMEOUT_MS}")
            # An apply that has found the schema there must not lose it on the way.
            await connection.execute("SELECT pg_catalog.pg_advisory_xact_lock(%s)", [_ADVISORY_KEY])
            cursor = await connection.execute(
                "SELECT FROM pg_catalog.pg_namespace n WHERE n.nspname = %s"
                " AND pg_catalog.pg_has_role(n.nspowner, 'USAGE')"
                " AND pg_catalog.obj_description(n.oid, 'pg_namespace') = %s"
                " AND NOT EXISTS (SELECT FROM pg_catalog.pg_class c WHERE c.relnamespace = n.oid)"
                " AND NOT EXISTS (SELECT FROM pg_catalog.pg_proc p WHERE p.pronamespace = n.oid)",
                [SCHEMA, plans.SCHEMA_COMMENT],
            )
            if await cursor.fetchone() is not None:
                await connection.execute(f"DROP SCHEMA {SCHEMA}")
    except (
        psycopg.errors.DependentObjectsStillExist,
        psycopg.errors.LockNotAvailable,
        psycopg.errors.InvalidSchemaName,
    ):
        return  # somebody put something there, or another destroy was quicker
