"""The operator as a process on a control plane of its own, one namespace a test."""

from __future__ import annotations

import asyncio
import secrets
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from .cluster import ENVIRONMENT, Api, Namespace, Node, Operator, Refused

ROOT = Path(__file__).resolve().parents[3]
IMAGE = "registry.example/tablewatcher:test"
# All that the operator may do in the cluster, and has to be enough.
RIGHTS: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("tablewatcher.io", "tablewatchers", ("get", "list", "watch", "patch")),
    ("tablewatcher.io", "tablewatchers/status", ("patch",)),
    ("", "secrets", ("get",)),
    ("", "configmaps", ("get", "list", "create", "patch", "delete")),
    ("apps", "deployments", ("get", "list", "watch", "create", "patch", "delete")),
    ("", "pods", ("list", "patch")),
    ("events.k8s.io", "events", ("create",)),
)


@pytest.fixture
async def api(control_plane: Any) -> Api:
    """The API server, serving our kind."""
    found = Api(control_plane.kubeconfig)
    crd = yaml.safe_load((ROOT / "crds" / "tablewatchers.yaml").read_text())
    path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    if await found.find(f"{path}/{crd['metadata']['name']}") is None:
        await found("POST", path, crd)
    async with asyncio.timeout(30):
        for served in ("/apis/tablewatcher.io/v1alpha1/tablewatchers", "/api/v1/namespaces/kube-system"):
            while not await _answers(found, served):  # noqa: ASYNC110 - another process is waited for
                await asyncio.sleep(0.1)
    return found


async def _answers(api: Api, path: str) -> bool:
    try:
        return await api.find(path) is not None
    except Refused as refused:
        if refused.status not in (429, 503):  # a kind that has just been made is not ready for a moment
            raise
        return False


async def _may(api: Api, path: str) -> bool:
    try:
        return await api.find(path) is not None
    except Refused as refused:
        if refused.status != 403:
            raise
        return False


@pytest.fixture
async def namespace(api: Api) -> AsyncIterator[Namespace]:
    """A fresh namespace; nothing of it is left to the operator of the next test."""
    name = f"op-{secrets.token_hex(4)}"
    body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
    async with asyncio.timeout(30):
        while True:
            try:
                await api("POST", "/api/v1/namespaces", body)
                break
            except Refused as refused:
                if refused.status not in (403, 500):  # a young API server is not ready for all yet
                    raise
                await asyncio.sleep(0.1)
    found = Namespace(api, name)
    yield found
    for each in (await api("GET", found.watchers))["items"]:
        released = {"metadata": {"finalizers": None}}
        await found.patch(each["metadata"]["name"], released)
        if await found.watcher(each["metadata"]["name"]):
            await found.delete(each["metadata"]["name"])


@pytest.fixture
def directory() -> Iterator[Path]:
    found = Path(tempfile.mkdtemp(prefix="tablewatcher-operator-"))
    yield found
    shutil.rmtree(found)


@pytest.fixture
async def make_operator(
    control_plane: Any, namespace: Namespace, directory: Path, free_port: Callable[[], int]
) -> AsyncIterator[Any]:
    """`make_operator(*options)`: an operator for the test's namespace, or with `cluster_wide=True` for all."""
    made: list[Operator] = []
    api_port = urlsplit(control_plane.url).port

    def make(*options: str, cluster_wide: bool = False, kubeconfig: Path = control_plane.kubeconfig) -> Operator:
        port = free_port()
        command = [sys.executable, "-W", "error::ResourceWarning", "-m", "tablewatcher.controller"]
        command += ["--listener-image", IMAGE, "--http-host", "127.0.0.1", "--http-port", str(port), *options]
        command += [] if cluster_wide else ["--namespace", namespace.name, "--instance", namespace.name]
        environment = {**ENVIRONMENT, "KUBECONFIG": str(kubeconfig)}
        made.append(Operator(command, environment, directory / "operator.log", port, api_port))
        return made[-1]

    yield make
    for each in made:
        await each.end()
    log = directory / "operator.log"
    print(log.read_text() if log.exists() else "")  # pytest shows it where the test has failed


@pytest.fixture
async def least_rights(api: Api, namespace: Namespace, control_plane: Any, directory: Path) -> AsyncIterator[Path]:
    """A kubeconfig of a service account that has the operator's rights and no others."""
    path, name = f"/api/v1/namespaces/{namespace.name}/serviceaccounts", namespace.name
    roles = "/apis/rbac.authorization.k8s.io/v1"
    rules: list[dict[str, Any]] = [
        {"apiGroups": [group], "resources": [resource], "verbs": list(verbs)} for group, resource, verbs in RIGHTS
    ]
    rules.append({"apiGroups": [""], "resources": ["namespaces"], "resourceNames": ["kube-system"], "verbs": ["get"]})
    await api("POST", path, {"metadata": {"name": "operator"}})
    await api("POST", f"{roles}/clusterroles", {"metadata": {"name": name}, "rules": rules})
    binding = {
        "metadata": {"name": name},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name},
        "subjects": [{"kind": "ServiceAccount", "name": "operator", "namespace": name}],
    }
    await api("POST", f"{roles}/clusterrolebindings", binding)
    found = yaml.safe_load(control_plane.kubeconfig.read_text())
    granted = await api("POST", f"{path}/operator/token", {"spec": {}})
    found["users"][0]["user"] = {"token": granted["status"]["token"]}
    kubeconfig = directory / "kubeconfig"
    kubeconfig.write_text(yaml.safe_dump(found))
    served = "/apis/tablewatcher.io/v1alpha1/tablewatchers"
    async with asyncio.timeout(30):
        # The API server learns of roles a moment after it has stored them.
        while not await _may(Api(kubeconfig), served):  # noqa: ASYNC110 - another process is waited for
            await asyncio.sleep(0.1)
    yield kubeconfig
    await api("DELETE", f"{roles}/clusterrolebindings/{name}")
    await api("DELETE", f"{roles}/clusterroles/{name}")


@pytest.fixture
async def operator(make_operator: Any, database: Any) -> AsyncIterator[Operator]:
    """A running operator for the test's namespace. It must end cleanly, and have had no unexpected fault."""
    found = make_operator()
    await found.start()
    yield found
    assert await found.stop() == 0
    found.check(database.server.password)


@pytest.fixture
async def node(namespace: Namespace, directory: Path, free_port: Callable[[], int]) -> AsyncIterator[Node]:
    """A node for the test's namespace."""
    async with Node(namespace, directory / "node", free_port).running() as found:
        yield found


@pytest.fixture
async def orders(database: Any) -> Any:
    """The test's database with a table `orders`."""
    await database.execute("CREATE TABLE orders (id int PRIMARY KEY, status text, total numeric)")
    return database
