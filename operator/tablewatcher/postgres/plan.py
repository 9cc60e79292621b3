"""The difference between what a watcher wants and what is there, as ordered steps. Pure.

An empty plan means in sync, and then nothing is run at all. All steps of a plan run in one transaction, so that
nothing is ever half-installed; the only ones that lock the watched table come last.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import DatabaseError, Reason
from ..naming import RING_SLOTS, SCHEMA, WatcherNames
from ..spec.model import DeletionPolicy, WatcherSpec
from .catalog import Observed, TableFacts
from .ddl import Desired, create_function, desired, identifier, literal, neutral_source, ours
from .sql import RING, RING_SLOT, migrations

_ENABLED = ("O", "A")


@dataclass(frozen=True, slots=True)
class Step:
    """One statement. `what` says it to a person; `locks_table`: it needs a lock on the watched table."""

    what: str
    sql: str
    locks_table: bool = False


@dataclass(frozen=True, slots=True)
class Plan:
    """Ordered steps; none: in sync."""

    steps: tuple[Step, ...]

    def __bool__(self) -> bool:
        return bool(self.steps)


def plan(spec: WatcherSpec, observed: Observed, names: WatcherNames) -> Plan:
    """The steps that make the database as `spec` wants it; DatabaseError where something stands against it."""
    facts = check(spec, observed, names)
    wanted = desired(spec, facts.shape, names)
    steps = [*_schema_steps(observed), *_ring_steps(observed, names)]
    stale = observed.function is not None and _must_rebuild(wanted, observed, facts, names)
    if stale:
        steps.append(_drop_function(names))
    if stale or not _function_in_sync(wanted, observed):
        steps.append(
            Step(f"write function {names.function}", create_function(names, wanted.function_source, wanted.settings))
        )
        steps += [
            Step("keep it from others", f"REVOKE ALL ON FUNCTION {ours(names.function)}() FROM PUBLIC"),
            Step("mark it as ours", f"COMMENT ON FUNCTION {ours(names.function)}() IS {literal(names.identity)}"),
        ]
    if not observed.registered:
        steps.append(Step("register the watcher", _register(facts, names)))
    if stale or not _trigger_in_sync(wanted, observed, facts, names):
        steps.append(
            Step(f"install trigger {names.trigger}", _create_trigger(spec, wanted, observed, names), locks_table=True)
        )
    return Plan(tuple(steps))


def neutralise(observed: Observed, names: WatcherNames) -> Plan:
    """Stops capture without a lock on the table: the first step of removal."""
    if observed.function is None:
        return Plan(())
    _refuse_foreign(observed, names)
    return Plan(
        (
            Step(
                f"stop capture in {names.function}",
                create_function(names, neutral_source(), ("search_path=pg_catalog, pg_temp",)),
            ),
        )
    )


def removal(observed: Observed, names: WatcherNames, policy: DeletionPolicy, *, last: bool) -> Plan:
    """The steps that remove a watcher, and with `last` what all watchers share."""
    _refuse_foreign(observed, names)
    steps = []
    if observed.function is not None:
        steps.append(_drop_function(names))
    if policy is DeletionPolicy.DELETE:
        tables = [name for name in (*names.rings, *names.cursors) if name in observed.objects]
        sequences = [name for name in (names.ids, names.slot, names.wake, names.stop) if name in observed.objects]
        steps += [Step(f"drop {name}", f"DROP TABLE {ours(name)}") for name in tables]
        steps += [Step(f"drop {name}", f"DROP SEQUENCE {ours(name)}") for name in sequences]
        if observed.registered:
            steps += [
                Step("forget the watcher", f"DELETE FROM {SCHEMA}.watcher WHERE hash = {literal(names.hash)}"),
                Step("forget its progress", f"DELETE FROM {SCHEMA}.progress WHERE hash = {literal(names.hash)}"),
            ]
        if last and observed.migrations:
            steps += [
                Step(f"drop {thing}", f"DROP {thing}")
                for thing in (
                    f"FUNCTION {SCHEMA}.token(text[])",
                    f"TABLE {SCHEMA}.progress",
                    f"TABLE {SCHEMA}.watcher",
                    f"TABLE {SCHEMA}.migration",
                )
            ]
    return Plan(tuple(steps))


def check(spec: WatcherSpec, observed: Observed, names: WatcherNames) -> TableFacts:
    """Everything that would make the plan fail, said before a statement is run. The table's facts where all is well."""
    server, table = observed.server, f"{spec.table.schema}.{spec.table.name}"
    if server.version < 130_000:
        raise DatabaseError(
            Reason.MANUAL_ACTION_REQUIRED, f"PostgreSQL {server.version // 10_000} is too old; 13 or later is needed"
        )
    if server.in_recovery:
        raise DatabaseError(Reason.READ_ONLY_REPLICA, "this server is a standby; connect to the primary")
    facts = _check_table(observed, table)
    _check_rights(spec, observed, facts)
    _check_columns(spec, facts, table)
    if server.publications:
        named = ", ".join(identifier(name) for name in server.publications)
        raise DatabaseError(
            Reason.PUBLICATION_CONFLICT,
            f"publication {named} is FOR ALL TABLES: it would send our ring to its subscribers and stop them;"
            " publish named tables or schemas instead",
        )
    _refuse_foreign(observed, names)
    return facts


def _check_table(observed: Observed, table: str) -> TableFacts:
    facts = observed.table
    if facts is None:
        hint = f"; did you mean {' or '.join(observed.similar_tables)}?" if observed.similar_tables else ""
        raise DatabaseError(
            Reason.TABLE_NOT_FOUND, f"there is no table {table} in database {observed.server.database!r}{hint}"
        )
    if facts.kind not in ("r", "p"):
        kinds = {"v": "a view", "m": "a materialized view", "f": "a foreign table"}
        raise DatabaseError(
            Reason.TABLE_NOT_FOUND,
            f"{table} is {kinds.get(facts.kind, 'no table')}; watch the table where its rows are written",
        )
    if not facts.shape.columns:
        raise DatabaseError(Reason.COLUMN_NOT_FOUND, f"{table} has no columns, so its rows cannot be told apart")
    return facts


def _check_rights(spec: WatcherSpec, observed: Observed, facts: TableFacts) -> None:
    server = observed.server
    role, grants = identifier(server.role), []
    if not observed.schema_exists and not server.may_create_schema:
        grants.append(f"GRANT CREATE ON DATABASE {identifier(server.database)} TO {role}")
    if observed.schema_exists and not server.may_use_schema:
        grants.append(f"GRANT USAGE, CREATE ON SCHEMA {SCHEMA} TO {role}")
    if not facts.may_see:
        grants.append(f"GRANT USAGE ON SCHEMA {identifier(spec.table.schema)} TO {role}")
    if not facts.may_trigger:
        qualified = f"{identifier(spec.table.schema)}.{identifier(spec.table.name)}"
        grants.append(f"GRANT TRIGGER ON TABLE {qualified} TO {role}")
    if grants:
        raise DatabaseError(
            Reason.PERMISSION_DENIED, f"role {role} lacks rights; the owner must run: {'; '.join(grants)};"
        )


def _check_columns(spec: WatcherSpec, facts: TableFacts, table: str) -> None:
    have = {column.name: column for column in facts.shape.columns}
    named = [("columns", name) for name in spec.columns if name != "*"]
    named += [("triggerColumns", name) for name in spec.trigger_columns]
    missing = [f"{name!r} (spec.{where})" for where, name in named if name not in have]
    if missing:
        raise DatabaseError(
            Reason.COLUMN_NOT_FOUND, f"{table} has no column {', '.join(missing)}; it has: {', '.join(have)}"
        )
    virtual = [f"{name!r} (spec.{where})" for where, name in named if have[name].virtual]
    if virtual:
        raise DatabaseError(
            Reason.COLUMN_NOT_FOUND,
            f"{', '.join(virtual)} of {table} is a virtual generated column, which triggers cannot see;"
            " name the columns it is made from, or make it STORED",
        )


def _refuse_foreign(observed: Observed, names: WatcherNames) -> None:
    comments = dict(observed.objects)
    if observed.function is not None:
        comments[names.function] = observed.function.comment
    foreign = [f"{name} ({comment or 'no comment'})" for name, comment in comments.items() if comment != names.identity]
    if foreign:
        raise DatabaseError(
            Reason.OWNED_ELSEWHERE,
            f"objects with our names carry another identity than {names.identity!r} and are left alone: {', '.join(foreign)}",
        )


def _schema_steps(observed: Observed) -> list[Step]:
    steps = []
    if not observed.schema_exists:
        steps.append(Step(f"create schema {SCHEMA}", f"CREATE SCHEMA {SCHEMA}"))
    for version, text in migrations():
        if version not in observed.migrations:
            steps.append(Step(f"migrate schema {SCHEMA} to version {version}", text))
            steps.append(Step("note the migration", f"INSERT INTO {SCHEMA}.migration (version) VALUES ({version})"))
    return steps


def _ring_steps(observed: Observed, names: WatcherNames) -> list[Step]:
    if names.ids in observed.objects:
        return []
    owner = literal(names.identity)
    steps = [Step("create the ring's sequences", RING.format(hash=names.hash, identity=owner))]
    steps += [
        Step(f"create slot {slot} of the ring", RING_SLOT.format(hash=names.hash, identity=owner, slot=slot))
        for slot in range(RING_SLOTS)
    ]
    # Nothing can be in the ring before this transaction commits, so any snapshot taken in it is early enough.
    first = (
        f"INSERT INTO {ours(names.cursors[0])} (epoch, n, holder, expires_at, prev, after_id)"
        " VALUES (0, 0, '', '-infinity', pg_catalog.pg_current_snapshot(), 0)"
    )
    return [*steps, Step("set the cursor to now", first)]


def _must_rebuild(wanted: Desired, observed: Observed, facts: TableFacts, names: WatcherNames) -> bool:
    """Whether triggers must go before ours can stand: on another table, or on a server that cannot replace one.

    Dropping the function takes its triggers along, which needs no ownership of the table; DROP TRIGGER would.
    """
    if any(trigger.table_oid != facts.shape.oid or trigger.name != names.trigger for trigger in observed.triggers):
        return True
    replaceable = observed.server.version >= 140_000
    return bool(observed.triggers) and not replaceable and not _trigger_in_sync(wanted, observed, facts, names)


def _function_in_sync(wanted: Desired, observed: Observed) -> bool:
    function = observed.function
    return (
        function is not None
        and function.source == wanted.function_source
        and function.security_definer
        and sorted(function.settings) == sorted(wanted.settings)
    )


def _trigger_in_sync(wanted: Desired, observed: Observed, facts: TableFacts, names: WatcherNames) -> bool:
    return any(
        trigger.name == names.trigger
        and trigger.table_oid == facts.shape.oid
        and trigger.type == wanted.trigger_type
        and trigger.enabled in _ENABLED
        for trigger in observed.triggers
    )


def _create_trigger(spec: WatcherSpec, wanted: Desired, observed: Observed, names: WatcherNames) -> str:
    replace = "OR REPLACE " if observed.server.version >= 140_000 else ""
    return (
        f"CREATE {replace}TRIGGER {identifier(names.trigger)} AFTER {wanted.trigger_events}"
        f" ON {identifier(spec.table.schema)}.{identifier(spec.table.name)}"
        f" FOR EACH ROW EXECUTE FUNCTION {ours(names.function)}()"
    )


def _drop_function(names: WatcherNames) -> Step:
    return Step(
        f"drop function {names.function} and its trigger",
        f"DROP FUNCTION {ours(names.function)}() CASCADE",
        locks_table=True,
    )


def _register(facts: TableFacts, names: WatcherNames) -> str:
    return (
        f"INSERT INTO {SCHEMA}.watcher (hash, identity, table_oid)"
        f" VALUES ({literal(names.hash)}, {literal(names.identity)}, {facts.shape.oid})"
    )
