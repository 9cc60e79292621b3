"""The rights that our own role lacks, as the GRANT statements that give them. Pure."""

from __future__ import annotations

from ...naming import SCHEMA, WatcherNames
from ...spec.model import WatcherSpec
from ..capture.triggers import wanted_triggers
from ..quoting import identifier
from ..trigger_type import ROW_BIT
from .catalog import Observed, TableFacts
from .comparison import must_rebuild, trigger_in_sync


def to_look(observed: Observed) -> list[str]:
    """Whoever runs the SQL has the rights for it; we only have to see what is there."""
    role, grants = identifier(observed.server.role), []
    if observed.schema_exists and not observed.server.may_see_schema:
        grants.append(f"GRANT USAGE ON SCHEMA {SCHEMA} TO {role}")
    if not observed.shared_readable:
        grants.append(f"GRANT SELECT ON TABLE {SCHEMA}.migration, {SCHEMA}.watcher TO {role}")
    return grants


def to_apply(spec: WatcherSpec, observed: Observed, names: WatcherNames) -> list[str]:
    """What the steps will need, and nothing more."""
    server, facts, grants = observed.server, observed.table, []
    role = identifier(server.role)
    if not observed.schema_exists and not server.may_create_schema:
        grants.append(f"GRANT CREATE ON DATABASE {identifier(server.database)} TO {role}")
    if observed.schema_exists and not server.may_use_schema:
        grants.append(f"GRANT USAGE, CREATE ON SCHEMA {SCHEMA} TO {role}")
    if observed.function is None and server.closed_languages:
        grants.append(f"GRANT USAGE ON LANGUAGE {', '.join(server.closed_languages)} TO {role}")
    if not observed.shared_usable:
        grants.append(shared_grant(observed))
    if facts is None:
        return grants
    if not facts.may_see:
        grants.append(f"GRANT USAGE ON SCHEMA {identifier(spec.table.schema)} TO {role}")
    if closed := _closed(spec, observed, facts, names):
        grants.append(f"GRANT TRIGGER ON TABLE {', '.join(closed)} TO {role}")
    return grants


def _closed(spec: WatcherSpec, observed: Observed, facts: TableFacts, names: WatcherNames) -> list[str]:
    """The table and its partitions, of those that triggers are to be made on and that we lack the TRIGGER privilege on.

    A row trigger is made on all of them. On a partition that comes later the server puts it, in its owner's name.
    """
    wanted = wanted_triggers(spec, facts.shape, names)
    rebuilds = must_rebuild(wanted, observed)
    absent = [each for each in wanted if rebuilds or not trigger_in_sync(each, observed)]
    places = {each.table for each in absent}
    if any(each.type & ROW_BIT for each in absent):
        places |= {name for _, name in facts.shape.partitions}
    itself = f"{identifier(spec.table.schema)}.{identifier(spec.table.name)}"
    return [name for name in (*([] if facts.may_trigger else [itself]), *facts.closed_partitions) if name in places]


def shared_grant(observed: Observed) -> str:
    """What lets our role use the tables, and the functions, that another role made for all watchers."""
    role = identifier(observed.server.role)
    tables = ", ".join(f"{SCHEMA}.{name}" for name in observed.shared_tables)
    functions = ", ".join(f"{SCHEMA}.{name}" for name in observed.shared_functions)
    return (
        f"GRANT SELECT, INSERT, UPDATE, DELETE ON TABLE {tables} TO {role};"
        f" GRANT EXECUTE ON FUNCTION {functions} TO {role}"
    )
