"""A role that installs and another that delivers, certificates, and databases where only a DBA runs DDL."""

from __future__ import annotations

import asyncio
import json
import secrets
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import trustme

from ...integration.tls_front import TlsFront, pem
from .cluster import DEPLOYMENTS, ENVIRONMENT, Namespace, Node, Operator

Eventually = Callable[..., Awaitable[Any]]


def spec(stream: Any, **changes: Any) -> dict[str, Any]:
    found = {
        "database": {"secretRef": {"name": "shop"}},
        "table": {"name": "orders"},
        "actions": ["insert"],
        "sink": {"nats": {"servers": [stream.url], "subject": f"{stream.prefix}.{{action}}"}},
    }
    return {**found, **changes}


@pytest.fixture
async def clerk(orders: Any) -> AsyncIterator[str]:
    """A role that may log in and no more."""
    role = f"clerk_{secrets.token_hex(4)}"
    await orders.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'p'")
    yield role
    await orders.execute(f"DROP OWNED BY {role} CASCADE; DROP ROLE {role}")


async def is_ready(namespace: Namespace) -> bool:
    return (await namespace.conditions("orders")).get("Ready", ("", ""))[0] == "True"


async def is_gone(namespace: Namespace) -> bool:
    return await namespace.watcher("orders") is None


async def message(namespace: Namespace, kind: str) -> str:
    watcher = await namespace.watcher("orders")
    assert watcher is not None
    return next(each["message"] for each in watcher["status"]["conditions"] if each["type"] == kind)


async def test_the_owner_installs_and_another_role_delivers_over_tls(
    namespace: Namespace, orders: Any, clerk: str, stream: Any, node: Node, operator: Operator, eventually: Eventually
) -> None:
    authority = trustme.CA()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(context)
    async with TlsFront(orders.server, context) as front:
        owner = front.dsn("localhost", orders.name)
        login = orders.dsn.partition("//")[2].partition("@")[0]
        await namespace.secret("shop", uri=owner.replace(login, f"{clerk}:p"))
        await namespace.secret("shop-owner", uri=owner)
        config_map = {"metadata": {"name": "shop-ca"}, "data": {"ca.crt": pem(authority)}}
        await namespace.api("POST", f"/api/v1/namespaces/{namespace.name}/configmaps", config_map)
        database = {
            "secretRef": {"name": "shop"},
            "adminSecretRef": {"name": "shop-owner"},
            "tls": {"caRef": {"kind": "ConfigMap", "name": "shop-ca", "key": "ca.crt"}},
        }
        await namespace.create("orders", spec(stream, database=database))
        await eventually(lambda: is_ready(namespace), 30)
        assert await message(namespace, "DatabaseReady") == ""
        volumes = (await namespace.one(DEPLOYMENTS))["spec"]["template"]["spec"]["volumes"]
        assert [each["secret"]["secretName"] for each in volumes if "secret" in each] == ["shop"]
        assert "shop-ca" in [each["configMap"]["name"] for each in volumes if "configMap" in each]
        await orders.execute("INSERT INTO orders VALUES (1, 'new', 5)")
        assert len(await stream.messages(1)) == 1
        users = await orders.execute(
            "SELECT DISTINCT usename FROM pg_stat_activity WHERE application_name LIKE 'tablewatcher listener%'"
        )
        assert users == [(clerk,)]
        await namespace.delete("orders")
        await eventually(lambda: is_gone(namespace), 50)
        await eventually(lambda: not node.pods, 30)
    assert await orders.execute("SELECT FROM pg_namespace WHERE nspname = 'tablewatcher'") == []


async def script(namespace: Namespace, dsn: str, directory: Path) -> str:
    """What `tablewatcher sql` prints for the watcher, as the operator's instance."""
    watcher = await namespace.watcher("orders")
    assert watcher is not None
    file = directory / "orders.json"
    file.write_text(json.dumps(watcher))
    options = ("-f", str(file), "--dsn", dsn, "--instance", namespace.name)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tablewatcher.cli", "sql", *options), env=ENVIRONMENT, stdout=subprocess.PIPE
    )
    out, _ = await process.communicate()
    assert process.returncode == 0
    return out.decode()


async def test_a_dba_installs_and_removes(
    namespace: Namespace,
    orders: Any,
    clerk: str,
    stream: Any,
    node: Node,
    operator: Operator,
    eventually: Eventually,
    tmp_path: Path,
) -> None:
    dsn = orders.dsn_of(clerk, "p")
    await namespace.secret("shop", uri=dsn)
    await namespace.create("orders", spec(stream, management="Observe"))

    async def asked() -> bool:
        found = await namespace.conditions("orders")
        return found.get("TriggersInstalled") == ("False", "ManualActionRequired")

    await eventually(asked, 30)
    assert "tablewatcher sql" in await message(namespace, "TriggersInstalled")
    assert "not encrypted" not in await message(namespace, "DatabaseReady")
    assert await orders.execute("SELECT FROM pg_namespace WHERE nspname = 'tablewatcher'") == []
    await orders.execute(await script(namespace, dsn, tmp_path))
    # What a DBA may do instead of waiting until the operator looks again.
    await namespace.annotate("orders", reconcile_requested_at="installed")
    await eventually(lambda: is_ready(namespace), 40)
    assert "not encrypted" in await message(namespace, "DatabaseReady")
    await orders.execute("INSERT INTO orders VALUES (1, 'new', 5)")
    assert len(await stream.messages(1)) == 1

    await namespace.delete("orders")
    await eventually(lambda: is_gone(namespace), 50)
    await eventually(lambda: not node.pods, 30)
    assert len(await orders.execute("SELECT FROM pg_trigger WHERE tgname LIKE '00_tablewatcher%'")) == 1
    events = await namespace.api("GET", f"/apis/events.k8s.io/v1/namespaces/{namespace.name}/events")
    (note,) = [each["note"] for each in events["items"] if each["reason"] == "DeletionBlocked"]
    assert "Run there: DROP FUNCTION" in note
    await orders.execute(note.partition("Run there: ")[2].partition(" Cause:")[0])
    assert await orders.execute("SELECT FROM pg_trigger WHERE tgname LIKE '00_tablewatcher%'") == []
