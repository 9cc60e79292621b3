"""A connection string that a person gave: read before anything is done with it, so that a slip is told at once."""

from __future__ import annotations

from psycopg.conninfo import conninfo_to_dict
from psycopg.errors import ProgrammingError

from ..errors import Reason, TableWatcherError

_FORM = (
    "--dsn (or TABLEWATCHER_DSN) cannot be read as a connection string: write"
    " postgresql://user:password@host:5432/database, with special characters of user and password percent-encoded, or"
    " host=... port=... user=... password=... dbname=..."
)


def checked(dsn: str) -> str:
    """`dsn` itself. Raises TableWatcherError(SpecInvalid) where libpq could not read it."""
    try:
        conninfo_to_dict(dsn)
    except ProgrammingError:
        # libpq's own message quotes the text, which may be the password.
        raise TableWatcherError(Reason.SPEC_INVALID, _FORM) from None
    return dsn
