"""What the documentation lists is what the source has: tables drift in silence otherwise."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import get_args, get_origin

import pytest
import typer
import yaml
from annotated_types import Ge, Le

from tablewatcher.cli.app import app
from tablewatcher.cli.demo.manifests import PACKAGED
from tablewatcher.cli.exit_codes import ExitCode, exit_code
from tablewatcher.errors import Reason
from tablewatcher.spec.schema import CaRefShape, SecretKeyShape, SecretRefShape, Shape, SpecShape
from tablewatcher.spec.unsupported import UNSUPPORTED

from .exported import exported

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PACKAGE = ROOT / "operator" / "tablewatcher"
README = (ROOT / "README.md").read_text()


def rows(text: str, heading: str) -> list[list[str]]:
    """The cells of the table whose first row starts with `heading`."""
    lines = iter(text.splitlines())
    for line in lines:
        if line.startswith(f"| {heading} |"):
            break
    next(lines)
    found = []
    for line in lines:
        if not line.startswith("|"):
            break
        found.append([cell.strip() for cell in line.strip("|").split("|")])
    return found


def manifest_fields(shape: type[Shape], path: str) -> Iterator[tuple[str, str, str]]:
    """Each field that is not an object of fields, with its default and bounds as the page writes them."""
    for name, field in shape.model_fields.items():
        parts = [field.annotation, *get_args(field.annotation)]
        inner = next((part for part in parts if isinstance(part, type) and issubclass(part, Shape)), None)
        here = f"{path}{field.alias or name}"
        if inner is not None and inner not in (SecretRefShape, SecretKeyShape, CaRefShape):
            yield from manifest_fields(inner, f"{here}[]." if get_origin(field.annotation) is list else f"{here}.")
            continue
        lowest = next((each.ge for each in field.metadata if isinstance(each, Ge)), None)
        highest = next((each.le for each in field.metadata if isinstance(each, Le)), None)
        bounds = "" if lowest is None else f"from {lowest}" if highest is None else f"{lowest} to {highest}"
        default = field.default
        plain = isinstance(default, str | int)
        shown = f"`{str(default).lower() if isinstance(default, bool) else default}`" if plain else ""
        yield here, "required" if field.is_required() else shown, bounds


def test_fields_of_the_manifest() -> None:
    text = (DOCS / "manifest.md").read_text()
    sections = text.split("\n## ")[1:]
    told = [row for section in sections for row in rows(section, "field")]
    assert sorted((field.strip("`"), default, bounds) for field, default, bounds, _ in told) == sorted(
        manifest_fields(SpecShape, "")
    )


def test_exit_codes() -> None:
    table = rows((DOCS / "command-line.md").read_text(), "code")
    assert [(int(code), name) for code, name, _ in table] == [(code.value, code.name) for code in ExitCode]
    told = {reason: int(code) for code, _, when in table for reason in re.findall(r"`([A-Z]\w+)`", when)}
    assert told == {str(reason): exit_code(reason) for reason in Reason if exit_code(reason) is not ExitCode.PERSON}


def test_commands_and_options() -> None:
    text = (DOCS / "command-line.md").read_text()
    group = typer.main.get_command(app)
    assert isinstance(group, typer.core.TyperGroup)
    commands = group.commands
    assert {row[0].strip("`") for row in rows(text, "command")} == set(commands)
    assert set(re.findall(r"^tablewatcher (\w+)", text, re.MULTILINE)) == set(commands)
    options = {
        option
        for command in commands.values()
        for each in (command, *getattr(command, "commands", {}).values())
        for parameter in each.params
        for option in parameter.opts
        if option.startswith("--") and option != "--help"
    }
    told = {option for row in rows(text, "option") for option in re.findall(r"`(--[a-z-]+)`", row[0])}
    assert told == options


def test_reasons() -> None:
    table = rows((DOCS / "reasons.md").read_text(), "reason")
    assert [row[0].strip("`") for row in table] == [str(reason) for reason in Reason]
    assert all(len(row) == 3 and all(row) for row in table)


def test_what_no_version_says_yet_is_called_reserved() -> None:
    table = rows((DOCS / "reasons.md").read_text(), "reason")
    reserved = {row[0].strip("`") for row in table if row[1].startswith("reserved")}
    package = ROOT / "operator" / "tablewatcher"
    said = {name for path in package.rglob("*.py") for name in re.findall(r"\bReason\.([A-Z_]+)\b", path.read_text())}
    assert reserved == {str(reason) for reason in Reason if reason.name not in said}


def test_metrics() -> None:
    found = {
        name: (family.type, labels - {"watcher_namespace", "watcher"}, family.documentation)
        for name, labels, family in exported()
    }
    table = rows((DOCS / "metrics.md").read_text(), "metric")
    told = {
        name.strip("`"): (kind, set(re.findall(r"`(\w+)`", labels)), meaning) for name, kind, labels, meaning in table
    }
    assert told == found


@pytest.mark.parametrize("path", sorted(UNSUPPORTED))
def test_readme_names_every_refused_field(path: str) -> None:
    limits = README.partition("## Limits of this version")[2].partition("\n## ")[0]
    for field in UNSUPPORTED[path]:
        assert f"`{path}.{field}`" in limits or f"`.{field}`" in limits, field
    if path != "spec":
        assert path in limits


def test_first_manifest_is_the_example() -> None:
    (block,) = re.findall(r"```yaml\n(.*?)```", README, re.DOTALL)
    assert yaml.safe_load(block) == yaml.safe_load((ROOT / "examples" / "nats.yaml").read_text())


def test_the_package_carries_the_examples_unchanged() -> None:
    """`pip install tablewatcher` has no examples/ beside it; the demonstration runs these. It needs no consumers."""
    originals = {path.name: path.read_bytes() for path in (ROOT / "examples").iterdir() if path.is_file()}
    assert {path.name: path.read_bytes() for path in PACKAGED.iterdir()} == originals


def test_every_value_of_the_chart_is_in_its_table() -> None:
    chart = ROOT / "helm" / "tablewatcher"
    told = {
        value for row in rows((chart / "README.md").read_text(), "values") for value in re.findall(r"`(\w+)`", row[0])
    }
    assert told == set(yaml.safe_load((chart / "values.yaml").read_text()))


def test_every_consumer_is_in_the_table_of_examples() -> None:
    told = {row[0].strip("`") for row in rows((ROOT / "examples" / "README.md").read_text(), "consumer")}
    assert told == {f"consumers/{path.name}" for path in (ROOT / "examples" / "consumers").glob("*.py")}


PAGES = sorted(
    {*ROOT.glob("*.md"), *DOCS.rglob("*.md")}.union(
        *((ROOT / name).rglob("*.md") for name in ("examples", "hack", "helm"))
    )
)


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for path, anchor in re.findall(r"\]\((?!https://)([^)#\s]*)#?([^)\s]*)\)", page.read_text()):
        target = page.parent / path if path else page
        assert target.exists(), path
        assert not anchor or anchor in anchors(target), f"{path}#{anchor}"


def test_where_it_is_names_what_is_there() -> None:
    """Names that stand alone are in the folder of the path before them."""
    for concept, places in rows((DOCS / "architecture.md").read_text(), "concept"):
        folder = PACKAGE
        for name in re.findall(r"`([\w/.*]+)`", places):
            folder = PACKAGE / Path(name).parent if "/" in name else folder
            assert list(folder.glob(Path(name).name)) or (PACKAGE / name).exists(), f"{concept}: {name}"


@pytest.mark.parametrize("folder", [DOCS, DOCS / "decisions"], ids=["docs", "decisions"])
def test_the_index_names_every_page(folder: Path) -> None:
    told = set(re.findall(r"\]\(([\w-]+\.md)", (folder / "README.md").read_text()))
    assert told == {page.name for page in folder.glob("*.md")} - {"README.md"}


@pytest.mark.parametrize("heading", ["step", "you want to", "invariant"])
def test_paths_of_the_architecture_lead_somewhere(heading: str) -> None:
    """A path is one of the package, or of the repository."""
    for row in rows((DOCS / "architecture.md").read_text(), heading):
        for path in re.findall(r"`([\w/]+(?:/|\.\w+))`", " ".join(row)):
            assert (PACKAGE / path).exists() or (ROOT / path).exists(), path
