"""Other servers made of an embedded one: a standby by pg_basebackup, promoted when a test says so, and by pg_upgrade a
cluster of the next version."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
from psycopg import sql

from tablewatcher.embedded import EmbeddedPostgres, free_port
from tablewatcher.embedded.account import open_way, server_account

from .versions import newest_postgres


def standby_of(primary: EmbeddedPostgres, directory: Path, settings: dict[str, str]) -> EmbeddedPostgres:
    """A standby of `primary`, which must run, in `directory`; it is not started yet."""
    directory.mkdir()
    shutil.copy(primary.directory / "password", directory / "password")
    _run(directory, primary.bin / "pg_basebackup", "-D", directory / "cluster", "-d", primary.dsn(), "-R", "-c", "fast")
    return newest_postgres(directory, settings)


@contextmanager
def replicated(directory: Path, settings: dict[str, str]) -> Iterator[tuple[EmbeddedPostgres, EmbeddedPostgres]]:
    """A primary and its standby, running; either may be ended inside."""
    with (
        newest_postgres(directory / "primary", settings) as primary,
        standby_of(primary, directory / "standby", settings) as standby,
    ):
        yield primary, standby


def upgraded(old: EmbeddedPostgres, directory: Path, version: int, settings: dict[str, str]) -> EmbeddedPostgres:
    """What pg_upgrade makes of `old`, which is stopped; it is not started yet."""
    new = EmbeddedPostgres(directory, version, settings)
    with new, psycopg.connect(new.dsn(), autocommit=True) as connection:
        # On the way the accounts of the old cluster come along: with one password they are told apart by nothing.
        connection.execute(sql.SQL("ALTER ROLE postgres PASSWORD {}").format(old.password))
    shutil.copy(old.directory / "password", directory / "password")
    clusters = old.directory / "cluster", directory / "cluster"
    # From version 18 on initdb makes checksums, and pg_upgrade wants both clusters to be alike.
    _run(old.directory, old.bin / "pg_checksums", "--enable", "-D", clusters[0])
    ports = [str(free_port()) for _ in clusters]
    command = [new.bin / "pg_upgrade", "-b", old.bin, "-B", new.bin, "-d", clusters[0], "-D", clusters[1]]
    command += ["-p", ports[0], "-P", ports[1], "-U", "postgres", "--socketdir", directory, "--no-sync"]
    _run(directory, *command, PGPASSWORD=old.password)
    return new


def _run(directory: Path, *command: str | Path, **environment: str) -> None:
    """Runs a program of Postgres in `directory`, as the account that servers run as."""
    account = server_account()
    if account is not None:
        open_way(directory, account)
        os.chown(directory, account.uid, account.gid)
    inherited = {name: text for name, text in os.environ.items() if not name.startswith("PG")}
    done = subprocess.run(
        command,
        user=None if account is None else account.uid,
        group=None if account is None else account.gid,
        extra_groups=None if account is None else [],
        cwd=directory,
        env=inherited | {"LC_ALL": "C"} | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout[-1000:]}{done.stderr[-1000:]}"


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
    deadline = time.monotonic() + 30
    with psycopg.connect(standby.dsn(), autocommit=True) as connection:
        connection.execute("ALTER SYSTEM SET primary_conninfo = ''")
        connection.execute("SELECT pg_reload_conf()")
        while connection.execute("SELECT FROM pg_stat_wal_receiver").fetchone() is not None:
            assert time.monotonic() < deadline, "the standby goes on listening"
            time.sleep(0.02)
