"""The chart on a real node: from `kubectl apply` to the event, through faults, and back to nothing."""

from __future__ import annotations

import base64
import json
import secrets
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from standardwebhooks import Webhook

from tablewatcher.embedded import EmbeddedNats

from .conftest import ROOT, Cluster
from .shop import (
    EXAMPLES,
    READY,
    Hooks,
    Servers,
    Shop,
    apply,
    hooks_server,
    namespace_object,
    open_shop,
    reachable_postgres,
    secret_object,
    service_objects,
    until,
)

SYSTEM = "tablewatcher-system"
CHART = str(ROOT / "helm" / "tablewatcher")
# From the manifest to a forwarding listener, its Pod's start included.
START_SECONDS = 45


def install(cluster: Cluster, *options: str) -> None:
    """Installs the chart with the image under test, or brings it to `options`."""
    repository, _, tag = cluster.image.rpartition(":")
    image = (f"image.repository={repository}", f"image.tag={tag}", "image.pullPolicy=Never")
    settings = [f"--set={setting}" for setting in (*image, *options)]
    release = ("upgrade", "--install", "tablewatcher", CHART, f"--namespace={SYSTEM}", "--wait", "--timeout=90s")
    cluster.helm(*release, *settings)


@pytest.fixture(scope="module")
def operator(cluster: Cluster) -> Iterator[None]:
    """The operator, installed by the chart in a namespace that enforces Pod Security's strictest profile."""
    apply(cluster, namespace_object(SYSTEM))
    try:
        install(cluster)
        yield
    finally:
        cluster.helm("uninstall", "tablewatcher", f"--namespace={SYSTEM}", "--wait", "--ignore-not-found")
        cluster.kubectl("delete", "crd", "tablewatchers.tablewatcher.io", "--ignore-not-found", "--timeout=60s")
        cluster.kubectl("delete", "namespace", SYSTEM, "--timeout=60s")


@pytest.fixture(scope="module")
def servers(cluster: Cluster, operator: None, session_directory: Path) -> Iterator[Servers]:
    with (
        reachable_postgres(session_directory / "shops", cluster) as postgres,
        EmbeddedNats(session_directory / "shops-nats", host=cluster.host_ip) as nats,
    ):
        for name, port, target in (("nats", 4222, nats.port), ("postgres", 5432, postgres.port)):
            apply(cluster, namespace_object(name), *service_objects(name, name, port, cluster.host_ip, target))
        yield Servers(cluster, postgres, nats)
        cluster.kubectl("delete", "namespace", "nats", "postgres", "--wait=false")


@pytest.fixture
def shop(servers: Servers) -> Iterator[Shop]:
    with open_shop(servers, f"shop-{secrets.token_hex(4)}") as found:
        yield found


@pytest.fixture
def forwarding(shop: Shop) -> Shop:
    """A shop whose orders are forwarded."""
    shop.secret()
    shop.watcher()
    shop.wait(READY, START_SECONDS)
    return shop


@pytest.fixture
def hooks(cluster: Cluster) -> Iterator[Hooks]:
    found = Hooks()
    with hooks_server(found, cluster.host_ip) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield found
        server.shutdown()
        thread.join()


def test_the_examples_forward_to_jetstream_and_to_an_http_endpoint(servers: Servers, hooks: Hooks) -> None:
    with open_shop(servers, "shop") as shop:
        shop.secret()
        shop.kubectl("apply", "-f", str(EXAMPLES / "nats.yaml"))
        shop.wait(READY, START_SECONDS)
        first = shop.order()
        until(lambda: shop.ids() == [first], "the order in JetStream", 30)
        row = shop.kubectl("get", "tw", "orders", "--no-headers").split()
        assert row[:-1] == ["orders", "public.orders", '["insert","update","delete"]', "nats", "True", "Forwarding"]

        key = "whsec_" + base64.b64encode(secrets.token_bytes(24)).decode()
        url = "http://hooks.shop.svc/orders"
        example = (EXAMPLES / "http.yaml").read_text().replace("https://hooks.example.com/orders", url)
        service = service_objects("shop", "hooks", 80, shop.cluster.host_ip, hooks.port)
        apply(shop.cluster, *service, secret_object("shop", "hook", {"whsec": key}), yaml.safe_load(example))
        shop.wait(READY, START_SECONDS, "orders-hook")
        shop.execute("UPDATE orders SET status = 'paid' WHERE id = %s", first)
        until(lambda: hooks.requests, "the change at the HTTP endpoint", 30)
        headers, body = hooks.requests[0]
        Webhook(key).verify(body, headers)
        event = json.loads(body)
        assert (event["type"], event["data"]["after"]["status"]) == ("io.tablewatcher.row.updated", "paid")
        until(lambda: shop.ids() == [first, first], "the change in JetStream", 30)
        assert shop.events()[1]["data"]["before"] == {"id": first, "status": "new", "total": 9.5}


def test_a_lost_listener_pod_loses_nothing(forwarding: Shop) -> None:
    (before,) = forwarding.listeners()
    orders = [forwarding.order() for _ in range(20)]
    pods = "--selector=app.kubernetes.io/component=listener"
    forwarding.kubectl("delete", "pods", pods, "--wait=false")
    # Orders come in until another Pod has taken over.
    until(
        lambda: orders.append(forwarding.order()) or before not in forwarding.listeners(),
        "the listener's Pod replaced",
        60,
    )
    orders += [forwarding.order() for _ in range(20)]
    until(lambda: set(forwarding.ids()) >= set(orders), "every order in JetStream", 60)
    arrived = list(dict.fromkeys(forwarding.ids()))
    assert sorted(arrived) == orders


def test_delivery_goes_on_without_the_operator(forwarding: Shop) -> None:
    deployment = (f"--namespace={SYSTEM}", "deployment/tablewatcher")
    forwarding.cluster.kubectl("scale", *deployment, "--replicas=0")
    try:
        pods = (f"--namespace={SYSTEM}", "pods", "--selector=app.kubernetes.io/component=operator")
        forwarding.cluster.kubectl("wait", *pods, "--for=delete", "--timeout=60s")
        order = forwarding.order()
        until(lambda: forwarding.ids() == [order], "the order in JetStream", 30)
    finally:
        forwarding.cluster.kubectl("scale", *deployment, "--replicas=1")
        forwarding.cluster.kubectl("rollout", "status", *deployment, "--timeout=60s")


def test_a_second_watcher_joins_the_running_listener(forwarding: Shop) -> None:
    pods = forwarding.listeners()
    began = time.monotonic()
    forwarding.watcher("orders-too", prefix=f"{forwarding.namespace}.too")
    forwarding.wait(READY, START_SECONDS, "orders-too")
    # Without the operator's touch the kubelet takes more than a minute to hand out the new manifest.
    assert time.monotonic() - began < 30
    order = forwarding.order()
    until(lambda: forwarding.ids(f"{forwarding.namespace}.too.") == [order], "the order under the new subject", 20)
    assert forwarding.listeners() == pods
    assert len(forwarding.listeners("deployments")) == 1


def test_a_missing_secret_and_a_wrong_password_are_said_and_heal(shop: Shop) -> None:
    shop.watcher()
    shop.wait_reason("SecretNotFound", 8)
    shop.secret("not the password")
    shop.kubectl("annotate", "tablewatcher", "orders", "tablewatcher.io/reconcile-requested-at=now")
    shop.wait_reason("AuthenticationFailed", 30)
    assert shop.traces() == []
    shop.secret()
    # Unasked: healed within 30 seconds; then its listener starts.
    shop.wait(READY, 30 + START_SECONDS)
    assert "not the password" not in shop.kubectl("get", "tablewatchers,events", "--output=yaml")


def test_a_dropped_trigger_is_put_back(forwarding: Shop) -> None:
    find = "SELECT tgname FROM pg_trigger WHERE tgrelid = 'public.orders'::regclass AND NOT tgisinternal ORDER BY 1"
    triggers = forwarding.execute(find)
    for (name,) in triggers:
        forwarding.execute(f'DROP TRIGGER "{name}" ON public.orders')
    # As somebody does who will not wait: unasked it takes half a minute, as the tests of the operator show.
    forwarding.kubectl("annotate", "tablewatcher", "orders", "tablewatcher.io/reconcile-requested-at=now")
    until(lambda: forwarding.execute(find) == triggers, "the triggers put back", 20)
    order = forwarding.order()
    until(lambda: order in [event["data"].get("key", {}).get("id") for event in forwarding.events()], "its event", 30)


def test_a_deleted_watcher_leaves_nothing(forwarding: Shop) -> None:
    forwarding.order()
    assert forwarding.traces()
    forwarding.kubectl("delete", "tablewatcher", "orders", "--timeout=60s")
    assert forwarding.traces() == []
    assert forwarding.listeners("deployments,configmaps") == []
    assert len(forwarding.ids()) == 1


def test_a_deleted_namespace_takes_its_triggers_with_it(forwarding: Shop) -> None:
    forwarding.cluster.kubectl("delete", "namespace", forwarding.namespace, "--timeout=60s")
    assert forwarding.traces() == []


def test_uninstalling_keeps_the_watchers_and_a_narrower_installation_takes_them_up(forwarding: Shop) -> None:
    cluster = forwarding.cluster
    cluster.helm("uninstall", "tablewatcher", f"--namespace={SYSTEM}", "--wait")
    try:
        assert forwarding.read("{.metadata.name}", "crd", "tablewatchers.tablewatcher.io")
        order = forwarding.order()
        until(lambda: forwarding.ids() == [order], "the order in JetStream", 30)
        install(cluster, f"watchNamespaces={{{forwarding.namespace}}}")
        forwarding.watcher("orders-too", prefix=f"{forwarding.namespace}.too")
        forwarding.wait(READY, START_SECONDS, "orders-too")
        forwarding.kubectl("delete", "tablewatchers", "--all", "--timeout=60s")
        assert forwarding.traces() == []
    finally:
        install(cluster)
