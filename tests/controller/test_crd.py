"""The CRD on a real API server: every rule refuses and admits what it should, in the words of the parser."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes import client, config
from kubernetes.client.exceptions import ApiException

ROOT = Path(__file__).parents[2]
CRD = yaml.safe_load((ROOT / "crds" / "tablewatchers.yaml").read_text())
CASES = yaml.safe_load((ROOT / "tests" / "manifest_rules.yaml").read_text())
RULES = CASES["rules"]
WATCHERS = ("tablewatcher.io", "v1alpha1", "default", "tablewatchers")
IMMUTABLE = "cannot be changed: delete the watcher and create it anew"


@pytest.fixture(scope="module")
def api(control_plane: Any) -> Iterator[client.ApiClient]:
    connection: client.ApiClient
    with config.new_client_from_config(config_file=str(control_plane.kubeconfig)) as connection:  # type: ignore[no-untyped-call]
        yield connection


@pytest.fixture(scope="module")
def stored_crd(api: client.ApiClient) -> dict[str, Any]:
    extensions = client.ApiextensionsV1Api(api)
    name = CRD["metadata"]["name"]
    try:
        extensions.create_custom_resource_definition(CRD)
    except ApiException as error:
        # Another module of this session may have been first; anything else is the answer to this test.
        if error.status != 409:
            raise
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        answer: Any = extensions.read_custom_resource_definition(name, _preload_content=False)
        found = json.loads(answer.data)
        conditions = {each["type"]: each["status"] for each in found.get("status", {}).get("conditions") or []}
        if conditions.get("Established") == "True":
            return found
        time.sleep(0.05)
    raise AssertionError(f"the CRD was not established: {conditions}")


@pytest.fixture
def watchers(api: client.ApiClient, stored_crd: dict[str, Any]) -> client.CustomObjectsApi:
    objects = client.CustomObjectsApi(api)
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            objects.list_namespaced_custom_object(*WATCHERS)
            client.CoreV1Api(api).read_namespace("default")
        except ApiException as error:
            # Established comes a moment before the paths are served and their storage is there, and namespace default
            # after readiness.
            if error.status not in (404, 429, 503):
                raise
            time.sleep(0.05)
        else:
            return objects
    raise AssertionError("the API server does not serve TableWatchers")


@pytest.fixture
def create(watchers: client.CustomObjectsApi) -> Callable[..., dict[str, Any]]:
    def create_watcher(spec: dict[str, Any], **options: Any) -> dict[str, Any]:
        document = {
            "apiVersion": "tablewatcher.io/v1alpha1",
            "kind": "TableWatcher",
            "metadata": {"name": f"orders-{secrets.token_hex(6)}"},
            "spec": spec,
        }
        created: Any = watchers.create_namespaced_custom_object(*WATCHERS, document, **options)
        return created

    return create_watcher


def causes(error: ApiException) -> set[tuple[str, str]]:
    """Path and message of every error, without what the API server puts before the message."""
    found = json.loads(error.body)["details"]["causes"]
    return {(cause["field"], cause["message"].split(": ", 1)[-1]) for cause in found} | {
        (cause["field"], cause["message"].split(": ", 2)[-1]) for cause in found
    }


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: f"{rule['at']}: {rule['message'][:40]}")
def test_rule(create: Callable[..., dict[str, Any]], rule: dict[str, Any]) -> None:
    create(rule.get("kept", CASES["base"]["nats"]), dry_run="All", field_validation="Strict")
    with pytest.raises(ApiException) as refused:
        create(rule["broken"], dry_run="All", field_validation="Strict")
    assert refused.value.status == 422
    assert (rule["at"], rule["message"]) in causes(refused.value)


def test_the_crd_comes_back_as_it_was_written(stored_crd: dict[str, Any]) -> None:
    # Otherwise GitOps tools would see a difference for ever.
    assert stored_crd["spec"] == CRD["spec"]


def test_the_schema_has_no_structural_fault(stored_crd: dict[str, Any]) -> None:
    conditions = {each["type"]: each for each in stored_crd["status"]["conditions"]}
    assert conditions["NamesAccepted"]["status"] == "True"
    assert "NonStructuralSchema" not in conditions


def test_a_new_watcher_does_not_look_healthy(
    create: Callable[..., dict[str, Any]], watchers: client.CustomObjectsApi
) -> None:
    spec = {**CASES["base"]["nats"], "table": {"name": "orders"}}
    created = create(spec)
    read = watchers.get_namespaced_custom_object(*WATCHERS, created["metadata"]["name"])
    assert read["status"] == {"observedGeneration": -1}
    assert read["spec"] == {
        **spec,
        "table": {"schema": "public", "name": "orders"},
        "listener": {"group": "default"},
    }


def test_status_is_a_subresource(create: Callable[..., dict[str, Any]], watchers: client.CustomObjectsApi) -> None:
    created = create(CASES["base"]["nats"])
    condition = {
        "type": "Ready",
        "status": "True",
        "reason": "Forwarding",
        "message": "",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
        "observedGeneration": 1,
    }
    status = {
        "observedGeneration": 1,
        "conditions": [condition],
        "table": {"qualifiedName": "public.orders", "primaryKey": ["id"]},
        "database": {"name": "shop", "systemIdentifier": "7412345678901234567"},
        "sink": "nats",
        "listener": "tablewatcher-listener",
        "lastHandledReconcileAt": "now",
    }
    patched = watchers.patch_namespaced_custom_object_status(
        *WATCHERS, created["metadata"]["name"], {"status": status, "spec": {"suspend": True}}
    )
    assert patched["status"] == status
    assert patched["metadata"]["generation"] == 1
    assert "suspend" not in patched["spec"]


@pytest.mark.parametrize(
    ("change", "at"),
    [
        ({"table": {"name": "other"}}, "spec.table"),
        ({"table": {"schema": "other"}}, "spec.table"),
        ({"database": {"secretRef": {"name": "other"}}}, "spec.database.secretRef"),
    ],
)
def test_what_cannot_be_changed(
    create: Callable[..., dict[str, Any]],
    watchers: client.CustomObjectsApi,
    change: dict[str, Any],
    at: str,
) -> None:
    name = create(CASES["base"]["nats"])["metadata"]["name"]
    watchers.patch_namespaced_custom_object(*WATCHERS, name, {"spec": {"columns": ["total"], "suspend": True}})
    with pytest.raises(ApiException) as refused:
        watchers.patch_namespaced_custom_object(*WATCHERS, name, {"spec": change})
    assert (at, IMMUTABLE) in causes(refused.value)


@pytest.mark.parametrize("example", sorted((ROOT / "examples").glob("*.yaml")), ids=lambda path: path.name)
def test_the_examples_are_accepted(create: Callable[..., dict[str, Any]], example: Path) -> None:
    for document in yaml.safe_load_all(example.read_text()):
        if document and document["kind"] == "TableWatcher":
            create(document["spec"], dry_run="All", field_validation="Strict")
