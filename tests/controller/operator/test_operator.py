"""From a manifest to an event on a real API server: what is made, what is said, what is put right."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from .cluster import CONFIG_MAPS, DEPLOYMENTS, ENVIRONMENT, MERGE, Namespace, Node, Operator

Eventually = Callable[..., Awaitable[Any]]
FINALIZER = "tablewatcher.io/cleanup"


def spec(stream: Any, **changes: Any) -> dict[str, Any]:
    found = {
        "database": {"secretRef": {"name": "shop"}},
        "table": {"name": "orders"},
        "actions": ["insert", "update", "delete"],
        "columns": ["status"],
        "sink": {"nats": {"servers": [stream.url], "subject": f"{stream.prefix}.{{table}}.{{action}}"}},
    }
    return {**found, **changes}


async def ready(namespace: Namespace, name: str = "orders") -> bool:
    return (await namespace.conditions(name)).get("Ready", ("", ""))[0] == "True"


async def test_a_manifest_becomes_events(
    namespace: Namespace, orders: Any, stream: Any, node: Node, operator: Operator, eventually: Eventually
) -> None:
    await namespace.secret("shop", uri=orders.dsn)
    labels = {"app.kubernetes.io/instance": "argo"}
    created = await namespace.create("orders", spec(stream), labels=labels, annotations={"note": "kept"})
    assert created["status"]["observedGeneration"] == -1
    await eventually(lambda: ready(namespace), 30)

    watcher = await namespace.watcher("orders")
    assert watcher is not None
    status = watcher["status"]
    assert {each["type"]: (each["status"], each["reason"]) for each in status["conditions"]} == {
        "Ready": ("True", "Forwarding"),
        "DatabaseReady": ("True", "Connected"),
        "TriggersInstalled": ("True", "InSync"),
        "ListenerAvailable": ("True", "MinimumReplicasAvailable"),
        "SinkReady": ("True", "Acknowledged"),
    }
    assert {each["observedGeneration"] for each in status["conditions"]} == {1}
    assert status["table"] == {"qualifiedName": "public.orders", "primaryKey": ["id"]}
    assert status["database"]["name"] == orders.name
    assert status["sink"] == "nats"
    assert status["listener"] == (await namespace.one(DEPLOYMENTS))["metadata"]["name"]
    # Nothing of the object but status and one finalizer has changed.
    assert watcher["spec"] == created["spec"]
    assert watcher["metadata"]["finalizers"] == [FINALIZER]
    changing = {"finalizers", "managedFields", "resourceVersion"}
    assert {key: value for key, value in watcher["metadata"].items() if key not in changing} == {
        key: value for key, value in created["metadata"].items() if key not in changing
    }

    await orders.execute("INSERT INTO orders VALUES (1, 'new', 5)")
    (message,) = await stream.messages(1)
    event = json.loads(message.data)
    assert event["source"] == f"/namespaces/{namespace.name}/tablewatchers/orders"
    assert event["data"]["after"] == {"id": 1, "status": "new"}
    said = f'tablewatcher_watcher_ready{{watcher="orders",watcher_namespace="{namespace.name}"}} 1.0'

    # The status is written before it is counted.
    async def counted() -> bool:
        return said in await operator.metrics()

    await eventually(counted)
    # A status that says the same is not written again: whatever the operator does now, the object stays as it is.
    await namespace.annotate("orders", reconcile_requested_at="t1")

    async def echoed() -> bool:
        return await namespace.handled("orders") == "t1"

    await eventually(echoed, 30)
    before = await namespace.watcher("orders")
    # Twice: the first look that is counted may have begun before the object changed.
    for label in ("b", "c"):
        await namespace.patch("orders", {"metadata": {"labels": {"a": label}}})
        count = reconciles(await operator.metrics())

        async def looked_again(count: float = count) -> bool:
            return reconciles(await operator.metrics()) > count

        await eventually(looked_again, 30)
    after = await namespace.watcher("orders")
    assert before is not None
    assert after is not None
    assert after["status"] == before["status"]


def reconciles(metrics: str) -> float:
    lines = [line for line in metrics.splitlines() if line.startswith("tablewatcher_reconcile_total{")]
    return sum(float(line.rpartition(" ")[2]) for line in lines)


async def test_the_listener_is_what_restricted_namespaces_admit(
    namespace: Namespace, orders: Any, http_receiver: Any, operator: Operator, eventually: Eventually
) -> None:
    """The Pod of the template, sent to an API server that enforces the restricted profile; and the ConfigMap."""
    enforce = {"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "restricted"}}}
    await namespace.api("PATCH", f"/api/v1/namespaces/{namespace.name}", enforce, kind=MERGE)
    await namespace.secret("shop", uri=orders.dsn)
    sink = {"http": {"url": http_receiver.url, "signing": {"secretRefs": [{"name": "hook", "key": "whsec"}]}}}
    watched = {
        "database": {"secretRef": {"name": "shop"}},
        "table": {"name": "orders"},
        "actions": ["insert"],
        "sink": sink,
    }
    await namespace.create("orders", watched)

    async def both() -> bool:
        return bool(await namespace.listing(DEPLOYMENTS) and await namespace.listing(CONFIG_MAPS))

    await eventually(both, 30)
    deployment, config_map = await namespace.one(DEPLOYMENTS), await namespace.one(CONFIG_MAPS)
    assert "ownerReferences" not in deployment["metadata"] | config_map["metadata"]
    manifest = json.loads(config_map["data"]["orders.json"])
    assert manifest["metadata"] == {"name": "orders", "namespace": namespace.name, "generation": 1}
    template = deployment["spec"]["template"]
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {**template["metadata"], "name": "try"}}
    path = f"/api/v1/namespaces/{namespace.name}/pods?dryRun=All"
    await namespace.api("POST", path, {**pod, "spec": {**template["spec"], "restartPolicy": "Always"}})
    mounted = {each["secret"]["secretName"]: each["secret"]["optional"] for each in template["spec"]["volumes"][1:]}
    assert mounted == {"hook": True, "shop": True}
    assert template["spec"]["automountServiceAccountToken"] is False
    strategy = deployment["spec"]["strategy"]["rollingUpdate"]
    assert (strategy["maxSurge"], strategy["maxUnavailable"]) == (1, 0)
    (container,) = template["spec"]["containers"]
    assert container["readinessProbe"]["httpGet"]["path"] == "/healthz"
    assert not any("subPath" in mount for mount in container["volumeMounts"])

    async def waits_for_pods() -> bool:
        return (await namespace.conditions("orders")).get("Ready") == ("False", "ListenerRollingOut")

    await eventually(waits_for_pods, 30)

    # A running Pod is told of a change at once: the kubelet renews its files when its annotation changes.
    await namespace.api(
        "POST", path.partition("?")[0], {**pod, "spec": {**template["spec"], "restartPolicy": "Always"}}
    )
    running = f"{path.partition('?')[0]}/try"
    await namespace.api("PATCH", f"{running}/status", {"status": {"phase": "Running"}}, kind=MERGE)
    await namespace.patch("orders", {"spec": {"columns": ["status"]}})

    async def told() -> bool:
        annotations = (await namespace.api("GET", running))["metadata"].get("annotations") or {}
        return "tablewatcher.io/content" in annotations

    await eventually(told, 30)
    assert (await namespace.one(DEPLOYMENTS))["metadata"]["generation"] == 1


async def test_drift_is_repaired(
    namespace: Namespace, orders: Any, stream: Any, operator: Operator, eventually: Eventually
) -> None:
    await namespace.secret("shop", uri=orders.dsn)
    await namespace.create("orders", spec(stream))
    trigger = "SELECT tgname FROM pg_trigger WHERE tgname LIKE '00_tablewatcher_%' AND tgenabled <> 'D' ORDER BY 1"
    function = "SELECT prosrc FROM pg_proc WHERE proname LIKE 'capture_%'"
    await eventually(lambda: namespace.listing(DEPLOYMENTS), 30)
    triggers = await orders.execute(trigger)
    name = min(trigger for (trigger,) in triggers)
    ((source,),) = await orders.execute(function)
    deployment = await namespace.one(DEPLOYMENTS)
    path = f"/apis/apps/v1/namespaces/{namespace.name}/deployments/{deployment['metadata']['name']}"

    await orders.execute(f'DROP TRIGGER "{name}" ON orders')
    await orders.execute("DROP TRIGGER IF EXISTS none ON orders")
    await namespace.api("PATCH", path, {"spec": {"replicas": 0}}, kind=MERGE)
    config_map = await namespace.one(CONFIG_MAPS)
    await namespace.api("DELETE", f"/api/v1/namespaces/{namespace.name}/configmaps/{config_map['metadata']['name']}")

    async def repaired() -> bool:
        objects = await namespace.listing(DEPLOYMENTS), await namespace.listing(CONFIG_MAPS)
        whole = objects[0][0]["spec"]["replicas"] == 1 and [each["data"] for each in objects[1]]
        return bool(whole and whole == [config_map["data"]] and await orders.execute(trigger) == triggers)

    await eventually(repaired, 45)
    await orders.execute(
        f"CREATE OR REPLACE FUNCTION tablewatcher.capture_{name.rpartition('_')[2]}() RETURNS trigger"
        " LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'"
    )
    await namespace.annotate("orders", reconcile_requested_at="now")

    async def function_repaired() -> bool:
        return await orders.execute(function) == [(source,)]

    # Long before the catalog is looked at unasked.
    await eventually(function_repaired, 20)

    # What is put right is counted a moment later.
    async def counted() -> bool:
        metrics = await operator.metrics()
        kinds = ("trigger", "function", "deployment", "configmap")
        return all(f'drift_repaired_total{{object="{kind}"' in metrics for kind in kinds)

    await eventually(counted)


async def test_a_bad_watcher_and_a_good_one_share_a_listener(
    namespace: Namespace, orders: Any, make_stream: Any, node: Node, operator: Operator, eventually: Eventually
) -> None:
    """What the sink refuses is said of one watcher, heals, and never was the other's concern."""
    await namespace.secret("shop", uri=orders.dsn)
    stream = await make_stream()
    await namespace.create("good", spec(stream))
    nowhere = {"nats": {"servers": [stream.url], "subject": f"nowhere-{stream.prefix}.{{action}}"}}
    await namespace.create("bad", spec(stream, sink=nowhere))

    async def told() -> bool:
        return (await namespace.conditions("bad")).get("SinkReady") == ("False", "NoStreamForSubject")

    await eventually(told, 30)
    await eventually(lambda: ready(namespace, "good"), 30)
    assert (await namespace.conditions("bad"))["Ready"] == ("False", "NoStreamForSubject")
    assert len(await namespace.listing(DEPLOYMENTS)) == 1
    assert set((await namespace.one(CONFIG_MAPS))["data"]) == {"good.json", "bad.json"}
    assert len(node.pods) == 1

    # The manifest is put right: a new generation, and Ready only once the listener has taken it up.
    await namespace.patch("bad", {"spec": {"sink": {"nats": {"subject": f"{stream.prefix}.b.{{action}}"}}}})
    await eventually(lambda: ready(namespace, "bad"), 30)
    await orders.execute("INSERT INTO orders VALUES (1, 'new', 5)")
    assert len(await stream.messages(2)) == 2
    # Suspended: still Ready, and said so.
    await namespace.patch("bad", {"spec": {"suspend": True}})

    async def suspended() -> bool:
        found = await namespace.conditions("bad")
        return found.get("Ready") == ("True", "Suspended") and found.get("Suspended") == ("True", "Suspended")

    await eventually(suspended, 30)
    # The listener dies: said within eight seconds, of both.
    await node.kill()

    async def listener_gone() -> bool:
        found = [(await namespace.conditions(name)).get("SinkReady", ("", "")) for name in ("good", "bad")]
        return {status for status, _ in found} == {"Unknown"}

    await eventually(listener_gone, 12)


async def test_an_operator_that_is_killed_goes_on_where_it_was(
    namespace: Namespace,
    orders: Any,
    stream: Any,
    node: Node,
    make_operator: Any,
    least_rights: Path,
    eventually: Eventually,
) -> None:
    """Cluster-wide, with its own rights only, killed in the middle; a deletion asked for while it was away is done when
    it is back."""
    operator = make_operator(cluster_wide=True, kubeconfig=least_rights)
    await operator.start()
    await namespace.secret("shop", uri=orders.dsn)
    await namespace.create("orders", spec(stream))
    await namespace.create("second", spec(stream, actions=["delete"]))
    await eventually(lambda: namespace.listing(CONFIG_MAPS), 20)
    await operator.stop(signal.SIGKILL)
    await operator.start()
    await eventually(lambda: ready(namespace), 30)
    await eventually(lambda: ready(namespace, "second"), 30)

    await operator.stop(signal.SIGKILL)
    before = (await namespace.one(DEPLOYMENTS))["metadata"]["generation"]
    await orders.execute("INSERT INTO orders VALUES (1, 'new', 5)")
    await stream.messages(1)
    await namespace.delete("orders")
    await operator.start()

    async def gone() -> bool:
        return await namespace.watcher("orders") is None

    await eventually(gone, 60)
    assert set((await namespace.one(CONFIG_MAPS))["data"]) == {"second.json"}
    assert (await namespace.one(DEPLOYMENTS))["metadata"]["generation"] == before
    assert await orders.execute("SELECT identity LIKE '%/second' FROM tablewatcher.watcher") == [(True,)]
    assert await operator.stop() == 0
    operator.check(orders.server.password)
    assert "forbidden" not in operator.log.read_text().lower()


def test_the_command_says_what_it_needs() -> None:
    command = [sys.executable, "-m", "tablewatcher.controller"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30, env=ENVIRONMENT)
    assert done.returncode == 2
    assert "--listener-image is needed" in done.stderr
