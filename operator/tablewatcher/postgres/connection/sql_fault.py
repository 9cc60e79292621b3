"""What an error of a statement means to a person: SQLSTATE and our own words."""

from __future__ import annotations

import psycopg

from ...errors import DatabaseError, Reason, in_short
from ...naming import SCHEMA

REMOVED = "objects of this watcher are missing in the database; apply it again"
# Classes of SQLSTATE: insufficient resources (disk, memory, locks), a limit of the program.
_NO_ROOM = frozenset({"53", "54"})
MISSING = (
    psycopg.errors.UndefinedTable,
    psycopg.errors.UndefinedFunction,
    psycopg.errors.UndefinedColumn,
    psycopg.errors.InvalidSchemaName,
)


def sql_error(error: psycopg.Error) -> DatabaseError:
    """What to raise in its place."""
    said = in_short(error.diag.message_primary)
    if isinstance(error, psycopg.errors.InsufficientPrivilege):
        return DatabaseError(Reason.PERMISSION_DENIED, f"the database denies it (42501): {said}{_advice(said)}")
    if isinstance(error, psycopg.errors.ReadOnlySqlTransaction):
        return DatabaseError(Reason.READ_ONLY_REPLICA, "the database is read-only; use its primary")
    if isinstance(error, MISSING):
        return DatabaseError(Reason.TRIGGERS_DRIFTED, REMOVED)
    if isinstance(error, psycopg.OperationalError):
        return _operational(error)
    return DatabaseError(Reason.MANUAL_ACTION_REQUIRED, f"the database answered {error.sqlstate}: {said}")


def _operational(error: psycopg.OperationalError) -> DatabaseError:
    """A connection that broke; or, where it stands, what the server said: want of room is for a person to mend."""
    said, state = error.diag, error.sqlstate or ""
    pooler = isinstance(error, psycopg.errors.ProtocolViolation)  # puts all that it has to say under one code
    if said.severity_nonlocalized == "ERROR" and not pooler:
        reason = Reason.MANUAL_ACTION_REQUIRED if state[:2] in _NO_ROOM else Reason.DATABASE_UNREACHABLE
        hint = f" ({in_short(said.message_hint)})" if said.message_hint else ""
        return DatabaseError(reason, f"the database answered {state}: {in_short(said.message_primary)}{hint}")
    words = f": {in_short(said.message_primary)}" if pooler else ""
    told = f" ({state}{words})" if state else ""
    return DatabaseError(Reason.DATABASE_UNREACHABLE, f"the connection to the database broke{told}")


def _advice(denied: str) -> str:
    """What to do about what the server does not allow."""
    if denied.startswith("must be owner of"):
        # As when a watcher gets an adminSecretRef after it was applied without one.
        return "; another role has made it: apply as that role, or GRANT that role to this one"
    if denied == f"permission denied for schema {SCHEMA}":
        return "; if capture runs as this role, writes to its table fail: `tablewatcher plan` says the GRANT"
    return ""
