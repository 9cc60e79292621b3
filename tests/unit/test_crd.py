"""The CRD and the parser know the same fields and say the same words."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

import pytest
import yaml
from pydantic import BaseModel, TypeAdapter, ValidationError

from tablewatcher.errors import FieldError, SpecInvalid
from tablewatcher.spec import schema
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


def of_parser(node: dict[str, Any], path: str = "spec") -> Iterator[tuple[str, dict[str, Any]]]:
    """The same of the parser's own schema, without what stands for an absent field."""
    while "$ref" in node or "anyOf" in node:
        if "$ref" in node:
            node = PARSER["$defs"][node["$ref"].removeprefix("#/$defs/")]
        else:
            (node,) = [each for each in node["anyOf"] if each != {"type": "null"}]
    yield path, node
    for name, inner in node.get("properties", {}).items():
        yield from of_parser(inner, f"{path}.{name}")
    if "items" in node:
        yield from of_parser(node["items"], f"{path}[]")


PARSER = schema.SpecShape.model_json_schema()
PARSED = dict(of_parser(PARSER))
BOUNDS = ("minimum", "maximum", "minItems", "maxItems", "enum")
# Of four actions, none twice.
BY_RULE = {"spec.actions": {"maxItems"}}
# What stands before a text that is as long as it may be, where any letters will not do.
BEGINNINGS = {"spec.sink.nats.servers[]": "nats://", "spec.sink.http.url": "https://"}


def bounds(node: dict[str, Any]) -> dict[str, Any]:
    """Numbers, and words in any order."""
    found = {name: node[name] for name in BOUNDS if name in node}
    return {name: sorted(bound) if name == "enum" else bound for name, bound in found.items()}


def test_bounds_and_choices_are_those_of_the_parser() -> None:
    declared = {path: bounds(node) for path, node in ALL_NODES.items() if path in PARSED}
    for path, names in BY_RULE.items():
        for name in names:
            del declared[path][name]
    assert declared == {path: bounds(node) for path, node in PARSED.items()}
    assert sum(map(len, declared.values())) > 40


def texts(shape: type[BaseModel], path: str = "spec") -> Iterator[tuple[str, TypeAdapter[str]]]:
    """The parser's check of every text, by its path."""
    for name, field in shape.model_fields.items():
        kind = Annotated[field.annotation, *field.metadata] if field.metadata else field.annotation
        yield from texts_of(kind, f"{path}.{field.alias or name}")


def texts_of(kind: Any, path: str) -> Iterator[tuple[str, TypeAdapter[str]]]:
    given = get_args(kind)[0] if get_origin(kind) is Annotated else kind
    (plain,) = [each for each in get_args(given) if each is not type(None)] if is_optional(given) else (given,)
    if isinstance(plain, type) and issubclass(plain, BaseModel):
        yield from texts(plain, path)
    elif get_origin(plain) is list:
        yield from texts_of(get_args(plain)[0], f"{path}[]")
    elif plain is str or (get_origin(plain) is Annotated and get_args(plain)[0] is str):
        yield path, TypeAdapter(kind)


def is_optional(kind: Any) -> bool:
    return type(None) in get_args(kind)


def takes(check: TypeAdapter[str], text: str) -> bool:
    try:
        return check.validate_python(text) == text
    except ValidationError:
        return False


def test_texts_are_as_long_as_in_the_parser() -> None:
    found = dict(texts(schema.SpecShape))
    del found["spec.listener.group"]  # one word
    declared = {path for path, node in ALL_NODES.items() if node.get("type") == "string" and "enum" not in node}
    assert found.keys() == {path for path in declared if path in PARSED} - {"spec.listener.group"}
    for path, check in found.items():
        node, beginning = ALL_NODES[path], BEGINNINGS.get(path, "")
        longest = beginning + "a" * (node["maxLength"] - len(beginning))
        assert takes(check, longest), path
        assert not takes(check, f"{longest}a"), path
        empty = node.get("minLength", 0) == 0 and re.match(node.get("pattern", ""), "") is not None
        assert takes(check, "") is empty, path


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
