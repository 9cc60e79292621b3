"""Whatever can be wrong with a watcher: the condition says it within eight seconds, and heals by itself."""

from __future__ import annotations

import secrets
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import pytest

from .cluster import CONFIG_MAPS, MERGE, Namespace, Operator, Refused, is_watched

Eventually = Callable[..., Awaitable[Any]]
SAID_SECONDS = 8
# Of the operator, where a test does not wait until it watches.
START_SECONDS = 15
HEALED_SECONDS = 30
PASSWORD = "p@ss/w:rd?#%&"
CA = {"kind": "ConfigMap", "name": "late-ca", "key": "ca.crt"}


def spec(secret: str, **changes: Any) -> dict[str, Any]:
    found = {
        "database": {"secretRef": {"name": secret}},
        "table": {"name": "orders"},
        "actions": ["insert"],
        # Nobody listens there; no test of this module gets as far as a listener.
        "sink": {"nats": {"servers": ["nats://127.0.0.1:9"], "subject": "shop.{action}"}},
    }
    return {**found, **changes}


@dataclass(frozen=True, slots=True)
class Fault:
    """A watcher that cannot work, the condition that says so with its reason, and what makes it work."""

    spec: dict[str, Any]
    condition: str
    reason: str
    heal: Callable[[], Awaitable[Any]]


@pytest.fixture
async def limited(orders: Any) -> Any:
    """A role that may log in and no more."""
    role = f"limited_{secrets.token_hex(4)}"
    await orders.execute(f"CREATE ROLE {role} LOGIN PASSWORD '{PASSWORD}'")
    yield role
    await orders.execute(f"DROP OWNED BY {role} CASCADE; DROP ROLE {role}")


async def test_every_fault_is_said_and_heals(
    namespace: Namespace,
    orders: Any,
    limited: str,
    operator: Operator,
    free_port: Callable[[], int],
    eventually: Eventually,
) -> None:
    server, port = orders.server, str(orders.server.port)
    parts = {"host": "127.0.0.1", "username": limited, "dbname": orders.name}
    unreachable = orders.dsn.replace(f":{port}/", f":{free_port()}/")
    await namespace.secret("shop", uri=orders.dsn)
    await namespace.secret("lacking", **parts, password=PASSWORD)
    await namespace.secret("wrong", uri=orders.dsn.replace(server.password, "not-it"))
    await namespace.secret("away", uri=unreachable)
    await namespace.secret("limited", **parts, port=port, password=PASSWORD)
    await namespace.secret("keyless", host="127.0.0.1")

    def secret(name: str, **values: str) -> Callable[[], Awaitable[Any]]:
        return lambda: namespace.secret(name, **values)

    def sql(statement: str) -> Callable[[], Awaitable[Any]]:
        return lambda: orders.execute(statement)

    granted = f"GRANT USAGE, CREATE ON SCHEMA tablewatcher TO {limited}; GRANT TRIGGER ON orders TO {limited}"
    granted += f"; GRANT ALL ON ALL TABLES IN SCHEMA tablewatcher TO {limited}"
    granted += f"; GRANT EXECUTE ON FUNCTION tablewatcher.token(text[]), tablewatcher.utf8(text) TO {limited}"
    faults = {
        "no-secret": Fault(spec("late"), "DatabaseReady", "SecretNotFound", secret("late", uri=orders.dsn)),
        "no-key": Fault(spec("keyless"), "DatabaseReady", "SecretKeyMissing", secret("keyless", uri=orders.dsn)),
        "password": Fault(spec("wrong"), "DatabaseReady", "AuthenticationFailed", secret("wrong", uri=orders.dsn)),
        "unreachable": Fault(spec("away"), "DatabaseReady", "DatabaseUnreachable", secret("away", uri=orders.dsn)),
        "no-table": Fault(
            spec("shop", table={"name": "Late Table"}),
            "TriggersInstalled",
            "TableNotFound",
            sql('CREATE TABLE "Late Table" (id int PRIMARY KEY)'),
        ),
        "no-column": Fault(
            spec("shop", columns=["later"]),
            "TriggersInstalled",
            "ColumnNotFound",
            sql("ALTER TABLE orders ADD COLUMN later text"),
        ),
        "no-right": Fault(spec("limited"), "TriggersInstalled", "PermissionDenied", sql(granted)),
        "no-admin": Fault(
            spec("shop", database={"secretRef": {"name": "shop"}, "adminSecretRef": {"name": "owner"}}),
            "DatabaseReady",
            "SecretNotFound",
            secret("owner", uri=orders.dsn),
        ),
        "no-ca": Fault(
            spec("shop", database={"secretRef": {"name": "shop"}, "tls": {"caRef": CA}}),
            "DatabaseReady",
            "ConfigMapNotFound",
            lambda: namespace.patch("no-ca", {"spec": {"database": {"tls": None}}}),
        ),
        "observe": Fault(
            spec("shop", management="Observe"),
            "TriggersInstalled",
            "ManualActionRequired",
            lambda: namespace.patch("observe", {"spec": {"management": "Managed"}}),
        ),
    }
    await is_watched(namespace, eventually)
    started = time.monotonic()
    for name, fault in faults.items():
        await namespace.create(name, fault.spec)
    await namespace.create("good", spec("shop"))

    async def good() -> bool:
        found = await namespace.conditions("good")
        return found.get("TriggersInstalled") == ("True", "InSync")

    await eventually(good, SAID_SECONDS)
    for name, fault in faults.items():

        async def said(name: str = name, fault: Fault = fault) -> bool:
            found = await namespace.conditions(name)
            return found.get(fault.condition) == found.get("Ready") == ("False", fault.reason)

        await eventually(said, SAID_SECONDS + started - time.monotonic() + 2)
    kinds = {name: set(await namespace.conditions(name)) for name in faults}
    # Waiting helps neither of these.
    assert {name for name, found in kinds.items() if "Stalled" in found} == {"no-right", "observe"}
    assert all("Reconciling" in found for found in kinds.values() if "Stalled" not in found)

    async def entries() -> list[str]:
        return [key for each in await namespace.listing(CONFIG_MAPS) for key in each["data"]]

    # Nothing of a watcher that cannot work is at the listener.
    assert await eventually(entries, SAID_SECONDS) == ["good.json"]

    started = time.monotonic()
    for fault in faults.values():
        await fault.heal()
    for name in faults:

        async def healed(name: str = name) -> bool:
            found = await namespace.conditions(name)
            return found.get("TriggersInstalled", ("", ""))[0] == "True" == found["DatabaseReady"][0]

        await eventually(healed, HEALED_SECONDS + started - time.monotonic())
    messages = [each["message"] for name in faults for each in (await namespace.watcher(name))["status"]["conditions"]]
    assert not [text for text in messages if PASSWORD in text or server.password in text]
    operator.check(PASSWORD)


async def test_a_manifest_that_only_the_parser_refuses(
    namespace: Namespace, orders: Any, operator: Operator, eventually: Eventually
) -> None:
    """The API server cannot check everything; what it lets in is Stalled, and installs nothing."""
    await namespace.secret("shop", uri=orders.dsn)
    bad = spec("shop", sink={"http": {"url": "https://hooks.example.com:99999/orders"}})
    try:
        await namespace.create("orders", bad)
    except Refused as refused:
        pytest.fail(f"choose another manifest, the API server refuses this one by itself: {refused}")

    async def said() -> bool:
        return (await namespace.conditions("orders")).get("Ready") == ("False", "SpecInvalid")

    await eventually(said, START_SECONDS + SAID_SECONDS)
    found = await namespace.conditions("orders")
    assert found["Stalled"] == ("True", "SpecInvalid")
    assert found["DatabaseReady"][0] == "Unknown"
    assert await orders.execute("SELECT FROM pg_namespace WHERE nspname = 'tablewatcher'") == []
    good = {"spec": {"sink": {"http": {"url": "https://hooks.example.com/orders"}}}}
    await namespace.api("PATCH", f"{namespace.watchers}/orders", good, kind=MERGE)

    async def installed() -> bool:
        return (await namespace.conditions("orders")).get("TriggersInstalled") == ("True", "InSync")

    await eventually(installed, HEALED_SECONDS)


async def test_only_secrets_that_opted_in_where_that_is_asked_for(
    namespace: Namespace, orders: Any, make_operator: Any, eventually: Eventually
) -> None:
    operator = make_operator("--require-secret-label")
    await operator.start()
    await namespace.secret("shop", uri=orders.dsn)
    await namespace.create("orders", spec("shop"))

    async def refused() -> bool:
        return (await namespace.conditions("orders")).get("Ready") == ("False", "SecretNotAllowed")

    await eventually(refused, START_SECONDS + SAID_SECONDS)
    await namespace.secret("shop", labels={"tablewatcher.io/allow": "true"}, uri=orders.dsn)
    # That it would look again by itself is shown above.
    await namespace.annotate("orders", reconcile_requested_at="now")

    async def installed() -> bool:
        return (await namespace.conditions("orders")).get("TriggersInstalled") == ("True", "InSync")

    await eventually(installed, HEALED_SECONDS)
    assert await operator.stop() == 0
    operator.check(orders.server.password)


async def test_a_copy_waits_for_the_annotation_that_names_it(
    namespace: Namespace, orders: Any, operator: Operator, eventually: Eventually
) -> None:
    await namespace.secret("shop", uri=orders.dsn)
    await namespace.create("orders", spec("shop"))

    async def installed() -> bool:
        return (await namespace.conditions("orders")).get("TriggersInstalled") == ("True", "InSync")

    await eventually(installed, HEALED_SECONDS)
    # As it looks from a copy: made elsewhere.
    await orders.execute("UPDATE tablewatcher.watcher SET system_identifier = '7'")
    await namespace.annotate("orders", reconcile_requested_at="first")

    async def refused() -> str:
        status = ((await namespace.watcher("orders")) or {})["status"]
        (found,) = (each for each in status["conditions"] if each["type"] == "DatabaseReady")
        return str(found["message"]) if found["reason"] == "CloneRefused" else ""

    message = await eventually(refused, SAID_SECONDS)
    home = message.partition("tablewatcher.io/adopt to ")[2].partition(".")[0]
    await namespace.annotate("orders", adopt="7-7", reconcile_requested_at="second")

    async def looked_again() -> bool:
        return await namespace.handled("orders") == "second"

    await eventually(looked_again, HEALED_SECONDS)
    assert await refused()
    await namespace.annotate("orders", adopt=home)
    await eventually(installed, HEALED_SECONDS)
    assert await orders.execute("SELECT generation FROM tablewatcher.watcher") == [(2,)]
