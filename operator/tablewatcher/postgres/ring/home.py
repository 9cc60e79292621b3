"""The home of a watcher: the database it was made in, told from copies of it and from what a failover left. Pure.

A copy (a restored dump, `CREATE DATABASE ... TEMPLATE`, a cluster made by pg_upgrade) has another system identifier or
another database oid. It carries our triggers and what was not yet delivered, and must not deliver it beside the
original. A server that was promoted has the same identity on another timeline: it goes on, but commits may be lost.
"""

from __future__ import annotations

from dataclasses import dataclass

from ...errors import DatabaseError, Reason
from ...naming import SCHEMA, WatcherNames
from ..quoting import literal, ours
from .chunks import LAST_ID
from .cursor_sql import free_cursor, newest
from .gap_sql import insert_gap
from .position import of_cursor

_COLUMNS = "id, at, op, key, old_key, data, context, traceparent, routing, taken_at, bodies"


@dataclass(frozen=True, slots=True)
class Home:
    """A database on a server that is no standby."""

    system_identifier: str
    database_oid: int
    timeline: int

    @property
    def word(self) -> str:
        """How a person names it to adopt a watcher there."""
        return f"{self.system_identifier}-{self.database_oid}"

    def is_copy_of(self, recorded: Home) -> bool:
        """Whether this is another database than `recorded`."""
        return self.word != recorded.word

    def is_after_failover(self, recorded: Home) -> bool:
        """Whether a server has been promoted since `recorded`."""
        return not self.is_copy_of(recorded) and self.timeline != recorded.timeline

    def next_generation(self, generation: int) -> int:
        """The one after a failover to here, or a restore to a point in time, that finds `generation`.

        Where that is set back to before another failover, the next number has been sent already: no later timeline has.
        """
        return max(generation + 1, self.timeline)


def moves_here(recorded: Home | None, here: Home, adopt: str | None) -> bool:
    """Whether a watcher is to be adopted here. Raises DatabaseError(CloneRefused) where nobody has said so."""
    if recorded is None or not here.is_copy_of(recorded):
        return False
    if adopt == here.word:
        return True
    raise refusal(recorded, here)


def refusal(recorded: Home, here: Home) -> DatabaseError:
    """Why nothing is delivered from here, and the two ways on."""
    return DatabaseError(
        Reason.CLONE_REFUSED,
        f"this database ({here.word}) is a copy of the one the watcher was made in ({recorded.word}), so nothing is"
        " delivered from it. If the database has moved here (dump and restore, pg_upgrade), run"
        f" `tablewatcher apply --adopt {here.word}`, or set the annotation tablewatcher.io/adopt to {here.word}."
        " If it is a copy to be watched for itself, run `tablewatcher destroy` first: what the copy holds undelivered"
        " is dropped",
    )


def foreign_rows() -> DatabaseError:
    """Why nothing is delivered from a ring that holds what transactions of another cluster have written."""
    return DatabaseError(
        Reason.MANUAL_ACTION_REQUIRED,
        "the ring holds rows, or a cursor, of transactions that this server has not had yet: a dump of another one has"
        " been loaded into schema tablewatcher (pg_restore --data-only), or a subscription writes there, so nothing is"
        " delivered. Run `tablewatcher destroy`, which drops what the ring holds, then `apply`, and leave that schema"
        " out of the next dump (--exclude-schema=tablewatcher), or of the publication",
    )


def later_form() -> DatabaseError:
    """Why nothing is delivered from a ring that holds what a later version has written in another form."""
    return DatabaseError(
        Reason.MANUAL_ACTION_REQUIRED,
        "a later version of TableWatcher has written to this ring, in a form that this one does not know, so nothing is"
        " delivered. Use that version again; to go back from it, `apply` with this one first, and leave a listener of"
        " that one running until `tablewatcher status` shows that nothing waits",
    )


def adoption(names: WatcherNames, here: Home, table_oid: int) -> tuple[str, str, str]:
    """Statements that make `here` the home, in one transaction: what is undelivered is kept, a gap is announced.

    table_oid: of the watched table here.
    """
    moved = (
        f"UPDATE {SCHEMA}.watcher SET generation = generation + 1, table_oid = {table_oid:d}, system_identifier ="
        f" {literal(here.system_identifier)}, database_oid = {here.database_oid:d}, timeline = {here.timeline:d}"
        f" WHERE hash = {literal(names.hash)}"
    )
    # What was written in the old home after the copy was taken is not known here.
    return _carry_over(names), moved, insert_gap(names, 0, "moved")


def _carry_over(names: WatcherNames) -> str:
    """Gives undelivered rows a transaction id of this cluster, drops the others, and starts the cursor before them.

    A dump restored into a younger cluster brings ids that are far ahead of the cluster's own, and then rows written
    here since have ids that the old cursor takes for delivered: those below our own next id are kept. One statement,
    so one snapshot: what is not visible to it stays and is read after. The cursor is set by the xmin, which our own
    id is never below; the snapshot itself would leave our id out and count what we carry over as seen.
    """
    emptied = ", ".join(
        f"e{slot} AS (DELETE FROM {ours(ring)} RETURNING xid, {_COLUMNS})" for slot, ring in enumerate(names.rings)
    )
    rows = " UNION ALL ".join(f"SELECT * FROM e{slot}" for slot in range(len(names.rings)))
    here = "pg_catalog.pg_current_snapshot()"
    epoch = "coalesce((SELECT epoch FROM c), 0) + 1"
    seen = (
        f"pg_catalog.format('%s:%s:', pg_catalog.pg_snapshot_xmin({here}), pg_catalog.pg_snapshot_xmin({here}))"
        "::pg_catalog.pg_snapshot"
    )
    return (
        f"WITH c AS MATERIALIZED ({newest(names, '*')}), {emptied},"
        f" kept AS (INSERT INTO {ours(names.rings[0])} ({_COLUMNS}) SELECT {_COLUMNS} FROM ({rows}) AS r"
        f" LEFT JOIN c ON true WHERE c.prev IS NULL OR NOT {of_cursor('c').delivered('r.xid', LAST_ID)}"
        f" OR (pg_catalog.pg_snapshot_xmax(c.prev) > pg_catalog.pg_snapshot_xmax({here})"
        f" AND r.xid < pg_catalog.pg_snapshot_xmax({here})) ORDER BY id)"
        f" {free_cursor(names, seen, epoch, n=1)}"
    )
