"""What of a watcher is as it should be, and what has been changed under us. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from ...errors import DatabaseError, Reason
from ...spec.model import Table
from ..capture.ddl import Desired, source_digest
from ..capture.granularity import is_partition
from ..capture.triggers import WantedTrigger
from ..quoting import identifier
from ..trigger_type import STATEMENT_INSERT
from .catalog import Observed, TableFacts

_ENABLED = ("O", "A")


class AnotherTable(DatabaseError):
    """The manifest names another table than the one that the watcher is applied to."""


def captures(wanted: Desired, observed: Observed, facts: TableFacts) -> bool:
    """Whether capture went on until now: triggers of ours stand and fire, by whatever name, and always have.

    Where the function is as wanted, nobody has changed the manifest, and every one of its triggers must be there;
    else any will do: they may be for other actions. A table that has taken the place of another brought rows that none
    of ours has seen; in a copy of the database that is told by itself.
    """
    if is_exchanged(observed, facts):
        return False
    here = [each for each in observed.triggers if each.table_oid == facts.shape.oid]
    if is_partition(facts.shape) and any(each.type == STATEMENT_INSERT for each in here):
        return False  # rows come in by way of its root, and fire no statement trigger of its own
    alive = {each.type for each in here if each.enabled in _ENABLED and not each.touched}
    if not function_in_sync(wanted, observed):
        return bool(alive)
    return all(each.type in alive for each in wanted.triggers if each.table_oid == facts.shape.oid)


def was_replaced(observed: Observed) -> bool:
    """Whether the function is not the one that was installed, whatever is wanted now."""
    return (
        observed.function is not None
        and observed.installed_source is not None
        and source_digest(observed.function.source) != observed.installed_source
    )


def is_exchanged(observed: Observed, facts: TableFacts) -> bool:
    """Whether, in the watcher's own database, another table has the name of the one that it was applied to."""
    here, recorded = observed.here, observed.recorded
    at_home = here is not None and recorded is not None and not here.is_copy_of(recorded)
    return at_home and observed.registered_table not in (None, facts.shape.oid)


def is_registered(wanted: Desired, observed: Observed, facts: TableFacts, table: str) -> bool:
    """Whether our own record of the watcher says what is there. table: as the manifest names it, quoted."""
    return (
        observed.registered_table == facts.shape.oid
        and observed.registered_name == table
        and observed.recorded is not None
        and observed.installed_source == source_digest(wanted.function_source)
    )


def must_rebuild(wanted: Sequence[WantedTrigger], observed: Observed) -> bool:
    """Whether triggers must go before ours can stand: those that nobody wants, or on a server that cannot replace one.

    Dropping the function takes its triggers along, which needs no ownership of the table; DROP TRIGGER would.
    """
    places = {(trigger.name, trigger.table_oid) for trigger in wanted}
    if any((trigger.name, trigger.table_oid) not in places for trigger in observed.triggers):
        return True
    if not observed.triggers or observed.server.version >= 140_000:
        return False
    return not all(trigger_in_sync(each, observed) for each in wanted)


def function_in_sync(wanted: Desired, observed: Observed) -> bool:
    """Whether the function is there as it would be written now."""
    function = observed.function
    return (
        function is not None
        and function.source == wanted.function_source
        and function.security_definer
        and function.owners_may_call
        and not function.all_may_call
        and sorted(function.settings) == sorted(wanted.settings)
    )


def trigger_in_sync(wanted: WantedTrigger, observed: Observed) -> bool:
    """Whether the trigger stands as it would be made now, and has fired ever since it was made."""
    return any(
        trigger.name == wanted.name
        and trigger.table_oid == wanted.table_oid
        and trigger.type == wanted.type
        and trigger.new_table == wanted.new_table
        and trigger.enabled in _ENABLED
        and not trigger.touched
        for trigger in observed.triggers
    )


def quoted(table: Table) -> str:
    """As `tablewatcher.watcher` keeps it."""
    return f"{identifier(table.schema)}.{identifier(table.name)}"


def refuse_another(table: Table, observed: Observed, facts: TableFacts) -> None:
    """Raises AnotherTable where the manifest names another table than before.

    The very same one by another name is a rename in the database; another by the same name has taken its place.
    """
    was = observed.registered_name
    if observed.registered_table in (None, facts.shape.oid) or was in (None, quoted(table)):
        return
    raise AnotherTable(
        Reason.MANUAL_ACTION_REQUIRED,
        f"this watcher is applied to {was}, and spec.table names another table, {quoted(table)}: what waits of the"
        " first would go out as changes of the second. Give the manifest another metadata.name, and end the first with"
        " `tablewatcher destroy` and the manifest as it was; or, under the same name, `tablewatcher destroy`"
        " (with deletionPolicy: Delete; what is not delivered is gone), then `tablewatcher apply`",
    )
