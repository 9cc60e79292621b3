"""Row or statement triggers for inserts: which are exact on a table (decision 0007). Pure."""

from __future__ import annotations

from ..spec.model import WHOLE_ROW, Action, Granularity, WatcherSpec
from .shape import TableShape
from .statement_source import ROW

# As the catalog query `rows_only` words them.
SUBSCRIBED = "a subscription writes to it"
INHERITED = "tables inherit from it"
PARTITION_OF = "the table is a partition of "


def by_statement(spec: WatcherSpec, shape: TableShape) -> bool:
    """Whether inserts are captured by a statement trigger: asked for, or left to us and exact."""
    if Action.INSERT not in spec.actions or spec.capture.granularity is Granularity.ROW:
        return False
    return not obstacles(spec, shape)


def obstacles(spec: WatcherSpec, shape: TableShape) -> list[str]:
    """Why statement triggers would not tell exactly what row triggers do; none: they do."""
    found = list(shape.rows_only)
    if not shape.primary_key:
        found.append("the table has no immediate primary key")
    if spec.where:
        found.append("spec.where compares row by row")
    if spec.columns == WHOLE_ROW:
        found.append("spec.columns is the whole row, with columns that may be added at any time")
    if any(column.name == ROW for column in shape.columns):
        found.append(f"a column is called {ROW}, as we call a whole row")
    captured = {*shape.primary_key, *spec.columns}
    guarded = [column for column in shape.columns if column.name in captured and not column.harmless]
    found += [
        f"column {column.name!r} of type {column.type} must be put into text in a guarded place" for column in guarded
    ]
    return found


def notes(shape: TableShape) -> list[str]:
    """What of the table a watcher does not see, and what can be done about it."""
    found = []
    if SUBSCRIBED in shape.rows_only:
        found.append(
            "a subscription writes to the table, and triggers do not fire for what it applies: the table's owner can"
            " run ALTER TABLE ... ENABLE ALWAYS TRIGGER for those named 00_tablewatcher_..."
        )
    if INHERITED in shape.rows_only:
        found.append("the rows of tables that inherit from it are not captured: each needs a watcher of its own")
    for root in (why.removeprefix(PARTITION_OF) for why in shape.rows_only if why.startswith(PARTITION_OF)):
        found.append(f"the table is a partition, and rows of others are not captured: name {root} for all of them")
    return found
