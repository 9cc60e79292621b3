"""The cluster itself: what every other end-to-end test takes for granted."""

from __future__ import annotations

import http.server
import json
import threading
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from .conftest import Cluster

FETCH = "import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1], timeout=5).read().decode())"


@dataclass(frozen=True, slots=True)
class Neighbour:
    """An HTTP server on this machine, which answers every GET with `answer`."""

    port: int
    answer: str


@pytest.fixture
def neighbour(cluster: Cluster) -> Iterator[Neighbour]:
    """A server listening only where Pods reach this machine."""
    answer = uuid.uuid4().hex

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer.encode())

        def log_message(self, *_: object) -> None:
            """Stay silent."""

    with http.server.ThreadingHTTPServer((cluster.host_ip, 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield Neighbour(server.server_address[1], answer)
        server.shutdown()
        thread.join()


@pytest.fixture
def namespace(cluster: Cluster) -> Iterator[str]:
    """A namespace that enforces Pod Security's strictest profile, deleted at the end."""
    name = f"cluster-{uuid.uuid4().hex[:8]}"
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    apply(cluster, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})
    # Without it no Pod is admitted, and a controller makes it in its own time.
    cluster.kubectl("wait", "serviceaccount/default", f"--namespace={name}", "--for=create", "--timeout=60s")
    yield name
    cluster.kubectl("delete", "namespace", name, "--wait=false")


def apply(cluster: Cluster, *manifests: dict[str, object]) -> None:
    """Apply the manifests in one go."""
    listed = {"apiVersion": "v1", "kind": "List", "items": list(manifests)}
    cluster.kubectl("apply", "--filename=-", stdin=json.dumps(listed))


def name_for_host(namespace: str, port: int, host_ip: str) -> tuple[dict[str, object], dict[str, object]]:
    """A Service `neighbour` at port 80 for a process on this machine: no selector, its endpoints written by hand."""
    service: dict[str, object] = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "neighbour", "namespace": namespace},
        "spec": {"ports": [{"port": 80, "targetPort": port}]},
    }
    endpoints: dict[str, object] = {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": "neighbour-host",
            "namespace": namespace,
            "labels": {"kubernetes.io/service-name": "neighbour"},
        },
        "addressType": "IPv4",
        "ports": [{"port": port}],
        "endpoints": [{"addresses": [host_ip]}],
    }
    return service, endpoints


def fetching_pod(namespace: str, image: str, url: str) -> dict[str, object]:
    """A Pod that prints the body of `url` and ends, under the restrictions the listener runs under."""
    container = {
        "name": "fetch",
        "image": image,
        "imagePullPolicy": "Never",
        "command": ["python", "-c", FETCH, url],
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "fetch", "namespace": namespace},
        "spec": {
            "automountServiceAccountToken": False,
            "restartPolicy": "OnFailure",
            "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [container],
        },
    }


def test_the_node_is_ready(cluster: Cluster) -> None:
    ready = "jsonpath={.items[*].status.conditions[?(@.type=='Ready')].status}"
    assert cluster.kubectl("get", "nodes", f"--output={ready}") == "True"


def test_helm_reaches_the_cluster(cluster: Cluster) -> None:
    assert cluster.helm("version", "--short").startswith("v4.")
    assert json.loads(cluster.helm("list", "--namespace=kube-system", "--output=json")) == []


def test_a_pod_reaches_a_process_on_this_machine_by_name(
    cluster: Cluster, namespace: str, neighbour: Neighbour
) -> None:
    apply(
        cluster,
        *name_for_host(namespace, neighbour.port, cluster.host_ip),
        fetching_pod(namespace, cluster.image, f"http://neighbour.{namespace}.svc.cluster.local/"),
    )
    succeeded = ("--for=jsonpath={.status.phase}=Succeeded", "--timeout=90s")
    cluster.kubectl("wait", "pod/fetch", f"--namespace={namespace}", *succeeded)
    assert cluster.kubectl("logs", "fetch", f"--namespace={namespace}").strip() == neighbour.answer


def test_another_cluster_is_refused(cluster: Cluster) -> None:
    with pytest.raises(AssertionError, match="would leave the test cluster"):
        cluster.kubectl("--context=production", "get", "nodes")
