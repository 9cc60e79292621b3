"""The chart as text: what it renders for which values, and whether the API server takes it."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from .conftest import ROOT, Cluster

CHART = ROOT / "helm" / "tablewatcher"
CRD = ROOT / "crds" / "tablewatchers.yaml"
FULL: dict[str, Any] = {
    "image": {"repository": "registry.example.com/tablewatcher", "digest": "sha256:" + "a" * 64},
    "imagePullSecrets": [{"name": "registry"}],
    "fullnameOverride": "rows",
    "instance": "production",
    "requireSecretLabel": True,
    "httpGuard": {"allowPrivate": False, "allow": ["10.20.0.0/16", "*.example.com"], "deny": ["fd00::/8"]},
    "listener": {"replicas": 2, "podLabels": {"team": "shop"}, "nodeSelector": {"kubernetes.io/os": "linux"}},
    "crds": {"annotations": {"owner": "shop"}},
    "serviceAccount": {"annotations": {"owner": "shop"}},
    "logs": {"level": "debug"},
    "nodeSelector": {"kubernetes.io/os": "linux"},
    "tolerations": [{"key": "dedicated", "operator": "Exists"}],
    "affinity": {"nodeAffinity": {}},
    "topologySpreadConstraints": [
        {"maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "ScheduleAnyway"}
    ],
    "priorityClassName": "high",
    "podLabels": {"team": "shop"},
    "podAnnotations": {"note": "yes"},
    "extraEnv": [{"name": "TZ", "value": "UTC"}],
}

Object = dict[str, Any]
Render = Callable[..., list[Object]]


@pytest.fixture
def namespace(cluster: Cluster) -> Iterator[str]:
    name = f"chart-{uuid.uuid4().hex[:8]}"
    cluster.kubectl("create", "namespace", name)
    cluster.kubectl("label", "namespace", name, "pod-security.kubernetes.io/enforce=restricted")
    yield name
    cluster.kubectl("delete", "namespace", name, "--wait=false")


@pytest.fixture
def template(cluster: Cluster, namespace: str, tmp_path: Path) -> Callable[..., str]:
    """What `helm template` prints for these values."""

    def found(**values: object) -> str:
        file = tmp_path / "values.yaml"
        file.write_text(yaml.safe_dump(values))
        return cluster.helm("template", "tablewatcher", str(CHART), f"--namespace={namespace}", f"--values={file}")

    return found


@pytest.fixture
def render(cluster: Cluster, template: Callable[..., str]) -> Render:
    """The objects of these values, after the API server has taken all of them."""

    def found(**values: object) -> list[Object]:
        text = template(**values)
        cluster.kubectl("apply", "--dry-run=server", "--filename=-", stdin=text)
        return [each for each in yaml.safe_load_all(text) if each]

    return found


def only(objects: list[Object], kind: str) -> Object:
    (found,) = [each for each in objects if each["kind"] == kind]
    return found


def kinds(objects: list[Object]) -> set[str]:
    return {each["kind"] for each in objects}


def arguments(objects: list[Object]) -> list[str]:
    found: list[str] = only(objects, "Deployment")["spec"]["template"]["spec"]["containers"][0]["args"]
    return found


def test_lint_finds_nothing(cluster: Cluster) -> None:
    assert "0 chart(s) failed" in cluster.helm("lint", "--strict", str(CHART))


def test_the_defaults_serve_the_whole_cluster(render: Render) -> None:
    objects = render()
    assert kinds(objects) == {
        "ServiceAccount",
        "ConfigMap",
        "CustomResourceDefinition",
        "ClusterRole",
        "ClusterRoleBinding",
        "Deployment",
    }
    image = "tablewatcher:" + yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"]
    assert only(objects, "Deployment")["spec"]["template"]["spec"]["containers"][0]["image"] == image
    assert f"--listener-image={image}" in arguments(objects)
    assert "--http-public-only" in arguments(objects)
    assert "--http-public-only" not in arguments(render(httpGuard={"allowPrivate": True}))


def test_secrets_can_only_be_read_one_by_one(render: Render, namespace: str) -> None:
    for values, kind in (({}, "ClusterRole"), ({"watchNamespaces": [namespace], "instance": "shop"}, "Role")):
        rules = only(render(**values), kind)["rules"]
        assert [rule["verbs"] for rule in rules if "secrets" in rule["resources"]] == [["get"]]
        assert not [rule for rule in rules if "*" in (*rule["apiGroups"], *rule["resources"], *rule["verbs"])]


def test_named_namespaces_get_roles_and_nothing_else(render: Render, namespace: str) -> None:
    served = [namespace, "default"]
    objects = render(watchNamespaces=served, instance="shop", crds={"enabled": False})
    assert kinds(objects) == {"ServiceAccount", "ConfigMap", "Role", "RoleBinding", "Deployment"}
    for kind in ("Role", "RoleBinding"):
        assert [each["metadata"]["namespace"] for each in objects if each["kind"] == kind] == served
    assert {f"--namespace={name}" for name in served} <= set(arguments(objects))
    unnamed = render(watchNamespaces=served)
    (rule,) = only(unnamed, "ClusterRole")["rules"]
    assert (rule["resources"], rule["resourceNames"], rule["verbs"]) == (["namespaces"], ["kube-system"], ["get"])


def test_every_value_arrives(render: Render) -> None:
    objects = render(**FULL)
    deployment = only(objects, "Deployment")
    pod = deployment["spec"]["template"]["spec"]
    image = f"{FULL['image']['repository']}@{FULL['image']['digest']}"
    assert deployment["metadata"]["name"] == "rows"
    assert pod["containers"][0]["image"] == image
    assert {
        f"--listener-image={image}",
        "--image-pull-secret=registry",
        "--instance=production",
        "--require-secret-label",
        "--http-public-only",
        "--http-allow=10.20.0.0/16",
        "--http-allow=*.example.com",
        "--http-deny=fd00::/8",
        "--log-level=debug",
    } <= set(arguments(objects))
    fields = ("nodeSelector", "tolerations", "affinity", "topologySpreadConstraints", "imagePullSecrets")
    assert {name: pod[name] for name in fields} == {name: FULL[name] for name in fields}
    assert (pod["priorityClassName"], pod["containers"][0]["env"]) == ("high", FULL["extraEnv"])
    metadata = deployment["spec"]["template"]["metadata"]
    assert (metadata["labels"]["team"], metadata["annotations"]["note"]) == ("shop", "yes")
    listener = yaml.safe_load(only(objects, "ConfigMap")["data"]["listener.json"])
    assert {name: listener[name] for name in FULL["listener"]} == FULL["listener"]


def test_the_crd_is_the_projects_own_and_is_kept(render: Render) -> None:
    found = only(render(crds={"annotations": {"owner": "shop"}}), "CustomResourceDefinition")
    assert found["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep", "owner": "shop"}
    assert found["spec"] == yaml.safe_load(CRD.read_text())["spec"]
    removable = only(render(crds={"keep": False}), "CustomResourceDefinition")
    assert "annotations" not in removable["metadata"]


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"imgae": {}}, "imgae"),
        ({"image": {"pullpolicy": "Never"}}, "pullpolicy"),
        ({"image": {"pullPolicy": "Sometimes"}}, "pullPolicy"),
        ({"listener": {"nodeSelectors": {}}}, "nodeSelectors"),
        ({"watchNamespaces": "shop"}, "watchNamespaces"),
        ({"watchNamespaces": ["Shop"]}, "watchNamespaces"),
        ({"httpGuard": {"allowPrivate": "no"}}, "allowPrivate"),
        ({"httpGuard": {"allow": ["10.0.0.0/8, 10.1.0.0/16"]}}, "allow"),
        ({"httpGuard": {"deny": "10.0.0.0/8"}}, "deny"),
        ({"logs": {"level": "loud"}}, "level"),
    ],
)
def test_a_mistake_in_the_values_is_refused_by_name(template: Callable[..., str], values: Object, named: str) -> None:
    with pytest.raises(AssertionError, match=named):
        template(**values)


def test_the_schema_knows_every_value() -> None:
    schema = yaml.safe_load((CHART / "values.schema.json").read_text())
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    assert set(schema["properties"]) - {"global"} == set(values)
    for name, each in schema["properties"].items():
        if each.get("additionalProperties") is False and name != "resources":
            assert set(each["properties"]) == set(values[name]), name
