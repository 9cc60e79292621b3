"""What the journey needs around the operator: servers on this machine, and namespaces that know them by name."""

from __future__ import annotations

import asyncio
import http.server
import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import nats
import psycopg
import yaml
from nats.js.api import StreamConfig

from tablewatcher.embedded import EmbeddedNats, EmbeddedPostgres

from .conftest import ROOT, Cluster

EXAMPLES = ROOT / "examples"
RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted"}
# Needs every kind of escape on its way through a Secret and a URI.
PASSWORD = "p@ss/w:rd %#?&"
READY = "--for=condition=Ready"

Object = dict[str, Any]


def until(condition: Callable[[], Any], what: str, seconds: float) -> Any:
    """The first true answer of `condition`; AssertionError after `seconds`."""
    deadline = time.monotonic() + seconds
    while not (answer := condition()):
        assert time.monotonic() < deadline, f"{what}: not so within {seconds:g} s"
        time.sleep(0.1)
    return answer


def apply(cluster: Cluster, *manifests: Object) -> None:
    """Applies the manifests in one go."""
    cluster.kubectl("apply", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": manifests}))


def namespace_object(name: str) -> Object:
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": RESTRICTED}}


def secret_object(namespace: str, name: str, values: Mapping[str, str]) -> Object:
    metadata = {"name": name, "namespace": namespace}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": dict(values)}


def service_objects(namespace: str, name: str, port: int, host_ip: str, target: int) -> tuple[Object, Object]:
    """A Service for a process on this machine: without a selector, its endpoints written by hand."""
    metadata = {"name": name, "namespace": namespace}
    service: Object = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata,
        "spec": {"ports": [{"port": port, "targetPort": target}]},
    }
    endpoints: Object = {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {**metadata, "labels": {"kubernetes.io/service-name": name}},
        "addressType": "IPv4",
        "ports": [{"port": target}],
        "endpoints": [{"addresses": [host_ip]}],
    }
    return service, endpoints


@contextmanager
def reachable_postgres(directory: Path, cluster: Cluster) -> Iterator[EmbeddedPostgres]:
    """Postgres that lets Pods in, by password."""
    directory.mkdir()
    rules = directory / "pg_hba.conf"
    network = f"{cluster.host_ip.rsplit('.', 2)[0]}.0.0/16"
    rules.write_text(f"host all all 127.0.0.1/32 scram-sha-256\nhost all all {network} scram-sha-256\n")
    rules.chmod(0o644)
    settings = {"listen_addresses": f"127.0.0.1,{cluster.host_ip}", "hba_file": str(rules), "fsync": "off"}
    with EmbeddedPostgres(directory, 18, settings) as server:
        yield server


@dataclass(frozen=True, slots=True)
class Servers:
    """What runs on this machine: in the cluster `nats.nats.svc:4222`, as in the examples, and `postgres.postgres.svc`.

    Their Services outlive every shop, as a database outlives the namespace of an application."""

    cluster: Cluster
    postgres: EmbeddedPostgres
    nats: EmbeddedNats


@dataclass(frozen=True, slots=True)
class Shop:
    """A namespace with a database, the examples' table and a stream of its own, and no Secret yet."""

    servers: Servers
    namespace: str

    @property
    def cluster(self) -> Cluster:
        return self.servers.cluster

    @property
    def database(self) -> str:
        return self.namespace.replace("-", "_")

    @property
    def stream(self) -> str:
        return self.database.upper()

    def kubectl(self, *arguments: str, timeout_seconds: float = 120) -> str:
        return self.cluster.kubectl(f"--namespace={self.namespace}", *arguments, timeout_seconds=timeout_seconds)

    def secret(self, password: str = PASSWORD) -> None:
        """Creates or replaces the Secret `shop-app`."""
        login = f"{self.database}:{quote(password, safe='')}"
        uri = f"postgresql://{login}@postgres.postgres.svc:5432/{self.database}"
        apply(self.cluster, secret_object(self.namespace, "shop-app", {"uri": uri}))

    def watcher(self, name: str = "orders", *, prefix: str = "") -> None:
        """Applies the example for NATS, in this namespace and for its stream, as `name`."""
        manifest = yaml.safe_load((EXAMPLES / "nats.yaml").read_text())
        manifest["metadata"] = {"name": name, "namespace": self.namespace}
        sink = manifest["spec"]["sink"]["nats"]
        sink["subject"] = f"{prefix or self.namespace}.{{schema}}.{{table}}.{{action}}"
        sink["jetStream"] = {"stream": self.stream}
        apply(self.cluster, manifest)

    def wait(self, condition: str, seconds: int, name: str = "orders") -> None:
        """Waits as `kubectl wait` does; the status of the watcher is in the error where it does not come about."""
        try:
            self.kubectl("wait", f"tablewatcher/{name}", condition, f"--timeout={seconds}s")
        except AssertionError as error:
            shown = self.kubectl("get", "tablewatcher", name, "--output=jsonpath={.status}")
            raise AssertionError(f"{error}\n{shown}\n{self.kubectl('get', 'pods')}") from None

    def wait_reason(self, reason: str, seconds: int, name: str = "orders") -> None:
        """Waits until condition Ready has this reason."""
        self.wait(f"--for=jsonpath={{.status.conditions[?(@.type=='Ready')].reason}}={reason}", seconds, name)

    def read(self, path: str, *arguments: str) -> str:
        """One field of what `kubectl get ARGUMENTS` finds."""
        return self.kubectl("get", *arguments, f"--output=jsonpath={path}")

    def listeners(self, kind: str = "pods") -> list[str]:
        """Uids of the listener's Pods, or of its objects of another kind."""
        selector = "--selector=app.kubernetes.io/component=listener"
        return self.read("{.items[*].metadata.uid}", kind, selector).split()

    def execute(self, statement: str, *parameters: Any) -> list[tuple[Any, ...]]:
        """Runs one statement as the application."""
        dsn = self.servers.postgres.dsn(self.database, self.database, PASSWORD)
        with psycopg.connect(dsn, autocommit=True) as connection:
            cursor = connection.execute(statement.encode(), parameters or None)
            return [] if cursor.description is None else cursor.fetchall()

    def order(self) -> int:
        """Writes one order; its id."""
        rows = self.execute("INSERT INTO orders (customer, total) VALUES ('ada', 9.50) RETURNING id")
        return int(rows[0][0])

    def events(self) -> list[Object]:
        """All events of the stream, in its order."""
        return asyncio.run(_messages(self.servers.nats.url, self.stream))

    def ids(self, subject: str = "") -> list[int]:
        """Ids of the orders whose events have arrived, repeats and all, under subjects that start with `subject`."""
        return [event["data"]["key"]["id"] for event in self.events() if event["@subject"].startswith(subject)]

    def traces(self) -> list[str]:
        """Names of what there is of us in the database."""
        found = self.execute(
            "SELECT tgname FROM pg_trigger WHERE tgname LIKE '%%tablewatcher%%' UNION ALL"
            " SELECT relname FROM pg_class WHERE relname ~ '^(ring|cursor|ids|slot|wake|stop)_' UNION ALL"
            " SELECT proname FROM pg_proc WHERE proname LIKE 'capture_%%' AND pronamespace = to_regnamespace(%s)",
            "tablewatcher",
        )
        return [name for (name,) in found]


@contextmanager
def open_shop(servers: Servers, namespace: str) -> Iterator[Shop]:
    """A shop, closed at the end: its watchers are deleted, which must not hang, and then all the rest."""
    shop = Shop(servers, namespace)
    role = psycopg.sql.Identifier(shop.database)
    with psycopg.connect(servers.postgres.dsn(), autocommit=True) as admin:
        create = psycopg.sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}")
        admin.execute(create.format(role, psycopg.sql.Literal(PASSWORD)))
        admin.execute(psycopg.sql.SQL("CREATE DATABASE {} OWNER {}").format(role, role))
        with psycopg.connect(servers.postgres.dsn(shop.database), autocommit=True) as inside:
            inside.execute(psycopg.sql.SQL("GRANT CREATE ON SCHEMA public TO {}").format(role))
        shop.execute((EXAMPLES / "orders.sql").read_text())
        asyncio.run(_make_stream(servers.nats.url, shop.stream, f"{namespace}.>"))
        apply(servers.cluster, namespace_object(namespace))
        try:
            yield shop
        finally:
            shop.kubectl("delete", "tablewatchers", "--all", "--timeout=60s")
            servers.cluster.kubectl("delete", "namespace", namespace, "--ignore-not-found", "--wait=false")
            admin.execute(psycopg.sql.SQL("DROP DATABASE {} WITH (FORCE)").format(role))


async def _make_stream(url: str, name: str, subjects: str) -> None:
    async with await nats.connect(url) as client:
        await client.jetstream().add_stream(StreamConfig(name=name, subjects=[subjects]))


async def _messages(url: str, stream: str) -> list[Object]:
    found: list[Object] = []
    async with await nats.connect(url) as client:
        context = client.jetstream()
        count = (await context.stream_info(stream)).state.messages
        if count == 0:
            return found
        reader = await context.pull_subscribe(">", stream=stream)
        while len(found) < count:
            for message in await reader.fetch(count - len(found), timeout=10):
                await message.ack()
                found.append({**json.loads(message.data), "@subject": message.subject})
        await reader.unsubscribe()
    return found


@dataclass(slots=True)
class Hooks:
    """An HTTP endpoint on this machine; requests as (headers, body), in the order of their arrival."""

    port: int = 0
    requests: list[tuple[dict[str, str], bytes]] = field(default_factory=list)


class _Taking(http.server.BaseHTTPRequestHandler):
    hooks: Hooks

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.hooks.requests.append((dict(self.headers), body))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Stay silent."""


def hooks_server(hooks: Hooks, address: str) -> http.server.ThreadingHTTPServer:
    """A server for `hooks`, whose port it sets; the caller runs it."""
    server = http.server.ThreadingHTTPServer((address, 0), type("Taking", (_Taking,), {"hooks": hooks}))
    hooks.port = server.server_address[1]
    return server
