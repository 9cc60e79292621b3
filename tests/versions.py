"""The PostgreSQL versions that tests run with: those of the wheels, or one of which somebody has the programs."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from tablewatcher.embedded import EmbeddedPostgres

# The directory of `postgres`, `initdb` and others: tests of no version in particular run with these.
GIVEN = os.environ.get("TABLEWATCHER_TEST_POSTGRES", "")
ROOT = Path(__file__).resolve().parents[1]
NEWEST = 18
# Fixtures of tests/conftest.py, for tests that every version must pass.
EVERY = ("postgres",) if GIVEN else ("postgres18", "postgres16")


def version_of(programs: Path) -> int:
    """The major version of `postgres` in that directory."""
    said = subprocess.run([programs / "postgres", "--version"], capture_output=True, text=True, check=True).stdout
    # `postgres (PostgreSQL) 15.18 (Debian ...)`
    return int(said.split()[2].partition(".")[0])


# For tests of what older versions do not have.
OLDEST = version_of(Path(GIVEN)) if GIVEN else 16


class GivenPostgres(EmbeddedPostgres):
    """As an embedded one, of programs from elsewhere."""

    def __init__(self, directory: Path, programs: Path, settings: Mapping[str, str]) -> None:
        super().__init__(directory, NEWEST, settings)
        self.bin = programs
        self.version = version_of(programs)


def newest_postgres(directory: Path, settings: Mapping[str, str]) -> EmbeddedPostgres:
    """A server of the newest version, or of the given one; it is not started yet."""
    return GivenPostgres(directory, Path(GIVEN), settings) if GIVEN else EmbeddedPostgres(directory, NEWEST, settings)


def older_postgres(directory: Path, settings: Mapping[str, str]) -> EmbeddedPostgres:
    """A server of the oldest version whose programs are here; nothing is downloaded for it. It is not started yet."""
    if GIVEN:
        return GivenPostgres(directory, Path(GIVEN), settings)
    command = [sys.executable, ROOT / "hack" / "postgres", "13", "--cached"]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    if found.returncode:
        return EmbeddedPostgres(directory, OLDEST, settings)
    return GivenPostgres(directory, Path(found.stdout.strip()), settings)
