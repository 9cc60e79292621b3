"""How inserts are captured: by which kind of trigger, and by which form of the function (decisions 0007, 0018). Pure.

The kind of trigger follows from the table and from `granularity` alone: exchanging triggers takes a lock on the table,
and columns and conditions must be free to change without one. They decide only whether a statement trigger writes its
rows as a set or one by one.
"""

from __future__ import annotations

from ...spec.model import WHOLE_ROW, Action, Granularity, WatcherSpec
from ..shape import TableShape
from .conditions import Filter
from .statement_source import ROW

# As the catalog query `rows_only` words them.
SUBSCRIBED = "a subscription writes to it"
INHERITED = "tables inherit from it"
PARTITION_OF = "the table is a partition of "


def by_statement(spec: WatcherSpec, shape: TableShape) -> bool:
    """Whether inserts are captured by a statement trigger: asked for, or left to us, and exact."""
    if Action.INSERT not in spec.actions or spec.capture.granularity is Granularity.ROW:
        return False
    # What a statement's rows need past work_mem goes to disk, for us alone: under a limit the write itself could fail.
    # Who asks for statements knows how much they write at once.
    return not shape.rows_only and (spec.capture.granularity is Granularity.STATEMENT or not shape.spills_limited)


def as_set(spec: WatcherSpec, shape: TableShape) -> bool:
    """Whether a statement trigger can write its rows with one INSERT that cannot raise; else row by row."""
    if not shape.primary_key or any(column.name == ROW for column in shape.columns):
        return False
    captured = {*shape.primary_key, *spec.columns}
    whole = spec.columns == WHOLE_ROW
    if not all(shape.in_set(column) for column in shape.columns if whole or column.name in captured):
        return False
    return Filter(spec.where, {column.name: column for column in shape.columns}).in_set


def is_partition(shape: TableShape) -> bool:
    """Whether the table is part of another one."""
    return any(why.startswith(PARTITION_OF) for why in shape.rows_only)


def notes(shape: TableShape) -> list[str]:
    """What of the table a watcher does not see, or sees in another order, and what can be done about it."""
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
    return [*found, *shape.remarks]
