"""The account Postgres runs as: ourselves, or, since Postgres refuses root, somebody without rights."""

from __future__ import annotations

import os
import pwd
import stat
import tempfile
from dataclasses import dataclass
from pathlib import Path

from .installation import EmbeddedUnavailable

# Not `postgres`: where that account exists, a real server's files belong to it.
_CANDIDATES = ("nobody", "daemon")


@dataclass(frozen=True, slots=True)
class Account:
    """A user and group id to start a program with."""

    uid: int
    gid: int


def server_account() -> Account | None:
    """The account to drop to; None when we are not root and the server runs as ourselves."""
    if os.geteuid() != 0:
        return None
    for name in _CANDIDATES:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        if entry.pw_uid != 0:
            return Account(entry.pw_uid, entry.pw_gid)
    raise EmbeddedUnavailable(
        "Postgres refuses to run as root, and none of the users "
        f"{', '.join(_CANDIDATES)} exists to run it as: start this as another user"
    )


def open_way(directory: Path, account: Account) -> None:
    """Let `account` pass through `directory` and its parents (search only: nothing becomes listable).

    Only `directory` itself and root's own directories below the temporary directory are changed (those of
    tempfile and pytest are closed to others); anything else that is in the way is an error.
    """
    temporary = Path(tempfile.gettempdir()).resolve()
    for step in (directory, *directory.parents):
        status = step.stat()
        if _may_pass(status, account):
            continue
        ours = step == directory or (step != temporary and step.is_relative_to(temporary))
        if not ours or status.st_uid != os.geteuid():
            raise EmbeddedUnavailable(
                f"as root, Postgres runs as user id {account.uid}, which may not pass through {step}: "
                f"choose a directory it can reach, for example below {temporary}"
            )
        step.chmod(stat.S_IMODE(status.st_mode) | stat.S_IXOTH)


def _may_pass(status: os.stat_result, account: Account) -> bool:
    if status.st_uid == account.uid:
        return bool(status.st_mode & stat.S_IXUSR)
    if status.st_gid == account.gid:
        return bool(status.st_mode & stat.S_IXGRP)
    return bool(status.st_mode & stat.S_IXOTH)
