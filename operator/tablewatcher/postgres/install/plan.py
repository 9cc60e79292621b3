"""The difference between what a watcher wants and what is there, as ordered steps. Pure.

An empty plan means in sync, and then nothing is run at all. All steps of a plan run in one transaction, so that
nothing is ever half-installed; the only ones that lock the watched table come last. What brings up the tables of all
watchers goes before it, in one of its own: watchers of both versions live with them, and each try for a lock would do
it anew.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from ...errors import DatabaseError, Reason
from ...naming import SCHEMA, WatcherNames
from ...spec.model import DeletionPolicy, WatcherSpec
from ..capture.ddl import NEUTRAL_SOURCE, SEARCH_PATH, Desired, create_function, desired, source_digest
from ..capture.triggers import WantedTrigger
from ..quoting import identifier, literal, ours
from ..ring.cursor_sql import free_cursor
from ..ring.gap_sql import insert_gap, note_gap
from ..ring.home import Home, adoption, moves_here
from ..ring.parts import whole_ring
from ..shared import SHARED_FUNCTIONS, SHARED_TABLES
from ..sql import migrations
from .capture_rights import capture_grants
from .catalog import Observed, TableFacts
from .comparison import (
    captures,
    function_in_sync,
    is_registered,
    must_rebuild,
    quoted,
    refuse_another,
    trigger_in_sync,
    was_replaced,
)
from .grants import missing, needed
from .own_rights import shared_grant
from .preflight import check, check_maker, refuse_foreign
from .ring_repair import repair_steps
from .ring_upgrade import locking_steps

# On the schema only where we made it: one made by a DBA, with its grants, outlives the last watcher.
SCHEMA_COMMENT = "made by tablewatcher; removed with the last watcher"


# What all watchers share, in the order in which it can be dropped; an earlier version had made some of it only.
_SHARED = (
    *(f"FUNCTION IF EXISTS {SCHEMA}.{function}" for function in SHARED_FUNCTIONS),
    *(f"TABLE IF EXISTS {SCHEMA}.{table}" for table in reversed(SHARED_TABLES)),
)


class Kind(StrEnum):
    """What of a watcher a step is about; DATABASE: of the schema, of rights, or of our records."""

    FUNCTION = "function"
    TRIGGER = "trigger"
    RING = "ring"
    DATABASE = "database"


@dataclass(frozen=True, slots=True)
class Step:
    """One statement. `what` says it to a person; `locks_table`: it needs a lock on the watched table or on the ring;
    excludes_readers: one that waits for those who only read, too; goes_ahead: it stays where the others fail."""

    what: str
    sql: str
    kind: Kind = Kind.DATABASE
    locks_table: bool = False
    excludes_readers: bool = False
    goes_ahead: bool = False


@dataclass(frozen=True, slots=True)
class Plan:
    """Ordered steps; none: in sync. keeps_ring: of a removal that leaves the ring with what it holds; left_to: the
    roles that own what all watchers share, of one that leaves that although no watcher needs it any more."""

    steps: tuple[Step, ...]
    keeps_ring: bool = False
    left_to: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.steps)

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """What the steps are about, each once; DATABASE where they are about nothing else."""
        found = {step.kind for step in self.steps}
        return tuple(kind for kind in Kind if kind in found and (kind is not Kind.DATABASE or len(found) == 1))


def plan(spec: WatcherSpec, observed: Observed, names: WatcherNames, *, adopt: str | None = None) -> Plan:
    """The steps that make the database as `spec` wants it; DatabaseError where something stands against it.

    adopt: the word of the home (`Home.word`) that the watcher may move to.
    """
    facts = check(spec, observed, names)
    refuse_another(spec.table, observed, facts)
    table = quoted(spec.table)
    moves = observed.here is not None and moves_here(observed.recorded, observed.here, adopt)
    wanted = desired(spec, facts.shape, names)
    steps = [*_schema_steps(observed), *_ring_steps(observed, names)]
    if moves and observed.here is not None:
        steps += [Step("adopt the watcher here", sql) for sql in adoption(names, observed.here, facts.shape.oid)]
    stale = observed.function is not None and must_rebuild(wanted.triggers, observed)
    if stale:
        steps.append(_drop_function(names))
    if stale or not function_in_sync(wanted, observed):
        check_maker(spec, observed)
        steps += _function_steps(wanted, facts, names)
    anew = stale or observed.function is None
    if grants := capture_grants(observed, names, spec.management, written=anew):
        steps.append(Step("let the capture function write the ring", grants))
    if was_replaced(observed):
        # Transactions that ran with the other function may still be open: a listener waits for their end.
        steps.append(Step("note the gap", note_gap(names, "functionReplaced", certain=False)))
    if not is_registered(wanted, observed, facts, table):
        steps.append(Step("register the watcher", _register(wanted, facts, table, observed.here, names)))
    steps += _grant_steps(observed, names)
    absent = [each for each in wanted.triggers if stale or not trigger_in_sync(each, observed)]
    steps += _trigger_steps(absent, observed, facts, names)
    if observed.registered_table is not None and not captures(wanted, observed, facts):
        # After the triggers, which have waited for every writer: nobody is left who ran without them.
        steps.append(Step("announce the gap", insert_gap(names, 0, "triggerRepaired")))
    return Plan(tuple(steps))


def _function_steps(wanted: Desired, facts: TableFacts, names: WatcherNames) -> list[Step]:
    function, owners = f"FUNCTION {ours(names.function)}()", ", ".join(map(identifier, facts.owners))
    return [
        Step(what, sql, Kind.FUNCTION)
        for what, sql in (
            (f"write function {names.function}", create_function(names, wanted.function_source, wanted.settings)),
            ("keep it from others", f"REVOKE ALL ON {function} FROM PUBLIC"),
            # Who makes or attaches a partition has the trigger put on it in their own name.
            ("let the table's owner add partitions", f"GRANT EXECUTE ON {function} TO {owners}"),
            ("mark it as ours", f"COMMENT ON {function} IS {literal(names.identity)}"),
        )
    ]


def _trigger_steps(
    triggers: Iterable[WantedTrigger], observed: Observed, facts: TableFacts, names: WatcherNames
) -> list[Step]:
    replace = observed.server.version >= 140_000
    # As the table's owner has had ours fire, for what a subscription applies. Only owners may say so.
    always = facts.may_alter and any(each.enabled == "A" for each in observed.triggers)
    found = []
    for trigger in triggers:
        made = [(f"install trigger {trigger.name} on {trigger.table}", trigger.create(names, replace=replace))]
        if always:
            sql = f"ALTER TABLE {trigger.table} ENABLE ALWAYS TRIGGER {identifier(trigger.name)}"
            made.append((f"have trigger {trigger.name} fire always, as before", sql))
        found += [Step(what, sql, Kind.TRIGGER, locks_table=True) for what, sql in made]
    return found


def neutralise(observed: Observed, names: WatcherNames) -> Plan:
    """Stops capture without a lock on the table: the first step of removal."""
    if observed.function is None:
        return Plan(())
    refuse_foreign(observed, names)
    return Plan(
        (
            Step(
                f"stop capture in {names.function}",
                create_function(names, NEUTRAL_SOURCE, (SEARCH_PATH,)),
                Kind.FUNCTION,
            ),
        )
    )


def captures_again(observed: Observed) -> bool:
    """Whether there is a function that captures, although removal has begun: somebody has applied the watcher anew."""
    return observed.function is not None and observed.function.source != NEUTRAL_SOURCE


def removal(observed: Observed, names: WatcherNames, policy: DeletionPolicy) -> Plan:
    """The steps that remove a watcher, and with the last one what all watchers share.

    The function, whose end takes the trigger along, goes last: no step waits while we hold the watched table.
    """
    refuse_foreign(observed, names)
    if not observed.shared_usable:
        raise DatabaseError(
            Reason.PERMISSION_DENIED,
            f"role {identifier(observed.server.role)} lacks rights; the owner must run: {shared_grant(observed)};",
        )
    steps = []
    is_last = policy is DeletionPolicy.DELETE and bool(observed.migrations) and not observed.others
    if policy is DeletionPolicy.DELETE:
        tables = [name for name in (*names.rings, *names.cursors) if name in observed.objects]
        # In the order in which a writer takes them: one in the midst of capture waits for us, and not we for it.
        in_order = (names.stop, names.slot, *(each for each in names.sequences if each not in (names.stop, names.slot)))
        sequences = [name for name in in_order if name in observed.objects]
        steps += [Step(f"drop {name}", f"DROP SEQUENCE {ours(name)}", Kind.RING) for name in sequences]
        steps += [Step(f"drop {name}", f"DROP TABLE {ours(name)}", Kind.RING) for name in tables]
        if observed.registered_table is not None:
            steps += [
                Step(what, f"DELETE FROM {SCHEMA}.{table} WHERE hash = {literal(names.hash)}")
                for what, table in (("forget the watcher", "watcher"), ("forget its progress", "progress"))
                if table in observed.shared_tables
            ]
        if is_last and not observed.shared_owners:
            steps += [Step(f"drop {thing}", f"DROP {thing}") for thing in _SHARED]
    if observed.function is not None:
        steps.append(_drop_function(names))
    keeps_ring = policy is DeletionPolicy.RETAIN and bool(observed.objects)
    return Plan(tuple(steps), keeps_ring, observed.shared_owners if is_last else ())


def _schema_steps(observed: Observed) -> list[Step]:
    steps = []
    if not observed.schema_exists:
        steps += [
            Step(f"create schema {SCHEMA}", f"CREATE SCHEMA {SCHEMA}"),
            Step("mark it as ours", f"COMMENT ON SCHEMA {SCHEMA} IS {literal(SCHEMA_COMMENT)}"),
        ]
    ahead = bool(observed.migrations)
    for version, text in migrations():
        if version not in observed.migrations:
            noted = f"INSERT INTO {SCHEMA}.migration (version) VALUES ({version})"
            steps.append(Step(f"migrate schema {SCHEMA} to version {version}", text, goes_ahead=ahead))
            steps.append(Step("note the migration", noted, goes_ahead=ahead))
    return steps


def _ring_steps(observed: Observed, names: WatcherNames) -> list[Step]:
    if observed.objects:
        upgrade = locking_steps(observed, names)
        return [
            *(Step(what, sql, Kind.RING) for what, sql in repair_steps(observed, names)),
            *(Step(what, sql, Kind.RING, locks_table=True, excludes_readers=True) for what, sql in upgrade),
        ]
    # Nothing can be in the ring before this transaction commits, so any snapshot taken in it is early enough.
    first = free_cursor(names, "pg_catalog.pg_current_snapshot()")
    made = (*whole_ring(names), ("set the cursor to now", first))
    return [Step(what, sql, Kind.RING) for what, sql in made]


def _grant_steps(observed: Observed, names: WatcherNames) -> list[Step]:
    grants = missing(needed(names), observed.grantee) if observed.grantee is not None else ""
    return [Step("let the listener's role read and deliver", grants)] if grants else []


def _drop_function(names: WatcherNames) -> Step:
    return Step(
        f"drop function {names.function} and its trigger",
        f"DROP FUNCTION {ours(names.function)}() CASCADE",
        Kind.FUNCTION,
        locks_table=True,
        excludes_readers=True,
    )


def _register(wanted: Desired, facts: TableFacts, table: str, here: Home | None, names: WatcherNames) -> str:
    """With another table of the same name a generation begins: a dump that brought it may have set back the ids."""
    home = (
        f"{literal(here.system_identifier)}, {here.database_oid:d}, {here.timeline:d}" if here else "NULL, NULL, NULL"
    )
    return (
        f"INSERT INTO {SCHEMA}.watcher AS w"
        " (hash, identity, table_oid, table_name, source_digest, system_identifier, database_oid, timeline)"
        f" VALUES ({literal(names.hash)}, {literal(names.identity)}, {facts.shape.oid}, {literal(table)},"
        f" {literal(source_digest(wanted.function_source))}, {home})"
        " ON CONFLICT (hash) DO UPDATE SET generation = w.generation + (w.table_oid <> excluded.table_oid)::integer,"
        " table_oid = excluded.table_oid, table_name = excluded.table_name, source_digest = excluded.source_digest,"
        " system_identifier = coalesce(w.system_identifier, excluded.system_identifier),"
        " database_oid = coalesce(w.database_oid, excluded.database_oid),"
        " timeline = coalesce(w.timeline, excluded.timeline)"
    )
