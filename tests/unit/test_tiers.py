"""What cannot run on a machine: named at the end, and no failure until `CI=true`. Run as `make test` runs it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
POOLED = """
import pgbouncer, pytest

pgbouncer.PLACES = ""

@pytest.mark.parametrize("mode", ["session", "transaction"])
def test_through_a_pooler(mode, tmp_path):
    pgbouncer.PgBouncer(tmp_path, None, mode)

def test_without():
    pass
"""


def run_tier(directory: Path, ci: str) -> subprocess.CompletedProcess[str]:
    """A suite of one tier with a test through PgBouncer, on a machine that has none."""
    for source, place in (("hack/tests", "hack/tests"), ("tests/pgbouncer.py", "tests/pgbouncer.py")):
        (directory / place).parent.mkdir(parents=True)
        shutil.copy(ROOT / source, directory / place)
    (directory / "tests" / "integration").mkdir()
    (directory / "tests" / "integration" / "test_pooler.py").write_text(POOLED)
    package = ROOT / "operator"
    return subprocess.run(
        [sys.executable, directory / "hack" / "tests", "integration"],
        env=os.environ | {"CI": ci, "PYTHONPATH": f"{directory / 'tests'}{os.pathsep}{package}"},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


def test_without_pgbouncer_the_rest_passes_and_what_did_not_run_is_named(tmp_path: Path) -> None:
    done = run_tier(tmp_path, "")
    assert done.returncode == 0, done.stdout + done.stderr
    tiers = done.stdout.partition("== tiers ==")[2]
    assert "1 passed, 2 skipped" in tiers
    assert "apt-get install pgbouncer" in tiers
    for mode in ("session", "transaction"):
        assert f"not run: tests/integration/test_pooler.py::test_through_a_pooler[{mode}]" in tiers


def test_with_ci_it_is_a_failure(tmp_path: Path) -> None:
    done = run_tier(tmp_path, "true")
    assert done.returncode == 1
    tiers = done.stdout.partition("== tiers ==")[2]
    assert "1 passed, 2 failed" in tiers
    assert "apt-get install pgbouncer" in done.stdout
