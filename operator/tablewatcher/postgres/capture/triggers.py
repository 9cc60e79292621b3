"""The triggers of a watcher: which, on which tables, and how they are made. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from ...naming import WatcherNames
from ...spec.model import Action, WatcherSpec
from ..quoting import identifier, ours
from ..shape import TableShape
from ..trigger_type import BITS, ROW_BIT, STATEMENT_INSERT
from .granularity import by_statement
from .statement_source import TRANSITION_TABLE


@dataclass(frozen=True, slots=True)
class WantedTrigger:
    """One trigger. `table` qualified and quoted; `type` as pg_trigger.tgtype; new_table: of its transition table."""

    name: str
    table_oid: int
    table: str
    type: int
    new_table: str | None = None

    def create(self, names: WatcherNames, *, replace: bool) -> str:
        """The statement that makes it."""
        events = " OR ".join(action.value.upper() for action, bit in BITS.items() if self.type & bit)
        referencing = f" REFERENCING NEW TABLE AS {self.new_table}" if self.new_table else ""
        level = "ROW" if self.type & ROW_BIT else "STATEMENT"
        return (
            f"CREATE {'OR REPLACE ' if replace else ''}TRIGGER {identifier(self.name)} AFTER {events} ON {self.table}"
            f"{referencing} FOR EACH {level} EXECUTE FUNCTION {ours(names.function)}()"
        )


def wanted_triggers(spec: WatcherSpec, shape: TableShape, names: WatcherNames) -> tuple[WantedTrigger, ...]:
    """The triggers that `spec` asks for on a table of this shape, the table's own first."""
    table = f"{identifier(spec.table.schema)}.{identifier(spec.table.name)}"
    found = []
    rows = spec.actions - {Action.TRUNCATE}
    if by_statement(spec, shape):
        rows -= {Action.INSERT}
        found.append(
            WantedTrigger(names.insert_trigger, shape.oid, table, STATEMENT_INSERT, new_table=TRANSITION_TABLE)
        )
    if rows:
        bits = ROW_BIT | sum(BITS[action] for action in rows)
        found.append(WantedTrigger(names.trigger, shape.oid, table, bits))
    if Action.TRUNCATE in spec.actions:
        # Statement triggers are not inherited: a TRUNCATE of a partition alone fires the partition's only.
        everywhere = ((shape.oid, table), *shape.partitions)
        found += [WantedTrigger(names.truncate_trigger, oid, name, BITS[Action.TRUNCATE]) for oid, name in everywhere]
    return tuple(found)
