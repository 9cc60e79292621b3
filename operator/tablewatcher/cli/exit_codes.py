"""Exit codes, by reason. The table in docs/command-line.md is checked against this one."""

from __future__ import annotations

from enum import IntEnum

from ..errors import Reason


class ExitCode(IntEnum):
    """What a script may rely on."""

    OK = 0
    UNEXPECTED = 1
    INVALID = 2
    SECRET = 3
    UNREACHABLE = 4
    AUTHENTICATION = 5
    PERMISSION = 6
    NOT_FOUND = 7
    LOCKED = 8
    SINK = 9
    PERSON = 10
    INTERRUPTED = 130


_BY_REASON = {
    Reason.SPEC_INVALID: ExitCode.INVALID,
    Reason.SECRET_NOT_FOUND: ExitCode.SECRET,
    Reason.SECRET_KEY_MISSING: ExitCode.SECRET,
    Reason.SECRET_NOT_ALLOWED: ExitCode.SECRET,
    Reason.CONFIG_MAP_NOT_FOUND: ExitCode.SECRET,
    Reason.DATABASE_UNREACHABLE: ExitCode.UNREACHABLE,
    Reason.TLS_FAILED: ExitCode.UNREACHABLE,
    Reason.AUTHENTICATION_FAILED: ExitCode.AUTHENTICATION,
    Reason.PERMISSION_DENIED: ExitCode.PERMISSION,
    Reason.TABLE_NOT_FOUND: ExitCode.NOT_FOUND,
    Reason.COLUMN_NOT_FOUND: ExitCode.NOT_FOUND,
    Reason.TABLE_LOCKED: ExitCode.LOCKED,
    Reason.SINK_UNREACHABLE: ExitCode.SINK,
    Reason.SINK_AUTH_FAILED: ExitCode.SINK,
    Reason.ADDRESS_REFUSED: ExitCode.SINK,
    Reason.NO_STREAM_FOR_SUBJECT: ExitCode.SINK,
    Reason.ENDPOINT_GONE: ExitCode.SINK,
}


def exit_code(reason: Reason) -> ExitCode:
    """The exit code of a command that failed for `reason`; whatever is not listed needs a person's decision."""
    return _BY_REASON.get(reason, ExitCode.PERSON)
