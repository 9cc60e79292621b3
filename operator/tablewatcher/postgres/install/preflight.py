"""What stands against a plan: said before a statement is run, with the remedy. Pure."""

from __future__ import annotations

from collections.abc import Callable

from ...errors import DatabaseError, Reason
from ...naming import SCHEMA, WatcherNames
from ...spec.model import WHOLE_ROW, Action, Granularity, Management, Table, WatcherSpec
from ..quoting import identifier
from ..shared import MADE_BY
from ..sql import migrations
from .capture_rights import lost_rights
from .catalog import Observed, TableFacts
from .own_rights import to_apply, to_look
from .similar import hint

_KINDS = {
    "v": "a view",
    "m": "a materialized view",
    "f": "a foreign table",
    "S": "a sequence",
    "i": "an index",
    "I": "an index",
    "c": "a type",
    "t": "where PostgreSQL keeps long values of another table",
}


def check(spec: WatcherSpec, observed: Observed, names: WatcherNames) -> TableFacts:
    """Everything that would make the plan fail, said before a statement is run. The table's facts where all is well."""
    for fault in faults(spec, observed, names):
        raise fault
    assert observed.table is not None  # noqa: S101 - else it would have been a fault
    return observed.table


def faults(spec: WatcherSpec, observed: Observed, names: WatcherNames) -> list[DatabaseError]:
    """All that stands against the plan, in the order in which one would look for it."""
    table, facts = f"{spec.table.schema}.{spec.table.name}", observed.table
    of_table: list[Callable[[], object]] = []
    if facts is not None and facts.is_table:
        of_table = [
            lambda: _check_columns(spec, facts, table),
            lambda: _check_conditions(observed),
            lambda: _check_routing(spec, facts),
            lambda: _check_granularity(spec, facts),
        ]
    checks: list[Callable[[], object]] = [
        lambda: _check_version(observed),
        lambda: _check_primary(observed),
        lambda: _check_encoding(observed),
        lambda: _check_names(observed, names),
        lambda: _check_table(spec.table, observed, table),
        lambda: _check_rights(spec, observed, names),
        lambda: _check_upgrade(spec, observed),
        lambda: _check_shared(observed),
        *of_table,
        lambda: _check_publications(spec, observed),
        lambda: refuse_foreign(observed, names),
    ]
    found = []
    for each in checks:
        try:
            each()
        except DatabaseError as error:
            found.append(error)
    return found


def _check_version(observed: Observed) -> None:
    if observed.server.version < 130_000:
        raise DatabaseError(
            Reason.MANUAL_ACTION_REQUIRED,
            f"PostgreSQL {observed.server.version // 10_000} is too old; 13 or later is needed",
        )


def _check_primary(observed: Observed) -> None:
    if observed.server.in_recovery:
        raise DatabaseError(Reason.READ_ONLY_REPLICA, "this server is a standby; connect to the primary")


def _check_encoding(observed: Observed) -> None:
    server = observed.server
    if server.encoding == "SQL_ASCII":
        raise DatabaseError(
            Reason.MANUAL_ACTION_REQUIRED,
            f"database {server.database!r} has encoding SQL_ASCII: what it holds need not be text that can be"
            " sent; events are UTF-8, so only databases whose encoding turns into it can be watched",
        )


def _check_names(observed: Observed, names: WatcherNames) -> None:
    """The server would cut what is too long, and we would not find again what we have made."""
    longest, room = names.longest, observed.server.longest_name
    if longest > room:
        raise DatabaseError(
            Reason.MANUAL_ACTION_REQUIRED,
            f"this server takes names of at most {room} bytes (max_identifier_length), and the watcher's objects have"
            f" names of up to {longest}: use a server whose NAMEDATALEN is {longest + 1} or more; 64 is usual",
        )


def _check_publications(spec: WatcherSpec, observed: Observed) -> None:
    if subscriptions := observed.server.subscriptions:
        named = ", ".join(identifier(name) for name in subscriptions)
        raise DatabaseError(
            Reason.PUBLICATION_CONFLICT,
            f"subscription {named} writes another database's events into schema {SCHEMA} here, and empties our ring"
            " when theirs is emptied: publish named tables or schemas there, then run `ALTER SUBSCRIPTION"
            f" {identifier(subscriptions[0])} REFRESH PUBLICATION` here, `tablewatcher destroy`, and `apply`",
        )
    publications = observed.server.publications
    if publications and not spec.database.allow_all_tables_publication:
        named = ", ".join(identifier(name) for name in publications)
        raise DatabaseError(
            Reason.PUBLICATION_CONFLICT,
            f"publication {named} is FOR ALL TABLES: it would send our ring to all who read it, and stop subscribers"
            " without its tables; publish named tables or schemas instead (Debezium:"
            " publication.autocreate.mode=filtered), or, where readers leave out schema"
            f" {SCHEMA} (Debezium: schema.exclude.list), set"
            " spec.database.allowAllTablesPublication: true",
        )


def _check_table(wanted: Table, observed: Observed, table: str) -> None:
    facts = observed.table
    if facts is None:
        advice = _renamed(observed, table) or hint(wanted, observed.similar_tables)
        raise DatabaseError(
            Reason.TABLE_NOT_FOUND,
            f"there is no table {table} (spec.table) in database {observed.server.database!r}{advice}",
        )
    if not facts.is_table:
        advice = _renamed(observed, table) or "; watch the table where its rows are written"
        raise DatabaseError(Reason.TABLE_NOT_FOUND, f"{table} is {_KINDS.get(facts.kind, 'no table')}{advice}")
    if refused := _refused(wanted.schema, facts):
        raise DatabaseError(Reason.TABLE_NOT_FOUND, f"{table} {refused}")
    if not facts.shape.key:
        raise DatabaseError(Reason.COLUMN_NOT_FOUND, f"{table} has no stored columns, so its rows cannot be told apart")


def _renamed(observed: Observed, table: str) -> str:
    """Of a table that has another name by now; "" where there is none."""
    if not observed.renamed:
        return ""
    return (
        f": the one that this watcher was applied to is {observed.renamed} by now, and its changes still go out as"
        f" those of {table}; rename it back, or remove this watcher and make one for {observed.renamed}"
    )


def _refused(schema: str, facts: TableFacts) -> str:
    """Why a table that holds rows cannot be watched all the same; "" where it can be."""
    if schema == SCHEMA:
        return "is one of TableWatcher's own: delivering its changes would change it again, without end"
    if schema == "pg_catalog":
        return "is a system catalog, on which PostgreSQL allows no trigger"
    if facts.temporary:
        return "is a temporary table: it goes with the session that made it, and no other can read it"
    return ""


def _check_rights(spec: WatcherSpec, observed: Observed, names: WatcherNames) -> None:
    role = identifier(observed.server.role)
    looks = spec.management is Management.OBSERVE
    if grants := to_look(observed) if looks else to_apply(spec, observed, names):
        harm = ", and writes to the table fail for want of some" if lost_rights(observed, names).of_every_write else ""
        raise DatabaseError(
            Reason.PERMISSION_DENIED, f"role {role} lacks rights{harm}; the owner must run: {'; '.join(grants)};"
        )


def _check_upgrade(spec: WatcherSpec, observed: Observed) -> None:
    """What a later version has made is left to it; what another role has, can be used with its grants, not altered."""
    known, found = max(version for version, _ in migrations()), max(observed.migrations, default=0)
    if found > known:
        raise DatabaseError(
            Reason.MANUAL_ACTION_REQUIRED,
            f"schema {SCHEMA} is of version {found}, and this build knows {known}: a later build has brought it up; use"
            " that one, or a later one still",
        )
    pending = any(version not in observed.migrations for version, _ in migrations())
    if spec.management is Management.MANAGED and observed.migrations and pending and observed.shared_owners:
        raise DatabaseError(
            Reason.PERMISSION_DENIED,
            f"schema {SCHEMA} is of an earlier version, and another role has made it: apply as that role first, or"
            f" GRANT that role to {identifier(observed.server.role)}",
        )


def _check_shared(observed: Observed) -> None:
    """What all watchers share is made once, by migrations: what somebody has dropped of it comes by none of them."""
    there = {*observed.shared_tables, *observed.shared_functions}
    newest = max(observed.migrations, default=1)
    gone = [name for name, version in MADE_BY.items() if version <= newest and name not in there]
    if there and gone:
        raise DatabaseError(
            Reason.TRIGGERS_DRIFTED,
            f"schema {SCHEMA} lacks {', '.join(gone)}, which somebody has dropped: restore it, or DROP SCHEMA {SCHEMA}"
            " CASCADE (all watchers, with what is not delivered), and apply again",
        )


def check_maker(spec: WatcherSpec, observed: Observed) -> None:
    """Hold that the function may be written anew, as when a watcher gets an adminSecretRef after it was applied."""
    made = observed.function
    if made is not None and not made.may_change and spec.management is Management.MANAGED:
        role, owner = identifier(observed.server.role), identifier(made.owner)
        raise DatabaseError(
            Reason.PERMISSION_DENIED,
            f"role {owner} has made what this watcher has in the database, and only it may change that: apply as"
            f" {owner}, or have it run: GRANT {owner} TO {role};",
        )


def _check_columns(spec: WatcherSpec, facts: TableFacts, table: str) -> None:
    have = {column.name: column for column in facts.shape.columns}
    named = [("columns", name) for name in spec.columns if name != "*"]
    named += [("triggerColumns", name) for name in spec.trigger_columns]
    named += [(f"where[{nth}].column", condition.column) for nth, condition in enumerate(spec.where)]
    named += [("sink.nats.subject", name) for name in spec.routing_columns]
    if missing := [f"{name!r} (spec.{where})" for where, name in named if name not in have]:
        raise DatabaseError(
            Reason.COLUMN_NOT_FOUND, f"{table} has no column {', '.join(missing)}; it has: {', '.join(have)}"
        )
    if virtual := [f"{name!r} (spec.{where})" for where, name in named if have[name].virtual]:
        raise DatabaseError(
            Reason.COLUMN_NOT_FOUND,
            f"{', '.join(virtual)} of {table} is a virtual generated column, which triggers cannot see;"
            " name the columns it is made from, or make it STORED",
        )


def _check_conditions(observed: Observed) -> None:
    if observed.refused_conditions:
        raise DatabaseError(Reason.SPEC_INVALID, "; ".join(observed.refused_conditions))


def _check_routing(spec: WatcherSpec, facts: TableFacts) -> None:
    unsent = {column.name for column in facts.shape.columns} - {*spec.columns, *facts.shape.key}
    named = [f"{{column:{name}}}" for name in spec.routing_columns if name in unsent]
    if named and spec.columns != WHOLE_ROW:
        raise DatabaseError(
            Reason.SPEC_INVALID,
            f"spec.sink.nats.subject: {', '.join(named)} names a column that is not sent; add it to spec.columns",
        )


def _check_granularity(spec: WatcherSpec, facts: TableFacts) -> None:
    if spec.capture.granularity is not Granularity.STATEMENT or Action.INSERT not in spec.actions:
        return
    if found := facts.shape.rows_only:
        raise DatabaseError(
            Reason.SPEC_INVALID,
            f"spec.capture.granularity: Statement would not be exact here: {'; '.join(found)}; leave it to Auto",
        )


def refuse_foreign(observed: Observed, names: WatcherNames) -> None:
    """Raises DatabaseError(OwnedElsewhere) where objects with our names are not ours."""
    comments = dict(observed.objects)
    if observed.function is not None:
        comments[names.function] = observed.function.comment
    foreign = {name: comment for name, comment in comments.items() if comment != names.identity}
    if foreign:
        remedy = "remove that watcher, or give this one another metadata.name or --instance"
        if None in foreign.values():
            remedy = f"after a restore without comments, DROP SCHEMA {SCHEMA} CASCADE (all watchers), and apply again"
        named = ", ".join(f"{name} ({comment or 'no comment'})" for name, comment in foreign.items())
        raise DatabaseError(
            Reason.OWNED_ELSEWHERE,
            f"objects with our names carry another identity than {names.identity!r} and are left alone: {named};"
            f" {remedy}",
        )
