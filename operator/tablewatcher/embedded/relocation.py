"""Give the account that Postgres runs as a copy it can reach, when the virtual environment is closed to it.

A virtual environment below /root cannot be entered by any other user, so the kernel refuses to start a
program from it once the privileges are dropped. Keeping a capability instead would leave the server able to
read every file of the machine.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from .installation import EmbeddedUnavailable, postgres_package, postgres_tree

if TYPE_CHECKING:
    from .account import Account


def usable_postgres(version: int, account: Account | None) -> Path:
    """The folder of Postgres `version` whose programs `account` can start; copied once where needed."""
    package = postgres_package()
    tree = postgres_tree(package, version)
    if account is None or _starts(tree, account):
        return tree
    target = _cache() / _key(tree, version)
    copy = target / package.name / tree.name
    if not copy.is_dir():
        _copy(package, tree, target)
    if not _starts(copy, account):
        raise EmbeddedUnavailable(
            f"user id {account.uid} cannot start {copy}/bin/postgres: remove {target} and try again; "
            "if it stays so, point TMPDIR to a folder on a file system that is not mounted noexec"
        )
    return copy


def _starts(tree: Path, account: Account) -> bool:
    try:
        done = subprocess.run(  # noqa: S603 - a program of the installed wheel
            [tree / "bin" / "postgres", "--version"],
            user=account.uid,
            group=account.gid,
            extra_groups=[],
            cwd="/",
            capture_output=True,
            check=False,
        )
    except OSError:
        return False
    return done.returncode == 0


def _cache() -> Path:
    """A folder of ours, open for reading, that nobody else can have prepared or can write to."""
    cache = Path(tempfile.gettempdir()).resolve() / f"tablewatcher-embedded-{os.geteuid()}"
    cache.mkdir(mode=0o755, exist_ok=True)
    status = cache.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o022:
        raise EmbeddedUnavailable(
            f"{cache} is not a folder that only we can write to: remove it, or point TMPDIR elsewhere"
        )
    cache.chmod(0o755)
    return cache


def _key(tree: Path, version: int) -> str:
    program = (tree / "bin" / "postgres").stat()
    origin = f"{tree}|{program.st_size}|{program.st_mtime_ns}"
    return f"postgres{version}-{hashlib.sha256(origin.encode()).hexdigest()[:12]}"


def _copy(package: Path, tree: Path, target: Path) -> None:
    """Copy the tree and the libraries beside the package, which the programs find by a relative path."""
    unfinished = Path(tempfile.mkdtemp(prefix=f"{target.name}-", dir=target.parent))
    ignore = shutil.ignore_patterns("*.a", "include")
    shutil.copytree(tree, unfinished / package.name / tree.name, symlinks=True, ignore=ignore)
    libraries = package.with_name(f"{package.name}.libs")
    if libraries.is_dir():
        shutil.copytree(libraries, unfinished / libraries.name, symlinks=True)
    for path in (unfinished, *unfinished.rglob("*")):
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() or os.access(path, os.X_OK) else 0o644)
    try:
        unfinished.rename(target)
    except OSError:
        # Somebody else finished the same copy first: theirs is as good.
        shutil.rmtree(unfinished)
        if not target.is_dir():
            raise
