"""The end of a watcher: everything captured arrives, nothing is left, and nothing holds the object back."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import psycopg
from prometheus_client.parser import text_string_to_metric_families

from tablewatcher.embedded import EmbeddedPostgres

from .cluster import CONFIG_MAPS, DEPLOYMENTS, MERGE, Namespace, Node, Operator, is_watched

Eventually = Callable[..., Awaitable[Any]]
# The clean-up takes 45 seconds at most, whatever is in its way; then the finalizer goes.
GONE_SECONDS = 50


def spec(stream: Any, **changes: Any) -> dict[str, Any]:
    found = {
        "database": {"secretRef": {"name": "shop"}},
        "table": {"name": "orders"},
        "actions": ["insert"],
        "sink": {"nats": {"servers": [stream.url], "subject": f"{stream.prefix}.{{action}}"}},
    }
    return {**found, **changes}


async def is_ready(namespace: Namespace, name: str = "orders") -> bool:
    return (await namespace.conditions(name)).get("Ready", ("", ""))[0] == "True"


async def is_gone(namespace: Namespace, name: str = "orders") -> bool:
    return await namespace.watcher(name) is None


async def test_what_is_captured_arrives_before_all_goes(
    namespace: Namespace, orders: Any, stream: Any, node: Node, operator: Operator, eventually: Eventually
) -> None:
    await namespace.secret("shop", uri=orders.dsn)
    await namespace.create("orders", spec(stream))
    await eventually(lambda: is_ready(namespace), 30)
    count = 5000
    await orders.execute(f"INSERT INTO orders SELECT n, 'new', n FROM generate_series(1, {count}) AS n")
    await namespace.delete("orders")
    await eventually(lambda: is_gone(namespace), GONE_SECONDS)
    assert await stream.count() == count
    assert await orders.execute("SELECT FROM pg_namespace WHERE nspname = 'tablewatcher'") == []
    assert await orders.execute("SELECT FROM pg_trigger WHERE tgname LIKE '00_tablewatcher%'") == []
    assert await namespace.listing(DEPLOYMENTS) == []
    assert await namespace.listing(CONFIG_MAPS) == []
    await orders.execute("INSERT INTO orders VALUES (0, 'after', 0)")


async def families(operator: Operator, name: str) -> set[str]:
    """The metrics that have a series of this watcher, without what stands before all names."""
    return {
        each.name.removeprefix("tablewatcher_").removesuffix("_created")
        for each in text_string_to_metric_families(await operator.metrics())
        if any(sample.labels.get("watcher") == name for sample in each.samples)
    }


async def test_one_of_two_goes_and_the_other_goes_on(
    namespace: Namespace, orders: Any, stream: Any, node: Node, operator: Operator, eventually: Eventually
) -> None:
    await namespace.secret("shop", uri=orders.dsn)
    await namespace.create("orders", spec(stream))
    await namespace.create("kept", spec(stream, deletionPolicy="Retain"))
    await eventually(lambda: is_ready(namespace), 30)
    await eventually(lambda: is_ready(namespace, "kept"), 30)
    listener = (await namespace.one(DEPLOYMENTS))["metadata"]["name"]
    path = f"/apis/apps/v1/namespaces/{namespace.name}/deployments/{listener}"
    await namespace.api("PATCH", path, {"spec": {"replicas": 0}}, kind=MERGE)
    every = {"watcher_ready", "reconcile_duration_seconds", "reconcile", "drift_repaired"}

    async def counted() -> bool:
        return await families(operator, "orders") == await families(operator, "kept") == every

    await eventually(counted, 30)
    await namespace.delete("orders")
    await eventually(lambda: is_gone(namespace), GONE_SECONDS)
    assert (await families(operator, "orders"), await families(operator, "kept")) == (set(), every)
    assert set((await namespace.one(CONFIG_MAPS))["data"]) == {"kept.json"}
    await orders.execute("INSERT INTO orders VALUES (1, 'new', 1)")
    assert len(await stream.messages(1)) == 1
    # Retain: capture stops, the ring stays.
    await namespace.delete("kept")
    await eventually(lambda: is_gone(namespace, "kept"), GONE_SECONDS)
    assert await orders.execute("SELECT FROM pg_trigger WHERE tgname LIKE '00_tablewatcher%'") == []
    assert len(await orders.execute("SELECT FROM pg_class WHERE relname ~ '^ring_[0-9a-f]+_[012]$'")) == 3


async def test_a_dead_database_holds_nothing_back(
    namespace: Namespace,
    server_directory: Path,
    stream: Any,
    make_operator: Any,
    eventually: Eventually,
) -> None:
    """Its own Postgres, killed; the SQL that is left to run stands in an Event."""
    operator = make_operator()
    await operator.start()
    with EmbeddedPostgres(server_directory / "postgres", 18, {"fsync": "off"}) as server:
        password = server.password
        await namespace.secret("shop", uri=server.dsn())
        await namespace.create("never", spec(stream))

        async def never_installed() -> bool:
            return (await namespace.conditions("never")).get("Ready") == ("False", "TableNotFound")

        await eventually(never_installed, 30)
        await namespace.delete("never")
        await eventually(lambda: is_gone(namespace, "never"), 30)
        async with await psycopg.AsyncConnection.connect(server.dsn(), autocommit=True) as connection:
            await connection.execute("CREATE TABLE orders (id int PRIMARY KEY)")
        await namespace.create("orders", spec(stream))

        async def installed() -> bool:
            return (await namespace.conditions("orders")).get("TriggersInstalled") == ("True", "InSync")

        await eventually(installed, 30)
        server.kill()

        async def said() -> bool:
            return (await namespace.conditions("orders")).get("Ready") == ("False", "DatabaseUnreachable")

        await eventually(said, 10)
        await namespace.delete("orders")
        await eventually(lambda: is_gone(namespace), GONE_SECONDS)
    events = await namespace.api("GET", f"/apis/events.k8s.io/v1/namespaces/{namespace.name}/events")
    assert len(events["items"]) == 1, operator.log.read_text()
    (event,) = events["items"]
    assert event["reason"] == "DeletionBlocked"
    assert event["regarding"]["name"] == "orders"
    assert "DROP FUNCTION IF EXISTS tablewatcher.capture_" in event["note"]
    assert await namespace.listing(DEPLOYMENTS) == []
    assert await operator.stop() == 0
    operator.check(password)


async def test_a_namespace_that_ends(
    namespace: Namespace, orders: Any, stream: Any, node: Node, operator: Operator, eventually: Eventually
) -> None:
    """Its Secret goes first; what was installed is removed all the same, by the connection that worked last."""
    await namespace.secret("shop", uri=orders.dsn)
    await namespace.create("orders", spec(stream))
    await eventually(lambda: is_ready(namespace), 30)
    await namespace.api("DELETE", f"/api/v1/namespaces/{namespace.name}")
    # What a namespace controller does; this control plane has none.
    await namespace.api("DELETE", f"/api/v1/namespaces/{namespace.name}/secrets/shop")
    for path in (DEPLOYMENTS, CONFIG_MAPS):
        version, _, plural = path.rpartition("/")
        root = "/api" if version == "v1" else "/apis"
        name = (await namespace.one(path))["metadata"]["name"]
        await namespace.api("DELETE", f"{root}/{version}/namespaces/{namespace.name}/{plural}/{name}")
    await namespace.delete("orders")
    await eventually(lambda: is_gone(namespace), GONE_SECONDS)
    assert await orders.execute("SELECT FROM pg_trigger WHERE tgname LIKE '00_tablewatcher%'") == []
    assert await orders.execute("SELECT FROM pg_namespace WHERE nspname = 'tablewatcher'") == []


async def test_left_over_listeners_are_swept_at_the_start(
    namespace: Namespace, orders: Any, stream: Any, make_operator: Any, eventually: Eventually
) -> None:
    """Watchers released by hand while no operator was there."""
    await namespace.secret("shop", uri=orders.dsn)
    first = make_operator()
    await first.start()
    await namespace.create("orders", spec(stream))
    await namespace.create("kept", spec(stream))

    async def both() -> bool:
        return [len(each["data"]) for each in await namespace.listing(CONFIG_MAPS)] == [2]

    await eventually(both, 30)
    assert await first.stop() == 0
    await namespace.delete("orders")
    await namespace.api("PATCH", f"{namespace.watchers}/orders", {"metadata": {"finalizers": None}}, kind=MERGE)
    second = make_operator()
    await second.start()

    async def one_left() -> bool:
        return [set(each["data"]) for each in await namespace.listing(CONFIG_MAPS)] == [{"kept.json"}]

    await eventually(one_left, 30)
    await is_watched(namespace, eventually)
    assert await second.stop() == 0
    await namespace.delete("kept")
    await namespace.api("PATCH", f"{namespace.watchers}/kept", {"metadata": {"finalizers": None}}, kind=MERGE)
    third = make_operator()
    await third.start()

    async def none_left() -> bool:
        return not await namespace.listing(CONFIG_MAPS) and not await namespace.listing(DEPLOYMENTS)

    await eventually(none_left, 30)
    await is_watched(namespace, eventually)
    assert await third.stop() == 0
    third.check(orders.server.password)
