"""The CRD and the parser know the same fields and say the same words."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tablewatcher.errors import FieldError, SpecInvalid
from tablewatcher.spec import checks, schema
from tablewatcher.spec.parse import API_VERSION, KIND, parse_manifest, read_manifests
from tablewatcher.spec.unsupported import NOT_SUPPORTED, UNSUPPORTED

ROOT = Path(__file__).parents[2]
CRD = yaml.safe_load((ROOT / "crds" / "tablewatchers.yaml").read_text())
CASES = yaml.safe_load((ROOT / "tests" / "manifest_rules.yaml").read_text())
VERSION = CRD["spec"]["versions"][0]
SCHEMA = VERSION["schema"]["openAPIV3Schema"]
SPEC = SCHEMA["properties"]["spec"]
EXAMPLES = sorted((ROOT / "examples").glob("*.yaml"))


def nodes(node: dict[str, Any], path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    yield path, node
    for name, inner in node.get("properties", {}).items():
        yield from nodes(inner, f"{path}.{name}")
    if "items" in node:
        yield from nodes(node["items"], f"{path}[]")


ALL_NODES = dict(nodes(SPEC, "spec"))
REFUSED = {f"{parent}.{name}" for parent, names in UNSUPPORTED.items() for name in names}


def document(spec: dict[str, Any]) -> dict[str, Any]:
    return {"apiVersion": API_VERSION, "kind": KIND, "metadata": {"name": "orders"}, "spec": spec}


def test_group_version_and_names() -> None:
    assert f"{CRD['spec']['group']}/{VERSION['name']}" == API_VERSION
    assert CRD["spec"]["names"]["kind"] == KIND
    assert CRD["spec"]["names"]["shortNames"] == ["tw"]


def test_columns_that_people_see() -> None:
    columns = [(each["name"], each.get("priority")) for each in VERSION["additionalPrinterColumns"]]
    narrow = [(name, None) for name in ("TABLE", "ACTIONS", "SINK", "READY", "STATUS", "AGE")]
    assert columns == [*narrow, ("MESSAGE", 1), ("LISTENER", 1)]


def test_every_field_is_supported_or_refused_by_name() -> None:
    declared = {path for path in ALL_NODES if path != "spec" and not path.endswith("[]")}
    below_refused = {
        path for path in declared if any(path.startswith((f"{parent}.", f"{parent}[")) for parent in REFUSED)
    }
    supported = {f"{parent}.{name}" for parent, names in schema.FIELDS.items() for name in names}
    assert supported.isdisjoint(REFUSED)
    assert declared - below_refused == supported | REFUSED


def test_every_refused_field_has_its_rule() -> None:
    ruled = {
        f"{path}{rule['fieldPath']}"
        for path, node in ALL_NODES.items()
        for rule in node.get("x-kubernetes-validations", ())
        if rule["message"] == NOT_SUPPORTED and rule["rule"] == f"!has(self{rule['fieldPath']})"
    }
    assert ruled == REFUSED


def test_every_field_is_described() -> None:
    fields = {path: node for path, node in nodes(SCHEMA, "") if path not in ("", ".metadata")}
    silent = [path for path, node in fields.items() if not path.endswith("[]") and not node.get("description")]
    assert not silent


def test_every_text_and_list_is_bounded() -> None:
    # The cost of CEL rules is reckoned from these bounds.
    unbounded = [
        path
        for path, node in ALL_NODES.items()
        if (node.get("type") == "string" and not {"maxLength", "enum"} & node.keys())
        or (node.get("type") == "array" and "maxItems" not in node)
    ]
    assert not unbounded


@pytest.mark.parametrize(
    ("path", "bounds"),
    [
        ("spec.columns", {"maxItems": schema.MAX_COLUMNS}),
        ("spec.triggerColumns", {"maxItems": schema.MAX_COLUMNS}),
        ("spec.sink.nats.servers", {"minItems": 1, "maxItems": schema.MAX_SERVERS}),
        ("spec.sink.nats.servers[]", {"maxLength": checks.MAX_TEXT}),
        ("spec.sink.nats.subject", {"maxLength": checks.MAX_SUBJECT}),
        ("spec.sink.http.url", {"maxLength": checks.MAX_TEXT}),
        ("spec.sink.http.signing.secretRefs", {"minItems": 1, "maxItems": schema.MAX_SIGNING}),
        ("spec.sink.http.timeoutSeconds", {"minimum": 1, "maximum": schema.MAX_TIMEOUT_SECONDS}),
        (
            "spec.delivery.backoff.initialMilliseconds",
            {"minimum": 1, "maximum": schema.MAX_INITIAL_MILLISECONDS},
        ),
        ("spec.delivery.backoff.maxSeconds", {"minimum": 1, "maximum": schema.MAX_BACKOFF_SECONDS}),
    ],
)
def test_bounds_are_those_of_the_parser(path: str, bounds: dict[str, int]) -> None:
    assert {name: ALL_NODES[path].get(name) for name in bounds} == bounds


def test_defaults_are_only_the_agreed_ones() -> None:
    defaults = {path: node["default"] for path, node in nodes(SCHEMA, "") if "default" in node}
    assert defaults == {
        ".spec.table.schema": "public",
        ".spec.listener": {},
        ".spec.listener.group": "default",
        ".status": {"observedGeneration": -1},
        ".status.observedGeneration": -1,
    }


def test_every_rule_has_a_case() -> None:
    rules = {
        (f"{path}{rule.get('fieldPath', '')}", rule["message"])
        for path, node in ALL_NODES.items()
        for rule in node.get("x-kubernetes-validations", ())
        if "oldSelf" not in rule["rule"]
    }
    cases = {(rule["at"].replace("[0]", "[]").replace("[1]", "[]"), rule["message"]) for rule in CASES["rules"]}
    assert cases == rules


@pytest.mark.parametrize("rule", CASES["rules"], ids=lambda rule: f"{rule['at']}: {rule['message'][:40]}")
def test_the_parser_says_what_the_rule_says(rule: dict[str, Any]) -> None:
    parse_manifest(document(rule.get("kept", CASES["base"]["nats"])))
    with pytest.raises(SpecInvalid) as refused:
        parse_manifest(document(rule["broken"]))
    # The API server can only point at the list of actions, the parser points at the item.
    at = "spec.actions[1]" if rule["at"] == "spec.actions" else rule["at"]
    assert FieldError(at, rule["message"]) in refused.value.errors


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
def test_the_examples_parse(example: Path) -> None:
    found, fault = read_manifests(example.read_text(), example.name)
    assert fault is None
    assert [(spec.namespace, spec.table.name) for spec in found] == [("shop", "orders")]


def test_there_is_an_example_for_each_sink() -> None:
    assert {path.name for path in EXAMPLES} >= {"nats.yaml", "http.yaml"}
