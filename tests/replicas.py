"""A physical standby of an embedded server, made with pg_basebackup, and promoted when a test says so."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path

import psycopg

from tablewatcher.embedded import EmbeddedPostgres
from tablewatcher.embedded.account import open_way, server_account


def standby_of(primary: EmbeddedPostgres, directory: Path, settings: dict[str, str]) -> EmbeddedPostgres:
    """A standby of `primary`, which must run, in `directory`; it is not started yet."""
    directory.mkdir()
    account = server_account()
    if account is not None:
        open_way(directory, account)
        os.chown(directory, account.uid, account.gid)
    shutil.copy(primary.directory / "password", directory / "password")
    subprocess.run(
        [primary.bin / "pg_basebackup", "-D", directory / "cluster", "-d", primary.dsn(), "-R", "-c", "fast"],
        user=None if account is None else account.uid,
        group=None if account is None else account.gid,
        extra_groups=None if account is None else [],
        cwd=directory,
        check=True,
    )
    return EmbeddedPostgres(directory, primary.version, settings)


def promote(standby: EmbeddedPostgres) -> None:
    """Returns when it is a primary, on a timeline of its own."""
    with psycopg.connect(standby.dsn(), autocommit=True) as connection:
        assert connection.execute("SELECT pg_promote()").fetchone() == (True,)


def caught_up(primary: EmbeddedPostgres, standby: EmbeddedPostgres) -> bool:
    """Whether the standby has replayed all that the primary has written."""
    with psycopg.connect(primary.dsn(), autocommit=True) as connection:
        row = connection.execute("SELECT pg_current_wal_insert_lsn()").fetchone()
    assert row is not None
    with psycopg.connect(standby.dsn(), autocommit=True) as connection:
        return connection.execute("SELECT pg_last_wal_replay_lsn() >= %s", [row[0]]).fetchone() == (True,)


def cut_off(standby: EmbeddedPostgres) -> None:
    """Returns when the standby hears no more from its primary: what that commits from now on is lost with it."""
    deadline = time.monotonic() + 10
    with psycopg.connect(standby.dsn(), autocommit=True) as connection:
        connection.execute("ALTER SYSTEM SET primary_conninfo = ''")
        connection.execute("SELECT pg_reload_conf()")
        while connection.execute("SELECT FROM pg_stat_wal_receiver").fetchone() is not None:
            assert time.monotonic() < deadline, "the standby goes on listening"
            time.sleep(0.02)
