"""Facts of the repository that a reader relies on and that nothing else would notice breaking."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "operator" / "tablewatcher"
MODULES = sorted(PACKAGE.rglob("*.py"))
CRD = ROOT / "crds" / "tablewatchers.yaml"
CHART = ROOT / "helm" / "tablewatcher"

MODULE_LINES = 300
FUNCTION_LINES = 40
VAGUE = {
    "util",
    "utils",
    "helper",
    "helpers",
    "manager",
    "managers",
    "common",
    "processor",
    "data",
    "info",
    "misc",
}
OPERATOR_LIBRARIES = ("kopf", "kubernetes")
# Which modules may import what a contract of pyproject.toml is about, by words of its name.
DOORS = {
    "kopf and kubernetes": {"controller"},
    "psycopg": {"postgres"},
    "the NATS client": {"sinks.nats"},
    "the HTTP client": {"sinks.http.pool", "sinks.http.connection", "sinks.http.guard", "cli", "controller"},
}


def test_the_package_is_found() -> None:
    assert PACKAGE / "__init__.py" in MODULES


def test_operator_folder_is_no_package() -> None:
    """It would shadow `operator` of the standard library for everything started from the root."""
    assert not (ROOT / "operator" / "__init__.py").exists()


@pytest.mark.parametrize("module", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_module_is_a_small_room(module: Path) -> None:
    text = module.read_text()
    lines = text.count("\n")
    assert lines < MODULE_LINES, f"{lines} lines: split it by decision"
    long = {
        node.name: node.end_lineno - node.lineno + 1
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.end_lineno is not None
        and node.end_lineno - node.lineno + 1 > FUNCTION_LINES
    }
    assert not long, f"functions over {FUNCTION_LINES} lines: {long}"


def free_of(words: str, modules: Iterable[Path]) -> set[str]:
    """Names of those modules that the contract with `words` in its name does not list."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (kept,) = [set(each["source_modules"]) for each in contracts if words in each["name"]]
    names = {".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts) for path in modules}
    return {name for name in names if not any(f"{name}.".startswith(f"{each}.") for each in kept)}


@pytest.mark.parametrize(("words", "doors"), DOORS.items())
def test_every_module_is_kept_to_the_doors(words: str, doors: set[str]) -> None:
    """A contract lists who may not import a library: a module that nobody has added would be free to."""
    free = free_of(words, (path for path in MODULES if path.name != "__init__.py"))
    assert {name for name in free if not any(f"{name}.".startswith(f"tablewatcher.{door}.") for door in doors)} == set()


def test_what_says_that_it_is_pure_is_kept_to_it() -> None:
    says = [path for path in MODULES if "Pure." in (ast.get_docstring(ast.parse(path.read_text())) or "")]
    assert len(says) > 20
    assert free_of("decisions are pure", says) == set()


def test_module_names_say_what_is_inside() -> None:
    vague = [
        str(path.relative_to(PACKAGE))
        for path in PACKAGE.rglob("*")
        if (path.is_dir() or path.suffix == ".py") and VAGUE & set(re.split(r"[_.]", path.stem))
    ]
    assert not vague


def test_chart_carries_the_crd_unchanged() -> None:
    copies = list(CHART.rglob(CRD.name))
    assert bool(copies) == (CHART / "Chart.yaml").exists(), f"the chart needs a copy of {CRD.name}"
    assert [copy for copy in copies if copy.read_bytes() != CRD.read_bytes()] == []


def loaded(*modules: str, among: Iterable[str]) -> str:
    """Which libraries importing `modules` loads. In a fresh interpreter: another test may have loaded them here."""
    code = (
        f"import sys, importlib; [importlib.import_module(name) for name in {modules!r}];"
        f" print(sorted(set(sys.modules) & set({list(among)!r})))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT / "tests",
        env={"PYTHONPATH": str(ROOT / "operator")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_listener_carries_nothing_that_reads_options_and_manifests() -> None:
    """Twenty megabytes of sixty (decision 0014)."""
    libraries = ["aiohttp", "pydantic", "pydantic_core", "rich", "typer", "yaml"]
    assert loaded("tablewatcher.cli.listening", "tablewatcher.sinks.nats", among=libraries) == "[]"


def test_options_are_read_before_what_commands_need_is_loaded() -> None:
    assert loaded("tablewatcher.cli.app", among=["aiohttp", "nats", "psycopg", "pydantic", "rich", "yaml"]) == "[]"


@pytest.mark.parametrize(
    "name",
    [
        f"tablewatcher.{path.stem}"
        for path in sorted(PACKAGE.iterdir())
        if path.stem not in {"__init__", "controller"} and (path.suffix == ".py" or (path / "__init__.py").exists())
    ],
)
def test_only_the_controller_loads_the_operators_libraries(name: str) -> None:
    assert loaded(name, among=OPERATOR_LIBRARIES) == "[]"
